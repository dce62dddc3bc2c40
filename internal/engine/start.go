package engine

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Exit statuses of a start that failed. Source: docker run(1), "EXIT STATUS".
const (
	statusFailed        = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// Start starts an environment and returns once its main program runs. first,
// which may be nil, takes part in the main program's streams from the first byte
// on; the caller closes its own copy of the connection. A start waits for a transition that is
// under way. Kinds: Missing, Conflict (it runs already, a port is taken), Busy, Full
// (it would break a guarantee), Unable; a fault at field "command" means that the main program is missing
// (Missing) or cannot be executed (Unable). An environment that could not be
// started stays, unless it is to be removed automatically.
func (e *Engine) Start(ctx context.Context, ref string, first *Session) error {
	if err := e.open(); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	return e.start(ctx, en, first, false)
}

// start is called with the operation lock held. policy tells that it is the
// restart policy that wants it.
func (e *Engine) start(ctx context.Context, en *entry, first *Session, policy bool) error {
	en.mu.Lock()
	en.goingOn = en.state == environment.Suspended
	en.mu.Unlock()
	err := en.move(environment.Start, func() {
		if en.waiting != nil {
			close(en.waiting)
			en.waiting = nil
		}
		en.rec.Phase, en.rec.UserStopped, en.rec.Restarting, en.rec.LastFailure = environment.PhaseStarting, false, false, ""
		en.rec.Written = en.rec.Spec.Foreign != nil
		en.rec.Restarts++
		if !policy {
			en.rec.Restarts, en.delay = 0, 0
		}
	})
	if err != nil {
		return err
	}
	live, err := e.launchUntilStopped(ctx, en, first)
	if err != nil {
		e.failed(ctx, en, err, policy)
		e.release(en)
		return fault.Wrap(err, "start %s", en.name())
	}
	e.begin(ctx, en, live, time.Now())
	e.tell(ctx, en, "start")
	if en.snapshot().Spec.AutoRemove {
		return nil // its record says enough, see package doc
	}
	e.saveSoon(en)
	return nil
}

// launchUntilStopped is launch for a start that a stop may end. Kinds: also Conflict where one has.
func (e *Engine) launchUntilStopped(ctx context.Context, en *entry, first *Session) (stratum.Live, error) {
	starting, done := en.untilGivenUp(ctx)
	defer done()
	live, err := e.launch(starting, en, first)
	if err != nil && starting.Err() != nil && ctx.Err() == nil {
		err = fault.Conflictf("it was stopped before its program ran")
	}
	return live, err
}

// startPatience bounds a start, whatever the caller's context says. It is the last
// resort: drivers know how long nothing may go on at theirs, and try another way then.
const startPatience = 12 * time.Minute

// launch makes the run. If it fails nothing of it is left.
func (e *Engine) launch(ctx context.Context, en *entry, first *Session) (live stratum.Live, err error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	d, err := e.driver(en)
	if err != nil {
		return nil, err
	}
	if err := e.claim(en); err != nil {
		return nil, err
	}
	if err := e.takePorts(en); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && en.snapshot().Moving == nil {
			e.givePorts(en)
		}
	}()
	if err := e.noteStart(en); err != nil {
		return nil, err
	}
	rec := en.snapshot()
	for _, p := range rec.Spec.Ports {
		if err := e.o.Network.CheckPort(ctx, p); err != nil {
			return nil, err
		}
	}
	p, err := e.plan(ctx, rec, false)
	if err != nil {
		return nil, err
	}
	if err := e.fixImages(ctx, en, d, &p); err != nil {
		return nil, err
	}
	p.Victim = stratum.Victim(rec.Spec.Resources.MemoryGuarantee, e.o.Host.Memory)
	if en.goingOn {
		p.Saved = e.savedPath(rec.ID)
	}
	if rec.Spec.UndoDisk {
		if err := e.undoDisk(ctx, en, &p); err != nil {
			return nil, err
		}
	}
	o := stratum.StartOptions{Link: e.link(rec), Links: e.cardLinks(rec)}
	if first != nil {
		o.Attach, p.Main.Rows, p.Main.Cols = first.Conn, first.Rows, first.Cols
	}
	live, err = d.Start(ctx, p, o)
	if err != nil {
		e.disconnect(ctx, rec)
	}
	return live, err
}

func (e *Engine) link(rec environment.Record) link {
	return link{network: e.o.Network, id: rec.ID, address: rec.Address, ports: rec.Spec.Ports, rate: rateOf(rec.Spec.Resources), leased: rec.Spec.Foreign != nil}
}

// disconnect takes the environment off its network; it is only logged where that
// fails, since the next start or the next daemon does it again.
func (e *Engine) disconnect(ctx context.Context, rec environment.Record) {
	ctx, cancel := tidy(ctx)
	defer cancel()
	for _, l := range rec.Links() {
		if err := e.o.Network.Disconnect(ctx, l.Key); err != nil {
			e.log.Warn("environment not disconnected", "id", rec.ID, "error", err)
		}
	}
}

