package held

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/resource"
)

// patience bounds what a Run does by itself once it is over.
const patience = 10 * time.Second

// lostStatus is the exit status of a run whose keeper was lost: as if killed.
const lostStatus = 128 + int(syscall.SIGKILL)

// Run is one run; a driver's Live embeds it.
type Run struct {
	ID     string
	Keeper *keeper.Keeper
	Group  *resource.Group

	runs  *Runs
	gauge *resource.Gauge
	ready chan struct{}
	told  chan struct{}
	over  chan struct{} // closed once exit is set
	exit  api.Exit

	// Stall is a machine's; of a zone it never begins.
	Stall Stall
}

// Take takes over a run and waits for its end.
func (r *Runs) Take(id string, k *keeper.Keeper, group *resource.Group) *Run {
	run := &Run{ID: id, Keeper: k, Group: group, runs: r, gauge: group.Gauge(), ready: make(chan struct{}), told: make(chan struct{}), over: make(chan struct{}), Stall: Stall{changed: make(chan struct{}, 1)}}
	go run.watch()
	return run
}

// Find finds a run that an earlier daemon started. Kinds: Missing.
func (r *Runs) Find(ctx context.Context, id string) (*keeper.Keeper, *resource.Group, error) {
	k, err := keeper.Open(ctx, r.Path(id, Socket), r.Path(id, Status))
	if err != nil {
		return nil, nil, err
	}
	group, err := r.Groups.Find(r.Group(id))
	return k, group, err
}

// watch waits for the end of the run, which outlives every request.
func (l *Run) watch() {
	defer l.gauge.Close()
	defer close(l.over)
	ctx := context.Background()
	record, err := l.Keeper.Watch(ctx, l.news)
	if err == nil {
		l.exit = *exitOf(&record)
		return
	}
	log := l.runs.log
	log.Debug("a keeper was lost", "id", l.ID, "err", err)
	// It may have written its record and gone before it was asked.
	if written, err := keeper.ReadExit(l.runs.Path(l.ID, Exit)); err == nil && written != nil {
		l.exit = *exitOf(written)
		return
	}
	l.exit = api.Exit{Status: lostStatus, Signal: int(syscall.SIGKILL), Crash: "the keeper was lost", At: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := l.Group.Kill(ctx); err != nil {
		log.Debug("what a lost keeper has left cannot be killed", "id", l.ID, "err", err)
	}
}

// news hears how the run stands.
func (l *Run) news(st wire.Status) {
	once(l.ready, st.Ready)
	once(l.told, st.Told)
	l.Stall.set(st.Stalled)
}

// once closes c, which nobody else does, when it is time.
func once(c chan struct{}, now bool) {
	select {
	case <-c:
	default:
		if now {
			close(c)
		}
	}
}

// exitOf says what a keeper's record says in the words of the wire.
func exitOf(r *wire.ExitRecord) *api.Exit {
	if r == nil {
		return nil
	}
	return &api.Exit{Status: r.Status, Signal: r.Signal, OOM: r.OOM, Crash: r.Crash, At: time.Unix(0, r.At)}
}

// PID implements stratum.Live.
func (l *Run) PID() int { return l.Keeper.PID }

// KeeperPID implements stratum.Live.
func (l *Run) KeeperPID() int { return l.Keeper.KeeperPID }

// GroupName implements stratum.Grouped.
func (l *Run) GroupName() string { return l.Group.ID() }

// Ready implements stratum.Live.
func (l *Run) Ready() <-chan struct{} { return l.ready }

// Over is closed once the run has ended.
func (l *Run) Over() <-chan struct{} { return l.over }

// Wait implements stratum.Live.
func (l *Run) Wait(ctx context.Context) (api.Exit, error) {
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

// Told is closed once a machine has told how its main program ended.
func (l *Run) Told() <-chan struct{} { return l.told }

// Signal implements stratum.Live.
func (l *Run) Signal(ctx context.Context, sig syscall.Signal) error {
	return fault.Wrap(l.Keeper.Signal(ctx, sig), "send signal %d", int(sig))
}

// Kill implements stratum.Live.
func (l *Run) Kill(ctx context.Context) error {
	return fault.Wrap(l.Group.Kill(ctx), "kill")
}

// Attach implements stratum.Live.
func (l *Run) Attach(ctx context.Context, conn *os.File) error { return l.Keeper.Attach(ctx, conn) }
