package host

import (
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

func TestMeminfoIsRead(t *testing.T) {
	const text = "MemTotal:       24684440 kB\nMemFree:        100 kB\nMemAvailable:   20000000 kB\nHugePages_Total:       7\n"
	for key, want := range map[string]unit.Size{"MemTotal": 24684440 * unit.KiB, "MemAvailable": 20000000 * unit.KiB, "Missing": 0} {
		if got := meminfo(text, key); got != want {
			t.Errorf("%s is %d, want %d", key, got, want)
		}
	}
}

func TestThisHostHasASize(t *testing.T) {
	s, err := Measure()
	if err != nil || s.Memory < 64*unit.MiB || s.Used <= 0 || s.Used > s.Memory || s.CPUs < 1000 {
		t.Errorf("Measure = %+v, %v", s, err)
	}
}
