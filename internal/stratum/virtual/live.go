package virtual

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// Live is one run.
type Live struct {
	*held.Run
	d     *Driver
	notes Notes
	agent agent

	mu     sync.Mutex
	limits api.Resources // as they are now
	killed atomic.Bool
	inside atomic.Bool // strata's agent was installed into a system that has none by itself
	paused bool
	left   left // on its disk, when that was asked last
}

// Drop implements stratum.Dropper.
func (l *Live) Drop(ctx context.Context) error {
	return fault.Wrap(l.Keeper.Drop(ctx), "drop what it would still write")
}

// Adopt is stratum.Driver's.
func (d *Driver) Adopt(ctx context.Context, id string) (*Live, error) {
	k, group, err := d.Held.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	var n Notes
	if err := d.Held.Notes(id, &n); err != nil {
		return nil, err
	}
	l := d.live(d.Held.Take(id, k, group), n, nil)
	l.plugged(ctx)
	l.paused = l.stopped(ctx)
	if err := l.counted(ctx); err != nil { // what was noted is as good
		d.Log.Debug("a machine does not tell its processors", "id", id, "err", err)
	}
	return l, nil
}

func (d *Driver) live(run *held.Run, n Notes, first *session) *Live {
	l := &Live{Run: run, d: d, notes: n, agent: agent{path: d.Held.Path(run.ID, ControlSocket), first: first}}
	l.limits = api.Resources{Memory: n.Limits.Memory, PIDs: n.Limits.PIDs, CPUs: n.Limits.CPUs}
	go func() {
		select {
		case <-run.Over():
		case <-d.Life.Done(): // a driver after this one may ask it
		}
		l.agent.close()
	}()
	return l
}

// agent is the session with the agent inside, made anew where it is broken: the
// agent of a system starts over as another process, and a daemon before this one
// had a session of its own.
type agent struct {
	path   string
	mu     sync.Mutex
	first  *session // not looked at yet
	client *control.Client
	over   bool
}

// session is that of who told an agent what to run.
type session struct {
	answered <-chan *control.Client // gives once, as soon as the agent has answered, the client, or nil
	giveUp   func()                 // waits for no answer
}

func (a *agent) session(ctx context.Context) (*control.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return nil, fault.Conflictf("the system has ended")
	}
	if a.first != nil {
		select {
		case a.client = <-a.first.answered:
			a.first = nil
		case <-ctx.Done():
			return nil, fault.Busyf("the agent has not said yet that it began: %w", ctx.Err())
		}
	}
	if a.client == nil {
		c, err := control.Dial(ctx, a.path)
		if err != nil {
			return nil, err
		}
		a.client = c
	}
	return a.client, nil
}

func (a *agent) drop(c *control.Client) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == c {
		a.client = nil
	}
	c.Close()
}

func (a *agent) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if first := a.first; first != nil {
		a.first = nil
		go func() { // it ends with the system at the latest
			if c := <-first.answered; c != nil {
				c.Close()
			}
		}()
	}
	a.leave()
}

// leave ends the session. The caller holds the lock.
func (a *agent) leave() {
	if a.client != nil {
		a.client.Close()
		a.client = nil
	}
}

// ask does f with a session, and once more with a new one where the first turns
// out to be broken. What is asked of an agent may be asked twice.
func (l *Live) ask(ctx context.Context, f func(*control.Client) error) error {
	return l.askFor(ctx, control.Patience, f)
}

// askFor is ask for what may take longer than an answer.
func (l *Live) askFor(ctx context.Context, patience time.Duration, f func(*control.Client) error) error {
	l.mu.Lock()
	paused := l.paused
	l.mu.Unlock()
	if paused {
		return errPaused()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for attempt := 0; ; attempt++ {
		c, err := l.agent.session(ctx)
		if err != nil {
			return err
		}
		err = f(c)
		if err == nil || !control.Broken(err) {
			return err
		}
		l.agent.drop(c)
		if attempt > 0 {
			return err
		}
	}
}

func errPaused() error {
	return fault.Conflictf("the system is paused, so its agent cannot answer").Help("resume it first")
}

// Exec implements stratum.Live. The streams port carries it, so the keeper does it.
func (l *Live) Exec(ctx context.Context, p stratum.Process, conn *os.File) error {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fault.Invalidf("there is no command to run").At("command")
	}
	var filter []byte // a system's programs have none, and of a foreign one's kernel nothing is known
	if !l.notes.System {
		var err error
		if filter, err = l.d.filter(l.notes.Boot.Release); err != nil {
			return err
		}
		filter = l.notes.further(filter)
	}
	return l.Keeper.Exec(ctx, wire.Exec{Process: *process(p, l.notes, filter)}, conn)
}

