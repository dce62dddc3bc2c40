package machine

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// SetLimits implements stratum.Limiter: what the host keeps by itself, and processors,
// which are plugged in and taken out. Memory is the board's.
func (f *Foreign) SetLimits(ctx context.Context, r api.Resources) error {
	was := f.Limits()
	if r.Memory != was.Memory || r.MemoryGuarantee > f.Boot().Memory {
		return fault.Conflictf("the memory of a foreign system's board stays as it is while it runs: %s", f.Boot().Memory).At("resources.memory").
			Help("stop it first: its next start gets another")
	}
	if r.PIDs != was.PIDs {
		return fault.Unablef("a foreign system counts its processes itself").At("resources.pids").Help("limit them inside, such as by ulimit or systemd")
	}
	if err := f.Room(r); err != nil {
		return err
	}
	return f.Resize(ctx, r, func(use int) (bool, error) { return f.use(ctx, use) })
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
