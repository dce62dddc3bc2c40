package engine

import (
	"context"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/stratum"
)

// statusLost is the exit status of a run whose keeper was lost: as if killed.
const statusLost = 128 + int(syscall.SIGKILL)

// watch waits for the end of a run. It returns early when the engine closes: the
// run goes on, and the next engine watches it.
func (e *Engine) watch(en *entry, r *run) {
	if d, ok := r.live.(stratum.Dropper); ok && en.snapshot().Spec.AutoRemove {
		e.goes(func() { e.dropUnwanted(en, r, d) })
	}
	if s, ok := r.live.(stratum.Staller); ok {
		e.goes(func() { e.tellStalls(en, r, s) })
	}
	exit, err := r.live.Wait(e.life)
	if e.life.Err() != nil && err != nil {
		return
	}
	if err != nil {
		exit = api.Exit{Status: statusLost, Crash: "its keeper was lost: " + err.Error()}
	}
	e.ended(e.life, en, r, exit)
}

// dropUnwanted ends a run once its main program has ended, where its disk goes with it.
func (e *Engine) dropUnwanted(en *entry, r *run, d stratum.Dropper) {
	select {
	case <-d.Told():
	case <-r.done:
		return
	case <-e.life.Done():
		return
	}
	en.do(func() { r.dropped = !r.keep && !r.suspended && en.rec.Moving == nil })
	if !r.dropped { // nobody else sets it
		return
	}
	ctx, cancel := tidy(e.life)
	defer cancel()
	if err := d.Drop(ctx); err != nil {
		e.log.Debug("a run that is over ends by itself", "id", en.id(), "error", err)
	}
}

// ended does all that the end of a run calls for. The environment shows as
// stopped only when what the run left is cleaned, so that a start can follow.
func (e *Engine) ended(ctx context.Context, en *entry, r *run, exit api.Exit) {
	defer close(r.done)
	if exit.At.IsZero() {
		exit.At = time.Now()
	}
	if exit.OOM {
		e.awaitKill(ctx, en)
	}
	en.mu.Lock()
	rec, remove, suspended := en.rec, en.rec.Spec.AutoRemove && (!r.keep || r.dropped), r.suspended
	en.mu.Unlock()
	if suspended {
		e.endedSuspended(ctx, en, rec)
		return
	}
	if remove && exit.Crash == "" {
		e.endedForGood(ctx, en, rec, exit)
		return
	}
	if kept := e.cleanRun(ctx, en, rec); kept != nil && exit.Crash != "" {
		exit = *kept // it was lost only after it had written down how the run ended
	}
	if remove {
		e.endedForGood(ctx, en, rec, exit)
		return
	}
	if rec.Moving == nil { // else they are wanted again at once
		e.givePorts(en)
	}
	en.mu.Lock()
	final := r.final || r.keep || en.state == environment.Stopping || e.resetting.Load()
	again := !final && en.rec.RunsAgain(exit)
	en.mu.Unlock()
	e.settle(en, again, environment.Ended, time.Since(r.started), func() {
		en.rec.Exit = &exit
		if en.rec.Moving == nil {
			en.ends++
		}
	})
	e.release(en)
	e.saved(en)
	e.tellEnd(ctx, en, exit, again)
}

// tellEnd publishes what is to be said of the end of a run.
func (e *Engine) tellEnd(ctx context.Context, en *entry, exit api.Exit, again bool) {
	en.mu.Lock()
	known := en.knowsKill()
	en.mu.Unlock()
	if exit.OOM && !known {
		e.tell(ctx, en, "oom")
	}
	detail := []string{"status", itoa(exit.Status)}
	if exit.Signal != 0 {
		detail = append(detail, "signal", itoa(exit.Signal))
	}
	if exit.Crash != "" {
		detail = append(detail, "crash", exit.Crash)
	}
	if again {
		detail = append(detail, "restart", "true")
	}
	e.tell(ctx, en, "die", detail...)
}

// endedForGood is for what is removed when it ends: its record goes first, so
// that its name is free at once; cleaning follows in the background.
func (e *Engine) endedForGood(ctx context.Context, en *entry, rec environment.Record, exit api.Exit) {
	err := en.move(environment.Ended, func() {
		en.run, en.rec.Exit, en.rec.Phase = nil, &exit, environment.PhaseStopped
		en.ends++
		en.state, _ = en.state.Next(environment.Remove) // at once: nobody shall start it in between
	})
	if err != nil {
		e.log.Error("state of an environment that ended", "id", rec.ID, "error", err)
		return
	}
	e.release(en)
	e.tellEnd(ctx, en, exit, false)
	if err := e.vanish(ctx, en, true); err != nil {
		e.log.Error("environment not removed", "id", rec.ID, "error", err)
	}
}

// cleanRun removes what a run left on the host, and returns how it ended where
// the keeper could still say so.
func (e *Engine) cleanRun(ctx context.Context, en *entry, rec environment.Record) *api.Exit {
	e.disconnect(ctx, rec)
	d, err := e.driver(en)
	if err != nil {
		return nil // nobody could have started it
	}
	ctx, cancel := tidy(ctx)
	defer cancel()
	exit, err := d.Clean(ctx, rec.ID)
	if err != nil {
		e.log.Warn("run not cleaned", "id", rec.ID, "error", err)
	}
	if rec.Spec.UndoDisk && !e.hasSaved(rec.ID) {
		if err := e.o.Pool.Remove(e.undoPath(rec)); err != nil {
			e.log.Warn("changes of a disk not removed", "id", rec.ID, "error", err)
		}
	}
	return exit
}

// watchReady says when a run is up, and then checks its health.
func (e *Engine) watchReady(en *entry, r *run, h *api.Health) {
	ctx, cancel := context.WithCancel(e.life)
	defer cancel()
	go func() {
		select {
		case <-r.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-e.comesUp(ctx, en, r):
	case <-ctx.Done():
		return
	}
	en.do(func() { r.up = true })
	e.tell(ctx, en, "ready")
	if h != nil {
		e.checkHealth(ctx, en, r, h)
	}
}
