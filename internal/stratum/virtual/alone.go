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
	k, err := starting.Go(ctx) // of a QEMU that has ended the keeper says why
	if err == nil && dialed != nil {
		err = fault.Wrap(dialed, "start QEMU")
	}
	if err != nil && dialed != nil && fault.KindOf(err) == fault.Busy {
		err = errors.Join(err, dialed)
	}
	return k, err
}

// GuestSocket is where QEMU lets a host speak with qemu-guest-agent; "": nowhere.
func (l *Live) GuestSocket() string {
	path := l.d.Held.Path(l.ID, guestSocket)
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}

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
	l.Notes.Alone = true
	if l.Notes.Disks, err = disks(p); err != nil {
		return nil, err
	}
	l.Notes.Boot = api.Boot{
		Kernel: "its own", Accelerator: verdict.Accelerator, Why: verdict.Reason, Cold: "a machine is always booted",
	}
	return l, nil
}
