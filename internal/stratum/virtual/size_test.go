package virtual

import (
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

func TestMachinesAreLargeEnoughForTheirLimit(t *testing.T) {
	for sentence, c := range map[string]struct {
		limit, want unit.Size
	}{
		"no limit":                             {0, 512 * unit.MiB},
		"the least limit":                      {6 * unit.MiB, 128 * unit.MiB},
		"all that the smallest has room for":   {32 * unit.MiB, 128 * unit.MiB},
		"one byte more":                        {32*unit.MiB + 1, 256 * unit.MiB},
		"a gibibyte":                           {unit.GiB, 2 * unit.GiB},
		"one byte less than the least (wrong)": {6*unit.MiB - 1, 0},
		"more than any machine has (wrong)":    {1 << 41, 0},
	} {
		if got, err := machineMemory(c.limit); got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%s: %s, %v; want %s", sentence, got, err, c.want)
		}
	}
}

func TestAMachineHasAProcessorForEachThatProgramsMayUse(t *testing.T) {
	for cpus, want := range map[unit.CPUs]int{0: 1, 500: 1, 1000: 1, 1001: 2, 4000: 4, 289_000: 0} {
		if got, err := machineProcessors(cpus); got != want || (err == nil) != (want != 0) {
			t.Errorf("%s: %d, %v; want %d", cpus, got, err, want)
		}
	}
}
