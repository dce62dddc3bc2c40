package near

import "testing"

func TestDistance(t *testing.T) {
	for pair, want := range map[[2]string]int{
		{"", ""}: 0, {"zone", "zone"}: 0, {"", "zone"}: 4, {"zone", ""}: 4,
		{"zone", "zones"}: 1, {"zone", "bone"}: 1, {"zone", "one"}: 1, {"debain", "debian"}: 2, {"kitten", "sitting"}: 3, {"a", ""}: 1, {"web", "wbe"}: 2,
	} {
		if got := Distance(pair[0], pair[1]); got != want {
			t.Errorf("%q and %q: %d, want %d", pair[0], pair[1], got, want)
		}
	}
}
