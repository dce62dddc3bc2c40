package mount

import "testing"

// ForceByName makes overlays the way that kernels before 6.13 want them.
func ForceByName(t testing.TB, force bool) {
	before := byName.Swap(force)
	t.Cleanup(func() { byName.Store(before) })
}

// Kept tells how many namespaces are kept.
func (c *IDMaps) Kept() int { return c.order.Len() }

// These two are tested by themselves.
var (
	ParseMounts = parseMounts
	MountLooped = mountLooped
)
