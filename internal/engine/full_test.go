package engine

import (
	"testing"

	"github.com/strata-project/strata/internal/stratum"
)

func TestAFullDiskIsCountedOnceUntilThereIsRoomAgain(t *testing.T) {
	const gib, mib = 1 << 30, 1 << 20
	for name, c := range map[string]struct {
		size int64
		free []int64
		want int64
	}{
		"nobody looked":                       {gib, nil, stratum.Unknown},
		"room":                                {gib, []int64{gib, gib / 2, 11 * mib}, 0},
		"full, and it stays so":               {gib, []int64{gib, 10 * mib, 0, 10 * mib}, 1},
		"a little more room is no room":       {gib, []int64{0, 12 * mib, 0, 20 * mib, 0}, 1},
		"full, emptied and full again":        {gib, []int64{0, gib, 0, 21 * mib, 5}, 3},
		"a small one is full before the last": {64 * mib, []int64{2 * mib, mib - 1, 2 * mib, 0}, 2},
	} {
		var f fill
		for _, free := range c.free {
			f.see(stratum.Space{Size: c.size, Free: free})
		}
		if got := f.hits(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
