package virtual

import (
	"context"
	"errors"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// MemoryOf tells what the machine in group uses.
func MemoryOf(group *resource.Group) func() (int64, error) {
	return func() (int64, error) {
		s, err := group.Stats()
		return s.Memory.Current, err
	}
}

// boot lets QEMU run, waits for the agent inside, and tells it what to run. It returns
// once the program runs, which may be before the agent has answered.
func (d *Driver) boot(ctx context.Context, p stratum.Plan, group *resource.Group, l *Launch, starting *keeper.Starting) (_ *keeper.Keeper, _ *session, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*wholePatience) // the agent's time is over before
	defer cancel()
	l.Begun = true
	if l.From != nil {
		return d.rejoin(ctx, p, group, l, starting)
	}
	type outcome struct {
		keeper *keeper.Keeper
		err    error
	}
	started := make(chan outcome, 1)
	goCtx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		k, err := starting.Go(goCtx)
		started <- outcome{k, err}
	}()
	asked := make(chan error, 1)
	first := make(chan *control.Client, 1)
	askCtx, giveUp := Patient(context.WithoutCancel(ctx), l.stall(d.o.Patience), MemoryOf(group))
	go func() {
		defer giveUp()
		c, err := d.tell(askCtx, p.ID, l)
		first <- c
		asked <- err
	}()
	defer func() {
		if err == nil {
			return
		}
		giveUp()
		if c := <-first; c != nil {
			c.Close()
		}
	}()
	for {
		select {
		case err := <-asked:
			if err == nil {
				asked = nil // the program's own start is the keeper's to tell
				continue
			}
			if lost := control.Broken(err) || fault.KindOf(err) == fault.Busy || fault.KindOf(err) == fault.Unable; lost {
				// What the keeper knows says more, where it knows anything: a kernel that
				// panicked, a QEMU that could not be executed, a program that runs.
				select {
				case s := <-started:
					if s.err != nil {
						return nil, nil, s.err
					}
					return s.keeper, &session{first, giveUp}, nil
				case <-time.After(time.Second):
				}
			}
			stop()
			<-started // what there was of the payload is ended then
			return nil, nil, silent(err, p.Console.Dir, starting.Began)
		case s := <-started:
			if s.err != nil {
				return nil, nil, s.err
			}
			return s.keeper, &session{first, giveUp}, nil
		}
	}
}

// tell meets the agent and has it put the environment together.
func (d *Driver) tell(ctx context.Context, id string, l *Launch) (*control.Client, error) {
	c, err := control.Dial(ctx, d.Held.Path(id, ControlSocket))
	if err != nil {
		return nil, err
	}
	l.Met = true
	if l.Notes.Boot.Accelerator == qemu.KVM {
		d.Judge.Confirm(l.QEMU, nil)
	}
	if l.From != nil {
		if err := catchUp(ctx, c, l.Run); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	fresh(&l.Run, time.Now())
	if err := c.Run(ctx, l.Run); err != nil {
		c.Close()
		return nil, err
	}
	if l.Run.System {
		// The agent goes on as another process, which is to be met anew.
		c.Close()
		return nil, nil
	}
	return c, nil
}

// rejoin is boot for a system that goes on. Its program has started long ago, and says
// so at once; it counts from when the agent has been told what it missed.
func (d *Driver) rejoin(ctx context.Context, p stratum.Plan, group *resource.Group, l *Launch, starting *keeper.Starting) (*keeper.Keeper, *session, error) {
	askCtx, giveUp := Patient(ctx, d.o.Patience, MemoryOf(group))
	defer giveUp()
	client, err := d.tell(askCtx, p.ID, l)
	if err != nil {
		if why := ended(ctx, starting); why != nil {
			return nil, nil, why
		}
		return nil, nil, errors.Join(silent(err, p.Console.Dir, starting.Began), starting.Abort(context.WithoutCancel(ctx)))
	}
	k, err := starting.Go(ctx)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	first := make(chan *control.Client, 1)
	first <- client
	return k, &session{first, giveUp}, nil
}

// catchUp tells a system that goes on what has changed while it was not.
func catchUp(ctx context.Context, c *control.Client, r spec.Run) error {
	if err := c.SetClock(ctx, time.Now()); err != nil {
		return fault.Wrap(err, "set the clock inside")
	}
	return fault.Wrap(c.SetLimits(ctx, spec.Limits{Memory: r.Memory, PIDs: r.PIDs}), "set the limits inside")
}
