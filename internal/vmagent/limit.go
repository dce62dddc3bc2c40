package vmagent

import (
	"strconv"

	"github.com/strata-project/strata/internal/agent/root"
)

// makeRoom has the kernel reclaim down to a limit that is below what is in use: memory.max
// alone would kill what does not fit.
func (g *group) makeRoom(limit int64) error {
	if limit == 0 || g.number("memory.current") <= limit {
		return nil
	}
	if err := writeAt(g.dir, "memory.high", strconv.FormatInt(limit, 10)); err != nil {
		return nil // memory.max says what there is to say
	}
	used := g.number("memory.current")
	if err := writeAt(g.dir, "memory.high", "max"); err != nil {
		return root.Wrap(err, "lift memory.high")
	}
	if used > limit {
		return root.Fail("busy", "memory", strconv.FormatInt(used>>20, 10)+"M of memory are in use, more than the new limit")
	}
	return nil
}