// Stats implements stratum.Live: memory and processes are those that the
// environment's programs use inside; processor time is what the host pays, QEMU's
// included. A guest that does not answer still has the latter.
func (l *Live) Stats(ctx context.Context) (api.Stats, error) {
	host, err := l.Group.Stats()
	if err != nil {
		return api.Stats{}, err
	}
	l.mu.Lock()
	s := api.Stats{ID: l.ID, Time: time.Now(), CPUTime: host.CPU.Usage, MemoryLimit: int64(l.limits.Memory), PIDsLimit: l.limits.PIDs}
	l.mu.Unlock()
	if l.Alone() && !l.inside.Load() { // what the host sees is all there is to see
		s.Memory, s.MemoryPeak, s.MemoryLimit = host.Memory.Current, host.Memory.Peak, 0
		return s, nil
	}
	err = l.ask(ctx, func(c *control.Client) error {
		in, err := c.Stats(ctx)
		s.Memory, s.MemoryPeak, s.PIDs, s.OOMKills = in.Memory, in.MemoryPeak, in.PIDs, in.OOMKills
		return err
	})
	if err != nil {
		if fault.KindOf(err) == fault.Conflict { // paused
			s.Memory, s.MemoryPeak = host.Memory.Current, host.Memory.Peak
			return s, nil
		}
		return s, fault.Wrap(err, "ask the agent what is used")
	}
	return s, nil
}

// KernelLog implements stratum.KernelLogger.
func (l *Live) KernelLog(ctx context.Context) (text []byte, err error) {
	err = l.ask(ctx, func(c *control.Client) error {
		text, err = c.KernelLog(ctx)
		return err
	})
	return text, err
}

// Console implements stratum.Consoler.
func (l *Live) Console(ctx context.Context, conn *os.File) error { return l.Keeper.Console(ctx, conn) }

// Boot implements stratum.Booter.
func (l *Live) Boot() api.Boot { return l.noted().Boot }

// killPatience is how long a guest may take to write out what it has, before it
// is ended.
const killPatience = 2 * time.Second

// Kill implements stratum.Live. What programs of a zone have written is the host's,
// whatever becomes of them; here it is in the guest's memory, so its disk is made
// whole first, which also holds up who would write more.
func (l *Live) Kill(ctx context.Context) error {
	if !l.Paused() {
		freeze, cancel := context.WithTimeout(ctx, killPatience)
		if err := l.ask(freeze, func(c *control.Client) error { return c.Freeze(freeze) }); err != nil {
			l.d.Log.Debug("a system is ended that did not write out", "id", l.ID, "err", err)
		}
		cancel()
	}
	return l.Cut(ctx)
}

// Cut ends the run as the loss of power would: nothing is written out first.
func (l *Live) Cut(ctx context.Context) error {
	l.killed.Store(true)
	return l.Run.Kill(ctx)
}

// Alone tells that no agent is inside.
func (l *Live) Alone() bool { return l.notes.Alone }

// Wait implements stratum.Live: that it was killed as asked is no crash.
func (l *Live) Wait(ctx context.Context) (api.Exit, error) {
	exit, err := l.Run.Wait(ctx)
	if l.killed.Load() && exit.Signal == int(syscall.SIGKILL) {
		exit.Crash = ""
	}
	return exit, err
}

// endPatience bounds the wait for the keeper's word that a machine has ended which is gone.
const endPatience = 5 * time.Second

