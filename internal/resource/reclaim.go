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
	if g.root.homes["memory"] == g.root.unified {
		return g.reclaimV2(ctx, int64(keep))
	}
	s, err := g.Stats()
	if err != nil {
		return err
	}
	if s.Memory.Current <= int64(keep) {
		return ctx.Err()
	}
	return g.reclaimV1(s.Memory, keep)
}

// reclaimV2 takes down to keep, but for steps that do no more. The kernel takes up to
// twice what it is asked for: so where something is to be kept, half is asked for each
// time.
func (g *Group) reclaimV2(ctx context.Context, keep int64) error {
	const steps, least = 24, 64 << 10
	for range steps {
		s, err := g.Stats()
		if err != nil {
			return err
		}
		stat, _ := keys(g.dir("memory"), "memory.stat")
		amount := min(s.Memory.Current-keep, stat["inactive_file"]+stat["active_file"]+stat["slab_reclaimable"])
		if keep > 0 {
			amount /= 2
		}
		if amount < least || ctx.Err() != nil {
			return ctx.Err()
		}
		if more, err := g.askBack(amount); !more || keep == 0 {
			return err
		}
	}
	return nil
}

// askBack asks for so many bytes, and tells whether they came. Source:
// Documentation/admin-guide/cgroup-v2.rst, memory.reclaim; swappiness came with 6.11,
// before which programs may be swapped out where there is swap space.
func (g *Group) askBack(amount int64) (bool, error) {
	dir, text := g.dir("memory"), strconv.FormatInt(amount, 10)
	err := put(dir, "memory.reclaim", text+" swappiness=0")
	if errors.Is(err, unix.EINVAL) {
		err = put(dir, "memory.reclaim", text)
	}
	switch {
	case errors.Is(err, unix.EAGAIN): // less than that could be had
		return false, nil
	case errors.Is(err, unix.ENOENT):
		return false, fault.Unablef("this kernel cannot take memory back from a group").Help("5.19 and later have memory.reclaim")
	}
	return err == nil, explain(err, "reclaim memory")
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
