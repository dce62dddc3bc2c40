package zone

import (
	"context"
	"encoding/json"
	"os"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
)

// patience bounds what a Live does by itself once its run is over.
const patience = 10 * time.Second

// lostStatus is the exit status of a run whose keeper was lost: as if killed.
const lostStatus = 128 + int(syscall.SIGKILL)

// Live is one run of a zone.
type Live struct {
	d     *Driver
	id    string
	k     *keeper.Keeper
	group *resource.Group
	notes notes

	ready chan struct{}
	over  chan struct{} // closed once exit is set
	exit  api.Exit
}

// live takes over a run and waits for its end.
func (d *Driver) live(id string, k *keeper.Keeper, group *resource.Group, n notes) *Live {
	l := &Live{d: d, id: id, k: k, group: group, notes: n, ready: make(chan struct{}), over: make(chan struct{})}
	go l.watch()
	return l
}

// Adopt implements stratum.Driver.
func (d *Driver) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	k, err := keeper.Open(ctx, d.run(id, socketName), d.run(id, statusName))
	if err != nil {
		return nil, err
	}
	group, err := d.o.Resources.Find(id)
	if err != nil {
		return nil, err
	}
	n, err := d.notes(id)
	if err != nil {
		return nil, err
	}
	return d.live(id, k, group, n), nil
}

// notes reads what Start has noted of a run.
func (d *Driver) notes(id string) (n notes, err error) {
	text, err := os.ReadFile(d.run(id, notesName))
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil {
		return n, fault.Internalf("read what is known of run %s: %w", id, err)
	}
	return n, nil
}

// watch waits for the end of the run, which outlives every request.
func (l *Live) watch() {
	defer close(l.over)
	ctx := context.Background()
	record, err := l.k.Watch(ctx, func() { close(l.ready) })
	if err == nil {
		l.exit = *exitOf(&record)
		return
	}
	l.d.o.Log.Debug("a keeper was lost", "id", l.id, "err", err)
	// It may have written its record and gone before it was asked.
	if written, err := keeper.ReadExit(l.d.run(l.id, exitName)); err == nil && written != nil {
		l.exit = *exitOf(written)
		return
	}
	l.exit = api.Exit{Status: lostStatus, Signal: int(syscall.SIGKILL), Crash: "the keeper was lost", At: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.group.Kill(ctx); err != nil {
		l.d.o.Log.Debug("what a lost keeper has left cannot be killed", "id", l.id, "err", err)
	}
}

// exitOf says what a keeper's record says in the words of the wire.
func exitOf(r *wire.ExitRecord) *api.Exit {
	if r == nil {
		return nil
	}
	return &api.Exit{Status: r.Status, Signal: r.Signal, OOM: r.OOM, At: time.Unix(0, r.At)}
}

// PID implements stratum.Live.
func (l *Live) PID() int { return l.k.PID }

// KeeperPID implements stratum.Live.
func (l *Live) KeeperPID() int { return l.k.KeeperPID }

// Ready implements stratum.Live.
func (l *Live) Ready() <-chan struct{} { return l.ready }

// Wait implements stratum.Live.
func (l *Live) Wait(ctx context.Context) (api.Exit, error) {
	select {
	case <-l.over:
		return l.exit, nil
	default:
	}
	select {
	case <-l.over:
		return l.exit, nil
	case <-ctx.Done():
		return api.Exit{}, fault.Busyf("wait for the end: %w", ctx.Err())
	}
}

// Signal implements stratum.Live.
func (l *Live) Signal(ctx context.Context, sig syscall.Signal) error {
	return fault.Wrap(l.k.Signal(ctx, sig), "send signal %d", int(sig))
}

// Kill implements stratum.Live.
func (l *Live) Kill(ctx context.Context) error {
	return fault.Wrap(l.group.Kill(ctx), "kill")
}

// Attach implements stratum.Live.
func (l *Live) Attach(ctx context.Context, conn *os.File) error { return l.k.Attach(ctx, conn) }

// Exec implements stratum.Live.
func (l *Live) Exec(ctx context.Context, p stratum.Process, conn *os.File) error {
	facts, err := l.d.facts()
	if err != nil {
		return err
	}
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fault.Invalidf("there is no command to run").At("command")
	}
	return l.k.Exec(ctx, wire.Exec{Process: *process(p, l.notes, facts), Join: l.group.ExecFiles()}, conn)
}

// Stats implements stratum.Live. The name is left to whoever knows it.
func (l *Live) Stats(context.Context) (api.Stats, error) {
	s, err := l.group.Stats()
	if err != nil {
		return api.Stats{}, err
	}
	return api.Stats{
		ID: l.id, Time: time.Now(), CPUTime: s.CPU.Usage, Memory: s.Memory.Current, MemoryPeak: s.Memory.Peak,
		MemoryLimit: limit(s.Memory.Limit), PIDs: s.PIDs.Current, PIDsLimit: limit(s.PIDs.Limit), OOMKills: s.Memory.Kills,
	}, nil
}

// limit turns "unlimited" into what the API leaves out.
func limit(n int64) int64 { return max(n, 0) }

// Pause implements stratum.Pauser.
func (l *Live) Pause(ctx context.Context) error { return l.group.Freeze(ctx) }

// Resume implements stratum.Pauser.
func (l *Live) Resume(ctx context.Context) error { return l.group.Thaw(ctx) }

// Paused tells whether it is held still, for a daemon that adopts it.
func (l *Live) Paused() bool {
	frozen, err := l.group.Frozen()
	return err == nil && frozen
}

// SetLimits implements stratum.Limiter.
func (l *Live) SetLimits(_ context.Context, r api.Resources) error {
	return l.group.Set(resource.Limits{Memory: r.Memory, CPUs: r.CPUs, PIDs: r.PIDs})
}

var (
	_ stratum.Driver  = (*Driver)(nil)
	_ stratum.Live    = (*Live)(nil)
	_ stratum.Pauser  = (*Live)(nil)
	_ stratum.Limiter = (*Live)(nil)
)