// Monitor does f in one session of QEMU's monitor. Kinds: Conflict where the machine has ended.
func (l *Live) Monitor(ctx context.Context, f func(*qemu.QMP) error) error {
	q, err := qemu.Dial(ctx, l.d.Held.Path(l.ID, MonitorSocket))
	if err == nil {
		defer q.Close()
		err = f(q)
	}
	if !qemu.Gone(err) {
		return err
	}
	return l.orEnded(ctx, err)
}

// orEnded is err, or that the system has ended, which is why it was not to be reached.
func (l *Live) orEnded(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	select {
	case <-l.Over():
		return fault.Conflictf("the system has ended")
	case <-ctx.Done():
		return err
	}
}

// Execute does a command of QEMU's monitor, in a session of its own.
func (l *Live) Execute(ctx context.Context, command string, args, result any, files ...*os.File) error {
	return l.Monitor(ctx, func(q *qemu.QMP) error { return q.Execute(ctx, command, args, result, files...) })
}

// Pause implements stratum.Pauser.
func (l *Live) Pause(ctx context.Context) error {
	if err := l.hold(ctx); err != nil {
		return err
	}
	l.setPaused(true)
	return nil
}

// hold stops the processors. A machine that stands still for want of room on the host does
// not get another state by that, so that the keeper would have it go on: at once, where it
// has asked already. Kinds: Busy for such a one.
func (l *Live) hold(ctx context.Context) error {
	err := l.Monitor(ctx, func(q *qemu.QMP) error { return q.Execute(ctx, "stop", nil, nil) })
	if err != nil {
		return fault.Wrap(err, "stop the machine's processors")
	}
	switch l.status(ctx) {
	case "io-error", "running":
		return fault.Busyf("it stands still, as the host has no room for what it writes to its disk").Help("make room first: strata show says where; it goes on by itself then, and can be paused or suspended")
	}
	return nil
}

// Resume implements stratum.Pauser. The guest's clock stood still, and is set where
// somebody inside does.
func (l *Live) Resume(ctx context.Context) error {
	err := l.Monitor(ctx, func(q *qemu.QMP) error { return q.Execute(ctx, "cont", nil, nil) })
	if err != nil {
		return fault.Wrap(err, "go on with the machine's processors")
	}
	l.setPaused(false)
	if l.Alone() && !l.inside.Load() {
		return nil // a system that was not told reads the board's clock
	}
	if err := l.ask(ctx, func(c *control.Client) error { return c.SetClock(ctx, time.Now()) }); err != nil {
		l.d.Log.Debug("a clock inside is not set", "id", l.ID, "err", err) // it goes on all the same
	}
	return nil
}

// Paused tells whether it is held still, for a daemon that adopts it.
func (l *Live) Paused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

// stopped asks QEMU whether the processors were stopped.
func (l *Live) stopped(ctx context.Context) bool {
	status := l.status(ctx)
	return status == "paused" || status == "postmigrate"
}

// Stalled implements stratum.Staller.
func (l *Live) Stalled() bool { return l.Stall.Now() }

// Stalls implements stratum.Staller.
func (l *Live) Stalls() <-chan struct{} { return l.Stall.Changed() }

// status is QEMU's word for what the machine does, "" where it does not answer. Source:
// QEMU, qapi/run-state.json, RunState.
func (l *Live) status(ctx context.Context) string {
	var status struct {
		Status string `json:"status"`
	}
	if l.Monitor(ctx, func(q *qemu.QMP) error { return q.Execute(ctx, "query-status", nil, &status) }) != nil {
		return ""
	}
	return status.Status
}

var (
	_ stratum.Live         = (*Live)(nil)
	_ stratum.Pauser       = (*Live)(nil)
	_ stratum.Suspender    = (*Live)(nil)
	_ stratum.Limiter      = (*Live)(nil)
	_ stratum.Consoler     = (*Live)(nil)
	_ stratum.KernelLogger = (*Live)(nil)
	_ stratum.Booter       = (*Live)(nil)
	_ stratum.Staller      = (*Live)(nil)
	_ stratum.Grouped      = (*Live)(nil)
)
