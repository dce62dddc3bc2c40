package virtual

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// alonePatience is how long QEMU may take to come up, on a busy host.
const alonePatience = time.Minute

// alone lets a machine run in which nobody answers. It runs once QEMU has all that it
// was told of: what the system inside does is not known.
func (d *Driver) alone(ctx context.Context, id string, starting *keeper.Starting) (*keeper.Keeper, error) {
	ctx, cancel := context.WithTimeout(ctx, alonePatience)
	defer cancel()
	q, dialed := qemu.Dial(ctx, d.Held.Path(id, MonitorSocket))
	if dialed == nil {
		q.Close()
	}
	if qemu.Gone(dialed) {
		if why := ended(ctx, starting); why != nil {
			return nil, why
		}
	}
	k, err := starting.Go(ctx)
	if err == nil && dialed != nil {
		err = fault.Wrap(dialed, "start QEMU")
	}
	if err != nil && dialed != nil && fault.KindOf(err) == fault.Busy {
		err = errors.Join(err, dialed)
	}
	return k, err
}

// ended says why a machine has ended that does not answer any more while it starts: its
// keeper sees it a moment later, and goes as well. nil: it has not ended, or ctx has.
func ended(ctx context.Context, starting *keeper.Starting) error {
	select {
	case <-starting.Gone():
		_, why := starting.Go(ctx)
		return why
	case <-ctx.Done():
		return nil
	case <-time.After(endPatience):
		return nil
	}
}

// GuestSocket is where QEMU lets a host speak with qemu-guest-agent; "": nowhere.
func (l *Live) GuestSocket() string {
	path := l.d.Held.Path(l.ID, guestSocket)
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}

// lookPatience is how long an agent may take to say who it is.
const lookPatience = 10 * time.Second

// Look asks strata's agent in a system that had none from the start who it is, and notes
// whether it answers.
func (l *Live) Look(ctx context.Context) (version, release string, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	err = l.ask(ctx, func(c *control.Client) error {
		i, err := c.Info(ctx)
		if err == nil {
			version, release = i.Version, i.Kernel
		}
		return err
	})
	if err != nil {
		l.Leave() // it may have started over, and waits to be met
		return "", "", err
	}
	l.inside.Store(true)
	return version, release, nil
}

// Leave notes that no agent of strata's is inside any more: one that comes is met anew.
func (l *Live) Leave() {
	l.inside.Store(false)
	l.agent.mu.Lock()
	c := l.agent.client
	l.agent.mu.Unlock()
	if c != nil {
		l.agent.drop(c)
	}
}

// Program is the agent that runs inside systems.
func (d *Driver) Program() string { return d.inside }

// PrepareAlone finds out what runs a machine in which nothing of strata's is, and
// changes nothing. How large it is is the caller's to fill in.
func (d *Driver) PrepareAlone(ctx context.Context, p stratum.Plan) (*Launch, error) {
	l := &Launch{Alone: true}
	var err error
	if l.QEMU, err = qemu.Find(ctx); err != nil {
		return nil, err
	}
	verdict := d.Judge.Choose(ctx, l.QEMU)
	l.Notes = notesOf(p)
	l.Notes.Alone, l.Notes.Console, l.Notes.Began = true, p.Console.Dir, time.Now()
	if l.Notes.Disks, err = disks(p); err != nil {
		return nil, err
	}
	l.Notes.Boot = api.Boot{
		Kernel: "its own", Accelerator: verdict.Accelerator, Why: verdict.Reason, Cold: "a machine is always booted",
	}
	return l, nil
}
