package stratum

import (
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

// TestWhoIsWithinItsGuaranteeGoesLast looks at the order that the kernel would take.
func TestWhoIsWithinItsGuaranteeGoesLast(t *testing.T) {
	const all = 16 * unit.GiB
	badness := func(held, guarantee unit.Size) float64 {
		return float64(held)/float64(all)*1000 + float64(Victim(guarantee, all))
	}
	for name, row := range map[string]struct{ first, last float64 }{
		"none guaranteed, small":     {badness(1*unit.GiB, 0), badness(3*unit.GiB, 4*unit.GiB)},
		"beyond its own, but small":  {badness(2*unit.GiB, 1*unit.GiB), badness(7*unit.GiB, 8*unit.GiB)},
		"further beyond its own":     {badness(6*unit.GiB, 2*unit.GiB), badness(7*unit.GiB, 4*unit.GiB)},
		"neither has one, the large": {badness(3*unit.GiB, 0), badness(2*unit.GiB, 0)},
	} {
		if row.first <= row.last {
			t.Errorf("%s: %.0f is to be chosen before %.0f", name, row.first, row.last)
		}
	}
	if got := Victim(15*unit.GiB, all); got != 0 {
		t.Errorf("next to all is guaranteed: %d", got)
	}
}