// failed notes that a start failed, and what comes of it.
func (e *Engine) failed(ctx context.Context, en *entry, err error, policy bool) {
	exit := failedExit(err)
	e.tell(ctx, en, "fail", "error", err.Error(), "status", itoa(exit.Status))
	en.mu.Lock()
	keep := en.again > 0
	en.mu.Unlock()
	if en.snapshot().Spec.AutoRemove && !keep {
		_ = en.move(environment.Failed, func() { en.rec.LastFailure, en.rec.Exit = err.Error(), &exit })
		if gone := e.remove(ctx, en); gone != nil {
			e.log.Error("environment not removed", "id", en.id(), "error", gone)
		}
		return
	}
	if e.keepSaved(en, err) {
		return
	}
	again := false
	en.mu.Lock()
	if policy {
		again = environment.WantsRestart(en.rec.Spec.Restart, exit, en.rec.Restarts) && !e.resetting.Load()
	}
	en.mu.Unlock()
	note := func() { en.rec.LastFailure, en.rec.Exit = err.Error(), &exit }
	e.settle(en, again, environment.Failed, 0, note)
	e.saved(en)
}

// failedExit is what a failed start counts as.
func failedExit(err error) api.Exit {
	exit := api.Exit{Status: statusFailed, At: time.Now()}
	if all := fault.All(err); len(all) == 1 && all[0].Field == "command" {
		switch all[0].Kind {
		case fault.Missing:
			exit.Status = statusNotFound
		case fault.Unable:
			exit.Status = statusNotExecutable
		}
	}
	return exit
}

// begin notes that a run is live, and supervises it.
func (e *Engine) begin(ctx context.Context, en *entry, live stratum.Live, started time.Time) {
	r := &run{live: live, started: started, done: make(chan struct{})}
	rec := en.snapshot()
	if rec.Resolved.Health != nil {
		r.health = starting
	}
	// Only Starting has this move, and whoever made it Starting is who calls.
	if err := en.move(environment.Started, func() {
		en.run, en.rec.Started, en.rec.Phase = r, started, environment.PhaseRunning
	}); err != nil {
		e.log.Error("state of a started environment", "id", rec.ID, "error", err)
	}
	e.share(rec.ID)
	e.supervise(ctx, en, r)
}

// supervise starts what watches a run.
func (e *Engine) supervise(ctx context.Context, en *entry, r *run) {
	e.goes(func() { e.watch(en, r) })
	if rec := en.snapshot(); rec.Stratum != stratum.Zone {
		since := r.started
		if rec.OOM != nil && rec.OOM.At.After(since) { // it was adopted
			since = rec.OOM.At
		}
		e.goes(func() { e.watchConsole(en, r, since) })
	}
	if resolved := en.snapshot().Resolved; resolved.Health != nil || resolved.Kind != environment.App {
		e.goes(func() { e.watchReady(en, r, resolved.Health) })
	}
}

// settle ends a run (or a start) that is over: with the restart policy's wait
// where again is set, else with event.
func (e *Engine) settle(en *entry, again bool, event environment.Event, ran time.Duration, note func()) {
	var waiting chan struct{}
	var delay time.Duration
	if again {
		event = environment.Again
		waiting = make(chan struct{})
	}
	err := en.move(event, func() {
		note()
		en.run = nil
		en.rec.Phase = environment.PhaseStopped
		if again {
			en.delay = environment.NextDelay(en.delay, ran)
			delay = en.delay
			en.waiting, en.rec.Phase = waiting, environment.PhaseWaiting
		}
	})
	if err != nil {
		e.log.Error("state of an environment that ended", "id", en.id(), "error", err)
		return
	}
	if again {
		e.goes(func() { e.startLater(en, waiting, delay) })
	}
}

// startLater starts an environment again after a delay, unless the wait is ended.
func (e *Engine) startLater(en *entry, waiting <-chan struct{}, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-waiting:
		return
	case <-e.life.Done():
		return
	case <-timer.C:
	}
	if en.lock(e.life) != nil {
		return
	}
	defer en.unlock()
	select {
	case <-waiting: // somebody else started, stopped or removed it
		return
	default:
	}
	stays := func() {
		_ = en.move(environment.Stop, func() { en.waiting, en.rec.Phase = nil, environment.PhaseStopped })
		e.release(en)
		e.saved(en)
	}
	rec := en.snapshot()
	asked := rec.Restarting || rec.Exit != nil && environment.Rebooted(rec.Resolved.Kind, *rec.Exit)
	if p := rec.Spec.Restart.Policy; !asked && (p == "" || p == environment.RestartNo) { // changed meanwhile
		stays()
		return
	}
	due, done := en.untilGivenUp(e.life)
	defer done()
	select {
	case e.policy <- struct{}{}:
		defer func() { <-e.policy }()
	case <-due.Done():
		if e.life.Err() == nil {
			stays()
		}
		return
	}
	if err := e.start(e.life, en, nil, !rec.Restarting); err != nil && e.life.Err() == nil {
		e.log.Info("environment not started again", "id", en.id(), "error", err)
	}
}
