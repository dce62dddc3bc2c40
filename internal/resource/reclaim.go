package resource

import (
	"context"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Reclaim has the kernel drop page cache and other caches that were made for the group,
// and write out first what has to be; programs' own memory stays. On v2 it leaves keep
// to the group. v1 knows all or nothing: it is asked only where programs alone hold as
// much as that. Kinds: Unable where the kernel is too old (v2: before 5.19) or keep
// cannot be kept, Missing.
func (g *Group) Reclaim(ctx context.Context, keep unit.Size) error {
	s, err := g.Stats()
	if err != nil {
		return err
	}
	above := s.Memory.Current - int64(keep)
	if above <= 0 {
		return ctx.Err()
	}
	if g.root.homes["memory"] == g.root.unified {
		return g.reclaimV2(above)
	}
	return g.reclaimV1(s.Memory, keep)
}

// reclaimV2 asks for at most above bytes. Source: Documentation/admin-guide/cgroup-v2.rst,
// memory.reclaim; swappiness came with 6.11, before which programs may be swapped out
// where there is swap space.
func (g *Group) reclaimV2(above int64) error {
	dir := g.dir("memory")
	stat, _ := keys(dir, "memory.stat")
	amount := min(above, stat["inactive_file"]+stat["active_file"]+stat["slab_reclaimable"])
	if amount <= 0 {
		return nil
	}
	text := strconv.FormatInt(amount, 10)
	err := put(dir, "memory.reclaim", text+" swappiness=0")
	if errors.Is(err, unix.EINVAL) {
		err = put(dir, "memory.reclaim", text)
	}
	switch {
	case errors.Is(err, unix.EAGAIN): // less than that could be had
		return nil
	case errors.Is(err, unix.ENOENT):
		return fault.Unablef("this kernel cannot take memory back from a group").Help("5.19 and later have memory.reclaim")
	}
	return explain(err, "reclaim memory")
}

// reclaimV1 empties the group as far as can be. Source:
// Documentation/admin-guide/cgroup-v1/memory.rst, 5.1.
func (g *Group) reclaimV1(m MemoryStats, keep unit.Size) error {
	dir := g.dir("memory")
	if m.Anon < int64(keep) {
		return fault.Unablef("cgroup v1 takes all caches of a group or none, and of the %s that are guaranteed programs hold %s", keep, sizeText(m.Anon)).
			At("resources.memory_guarantee").Help("a host with cgroup v2 can take a part")
	}
	if before, err := get(dir, "memory.swappiness"); err == nil && put(dir, "memory.swappiness", "0") == nil {
		defer put(dir, "memory.swappiness", before) // programs are not swapped out for it
	}
	err := put(dir, "memory.force_empty", "0")
	if errors.Is(err, unix.ENOENT) {
		return fault.Unablef("this kernel cannot take memory back from a group").Help("a host with cgroup v2 can")
	}
	return explain(err, "reclaim memory")
}
