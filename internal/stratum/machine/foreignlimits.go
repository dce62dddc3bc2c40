package machine

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// SetLimits implements stratum.Limiter: what the host keeps by itself, and processors,
// which are plugged in and taken out, and memory, which is plugged in where there is room.
func (f *Foreign) SetLimits(ctx context.Context, r api.Resources) error {
	was := f.Limits()
	if err := f.fits(r, was); err != nil {
		return err
	}
	if r.PIDs != was.PIDs {
		return fault.Unablef("a foreign system counts its processes itself").At("resources.pids").Help("limit them inside, such as by ulimit or systemd")
	}
	if err := f.Room(r); err != nil {
		return err
	}
	if r.Memory != was.Memory {
		if f.Paused() {
			return fault.Conflictf("the system is paused, so it cannot be given memory").Help("resume it first")
		}
		if err := f.Grow(ctx, r.Memory); err != nil {
			return err
		}
	}
	if err := f.Resize(ctx, r, func(use int) (bool, error) { return f.use(ctx, use) }); err != nil || r.Memory == was.Memory {
		return err
	}
	return f.populate(ctx)
}

// fits refuses memory that the board has no room for while it runs. Kinds: Conflict, Invalid.
func (f *Foreign) fits(r, was api.Resources) error {
	boot := f.Boot()
	help := "stop it first: its next start gets another"
	switch more := r.Memory - boot.Memory; {
	case r.Memory == was.Memory && r.MemoryGuarantee <= boot.Memory:
		return nil
	case boot.MostMemory == 0:
		return fault.Conflictf("the memory of a foreign system's board stays as it is while it runs: %s", boot.Memory).At("resources.memory").
			Help("%s; one that is made with --memory-max has room for more", help)
	case more < 0:
		return fault.Conflictf("the memory of a foreign system's board grows only while it runs, and it has %s", boot.Memory).At("resources.memory").Help("%s", help)
	case r.Memory > boot.MostMemory || r.MemoryGuarantee > r.Memory:
		return fault.Conflictf("the board has room for %s of memory while it runs", boot.MostMemory).At("resources.memory").Help("%s", help)
	case more%virtual.Block != 0:
		return fault.Invalidf("memory is plugged in by pieces of %s, and the board has %s", unit.Size(virtual.Block), boot.Memory).At("resources.memory").
			Help("such as %s", boot.Memory+(more/virtual.Block+1)*virtual.Block)
	}
	return nil
}

// populate has strata's own agent bring into use what was plugged in. Where it is not inside,
// the system does that itself, or not at all.
func (f *Foreign) populate(ctx context.Context) error {
	if !f.settled() {
		return nil
	}
	return f.Tell(ctx, f.Populate(spec.Limits{}))
}

// usePatience is how long a system may take to find what was plugged in, and useLook how
// often is looked.
const (
	usePatience = 20 * time.Second
	useLook     = 200 * time.Millisecond
)

// use has whoever answers inside use n processors, and tells whether somebody does. Where
// nobody does, the system does it itself, or not at all. qemu-guest-agent is asked to use
// more, and not fewer.
func (f *Foreign) use(ctx context.Context, n int) (told bool, err error) {
	switch {
	case n == 0 || f.Paused():
		return false, nil
	case f.settled():
		return true, f.Tell(ctx, spec.Limits{Processors: n})
	case n < f.Boot().CPUs || !f.does("guest-get-vcpus") || !f.does("guest-set-vcpus"):
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, usePatience)
	defer cancel()
	for {
		used, err := f.guest.agent.UseProcessors(ctx, n)
		if used >= n {
			return true, nil
		}
		select {
		case <-ctx.Done():
			f.log.Debug("a foreign system does not use all processors", "id", f.ID, "used", used, "err", err)
			return false, nil
		case <-time.After(useLook):
		}
	}
}
