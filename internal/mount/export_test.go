package mount

import "testing"

// ForceByName makes overlays the way that kernels before 6.13 want them.
func ForceByName(t testing.TB, force bool) {
	before := byName.Swap(force)
	t.Cleanup(func() { byName.Store(before) })
}

var ParseMounts = parseMounts
