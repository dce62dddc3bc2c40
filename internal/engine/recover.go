package engine

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// recover makes one record and the host agree. Nothing else has the environment
// yet. d has something of a run of it, or is nil.
func (e *Engine) recover(ctx context.Context, en *entry, d stratum.Driver, rebooted bool) {
	rec := en.snapshot()
	if rec.Moving != nil {
		e.recoverMoving(ctx, en, rebooted)
		return
	}
	if d == nil {
		e.recoverStill(ctx, en, rec, rebooted, nil)
		return
	}
	live, err := d.Adopt(ctx, rec.ID)
	wanted := rec.Phase == environment.PhaseStarting || rec.Phase == environment.PhaseRunning || rec.Phase == environment.PhaseStopping
	if rec.Phase == environment.PhaseCreated && rec.Spec.AutoRemove {
		wanted = true // its starts are not written down, see package doc
	}
	if err == nil && !wanted {
		// A run for copying files, or one that the record does not know of.
		e.endUnwanted(ctx, d, rec.ID, live)
		live = nil
		err = fault.Missingf("nothing of it runs")
	}
	if err != nil {
		if !fault.Is(err, fault.Missing) {
			e.log.Warn("run not adopted", "id", rec.ID, "error", err)
		}
		if wanted && rec.Spec.AutoRemove { // something of a run is left, so it did run
			rec.Phase = environment.PhaseRunning
			en.do(func() { en.rec.Phase = rec.Phase })
		}
		exit := e.cleanRun(ctx, en, rec)
		e.recoverStill(ctx, en, rec, rebooted, exit)
		return
	}
	if err := e.dropSaved(rec.ID); err != nil {
		e.log.Warn("what was suspended is not removed", "id", rec.ID, "error", err)
	}
	e.adopt(en, rec, live)
}

// adopt takes over a run that an earlier daemon started.
func (e *Engine) adopt(en *entry, rec environment.Record, live stratum.Live) {
	e.mu.Lock()
	err := e.ports.take(rec.ID, rec.Spec.Ports, func(id string) string { return id })
	e.mu.Unlock()
	if err != nil {
		e.log.Error("ports of a running environment", "id", rec.ID, "error", err)
	}
	started := rec.Started
	if started.IsZero() || rec.Phase == environment.PhaseStarting {
		started = time.Now() // the daemon ended before it could write the moment down
	}
	r := &run{live: live, started: started, done: make(chan struct{}), keep: rec.Moving != nil}
	if rec.Resolved.Health != nil {
		r.health = starting
	}
	stopping := rec.Phase == environment.PhaseStopping
	finish := func() error { return e.stop(e.life, en, StopOptions{}, false) }
	if rec.Restarting {
		finish = func() error { return e.restart(e.life, en, StopOptions{}) }
	}
	en.do(func() {
		en.state, en.run, en.rec.Started = environment.Running, r, started
		if !stopping {
			en.rec.Phase = environment.PhaseRunning
		}
		if p, ok := live.(interface{ Paused() bool }); ok && p.Paused() {
			en.state = environment.Paused
		}
	})
	if rec.Phase == environment.PhaseStarting {
		e.saveSoon(en)
	}
	e.book.Restore(e.claimOf(rec))
	e.supervise(e.life, en, r)
	if stopping {
		e.goes(func() {
			if err := finish(); err != nil && e.life.Err() == nil {
				e.log.Warn("environment not stopped, or not started again", "id", rec.ID, "error", err)
			}
		})
	}
}

// endUnwanted ends a run that nobody wants.
func (e *Engine) endUnwanted(ctx context.Context, d stratum.Driver, id string, live stratum.Live) {
	ctx, cancel := context.WithTimeout(ctx, afterKill)
	defer cancel()
	if err := live.Kill(ctx); err != nil {
		e.log.Warn("unwanted run not killed", "id", id, "error", err)
	}
	_, _ = live.Wait(ctx) // tolerated: Clean says what is wrong
	if _, err := d.Clean(ctx, id); err != nil {
		e.log.Warn("unwanted run not cleaned", "id", id, "error", err)
	}
}

// recoverStill is for what does not run. exit is what its keeper wrote down last.
func (e *Engine) recoverStill(ctx context.Context, en *entry, rec environment.Record, rebooted bool, exit *api.Exit) {
	if e.recoverSaved(en, rec) {
		return
	}
	ran := rec.Phase == environment.PhaseRunning || rec.Phase == environment.PhaseStarting || rec.Phase == environment.PhaseStopping
	switch {
	case rec.Spec.AutoRemove && (rebooted || !rec.Restarting && rec.Phase != environment.PhaseCreated && rec.Phase != environment.PhaseCopying):
		_ = en.move(environment.Remove, nil) // nobody else has it: from Made and Stopped it is legal
		if err := e.vanish(ctx, en, false); err != nil {
			e.log.Error("environment not removed", "id", rec.ID, "error", err)
		}
		return
	case !ran:
		if rec.Restarting || rebooted && rec.Phase == environment.PhaseStopped && environment.AfterReboot(rec.Spec.Restart, rec.UserStopped) {
			en.do(func() { en.rec.Phase = environment.PhaseWaiting })
		}
		return
	}
	if exit == nil {
		exit = &api.Exit{Status: statusLost, Crash: lost(rec.Phase, rebooted), At: time.Now()}
	}
	again := rec.Restarting || rec.Phase != environment.PhaseStopping && rec.RunsAgain(*exit)
	en.do(func() {
		en.rec.Exit, en.rec.Phase = exit, environment.PhaseStopped
		if rec.Phase == environment.PhaseStarting {
			en.rec.LastFailure = exit.Crash
		}
		if again {
			en.rec.Phase = environment.PhaseWaiting
		}
		en.ends++
	})
	e.saved(en)
}

func lost(phase environment.Phase, rebooted bool) string {
	switch {
	case rebooted:
		return "the host was rebooted"
	case phase == environment.PhaseStarting:
		return "the daemon ended while it was being started"
	}
	return "its keeper was lost"
}

// cleanUnknown ends and cleans runs that have no record.
func (e *Engine) cleanUnknown(ctx context.Context, runs map[string]stratum.Driver) {
	for id, d := range runs {
		if live, err := d.Adopt(ctx, id); err == nil {
			e.endUnwanted(ctx, d, id, live)
		} else if _, err := d.Clean(ctx, id); err != nil {
			e.log.Warn("run without a record not cleaned", "id", id, "error", err)
		}
		if err := e.o.Network.Disconnect(ctx, id); err != nil {
			e.log.Debug("run without a record not disconnected", "id", id, "error", err)
		}
	}
}

// resume goes on with what the restart policy wants, once the host is in order.
func (e *Engine) resume(en *entry) {
	en.mu.Lock()
	phase, moving := en.rec.Phase, en.rec.Moving != nil
	en.mu.Unlock()
	if moving {
		e.resumeMove(en)
		return
	}
	if phase != environment.PhaseWaiting {
		return
	}
	waiting := make(chan struct{})
	err := en.move(environment.Again, func() { en.waiting = waiting })
	if err != nil {
		e.log.Error("state of an environment to start again", "id", en.id(), "error", err)
		return
	}
	_ = e.claim(en) // of what has no room the start says so
	e.goes(func() { e.startLater(en, waiting, 0) })
}
