package engine

import (
	"context"
	"errors"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// A move of what runs is written down before anything is stopped (Record.Moving), and
// that goes only with the record that says where the environment runs. A daemon that finds
// it looks for a run: one at the new stratum, or one at the old after going back, is where
// the move ends; with one at the old, or none, the move goes on from where it was.

// backTries is how often an environment is started where it was, after it could not be
// started elsewhere, and backPause what lies between: what is in the way may pass.
const (
	backTries = 3
	backPause = time.Second
)

// switchOver brings a move that is written down to its end. The operation lock is held.
// Where the engine ends first it returns early: the next one goes on.
func (e *Engine) switchOver(ctx context.Context, en *entry) error {
	m := *en.snapshot().Moving
	began := time.Now()
	if err := e.endRun(ctx, en); err != nil {
		if e.life.Err() != nil {
			return err
		}
		en.do(func() { en.rec.Moved(m.Move, err.Error()) })
		e.saved(en)
		return fault.Wrap(err, "stop it")
	}
	m.Move.Stop = since(began)
	var failed error
	if !m.Back {
		starting := time.Now()
		live, err := e.startAt(ctx, en, m.To)
		if err == nil {
			m.Move.Start, m.Move.Downtime = since(starting), since(began)
			e.arrive(ctx, en, live, m.Move)
			return nil
		}
		if e.life.Err() != nil {
			return err
		}
		failed, m.Back, m.Move.Failed = err, true, err.Error()
		en.do(func() { en.rec.Moving = &m })
	}
	return e.goBack(ctx, en, m, failed)
}

// goBack starts an environment where it was. failed is why it is not elsewhere; nil: an
// earlier daemon knew.
func (e *Engine) goBack(ctx context.Context, en *entry, m environment.Moving, failed error) error {
	if failed == nil {
		failed = fault.Unablef("%s", m.Move.Failed)
	}
	var err error
	for try := range backTries {
		if try > 0 {
			select {
			case <-time.After(backPause):
			case <-e.life.Done():
			}
		}
		var live stratum.Live
		if live, err = e.startAt(ctx, en, m.From); err == nil {
			e.arrive(ctx, en, live, m.Move)
			return fault.Wrap(failed, "it is back at stratum %s and runs: it could not be started at %s", m.From.Stratum, m.To.Stratum)
		}
		if e.life.Err() != nil {
			return err
		}
	}
	exit := failedExit(err)
	en.do(func() {
		en.rec.Moved(m.Move, m.Move.Failed)
		en.rec.LastFailure, en.rec.Exit = err.Error(), &exit
		en.ends++ // that of the run which the move has left did not count
	})
	e.givePorts(en)
	e.saved(en)
	e.tell(ctx, en, "fail", "error", err.Error(), "status", itoa(exit.Status))
	return errors.Join(failed, fault.Wrap(err, "start it at stratum %s again", m.From.Stratum))
}

// endRun ends the run that is to be left, if it has not ended by itself.
func (e *Engine) endRun(ctx context.Context, en *entry) error {
	var r *run
	var paused, waited bool
	en.do(func() {
		if en.waiting != nil { // its policy was about to start it
			close(en.waiting)
			en.waiting, waited = nil, true
		}
		r, paused = en.run, en.state == environment.Paused
		if r != nil {
			r.keep = true
		}
	})
	if waited {
		return en.move(environment.Stop, func() { en.rec.Phase = environment.PhaseStopped })
	}
	if r == nil {
		return nil
	}
	rec := en.snapshot()
	e.progress(ctx)(api.Progress{Step: "stop", Item: rec.Name + " at stratum " + rec.Stratum})
	if err := en.move(environment.Stop, func() { en.rec.Phase = environment.PhaseStopping }); err != nil {
		select { // it ends by itself, or somebody's stop is under way
		case <-r.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(rec.Resolved.StopGrace) + afterKill):
			return err
		}
	}
	return bringDown(ctx, r, rec.Resolved.StopSignal, time.Duration(rec.Resolved.StopGrace), paused)
}

// startAt starts an environment at a stratum; where it fails, it has stopped there.
func (e *Engine) startAt(ctx context.Context, en *entry, at environment.Placement) (stratum.Live, error) {
	err := en.move(environment.Start, func() {
		en.rec.Place(at)
		en.rec.Phase, en.rec.UserStopped, en.rec.Restarting, en.rec.LastFailure = environment.PhaseStarting, false, false, ""
		en.rec.Restarts, en.delay, en.goingOn = 0, 0, false
	})
	if err != nil {
		return nil, err
	}
	e.progress(ctx)(api.Progress{Step: "start", Item: en.name() + " at stratum " + at.Stratum})
	live, err := e.launch(ctx, en, nil)
	if err == nil {
		return live, nil
	}
	if gone := en.move(environment.Failed, func() { en.rec.Phase = environment.PhaseStopped }); gone != nil {
		e.log.Error("state of an environment that was not started", "id", en.id(), "error", gone)
	}
	return nil, err
}

// arrive notes where an environment runs now.
func (e *Engine) arrive(ctx context.Context, en *entry, live stratum.Live, m api.Move) {
	en.do(func() { en.rec.Moved(m, m.Failed) })
	e.begin(ctx, en, live, time.Now())
	e.saved(en) // if it cannot be, the next daemon finds it all the same
	e.tell(ctx, en, "start")
	e.tellMove(ctx, en, m)
}

// noteStart writes down that a start begins, where a start is written down.
func (e *Engine) noteStart(en *entry) error {
	rec := en.snapshot()
	if rec.Moving == nil && rec.Spec.AutoRemove && rec.Started.IsZero() {
		return nil // see package doc
	}
	err := e.save(en)
	if err != nil && rec.Moving != nil && rec.Moving.Back {
		e.log.Error("record not written", "id", rec.ID, "error", err)
		return nil // better back without a record of it than not at all
	}
	return err
}

// recoverMoving is recover for a record that was between two strata.
func (e *Engine) recoverMoving(ctx context.Context, en *entry, rebooted bool) {
	rec := en.snapshot()
	m := *rec.Moving
	m.Move.Settled = true
	live, at := e.findRun(ctx, rec)
	rec.Moving, rec.Phase = &m, environment.PhaseRunning
	switch {
	case live == nil && rebooted:
		rec.Place(m.From)
		rec.Moved(m.Move, first(m.Move.Failed, "the host was rebooted"))
		en.do(func() { en.rec = rec })
		e.recoverStill(ctx, en, rec, rebooted, nil)
		return
	case live == nil: // resume goes on
		en.do(func() { en.rec = rec })
		return
	case at == m.To.Stratum:
		rec.Place(m.To)
		rec.Moved(m.Move, "")
	case m.Back:
		rec.Place(m.From)
		rec.Moved(m.Move, m.Move.Failed)
	default: // resume goes on
		rec.Place(m.From)
	}
	en.do(func() { en.rec = rec })
	e.adopt(en, rec, live)
	if rec.Moving == nil {
		e.saved(en)
	}
}

// findRun adopts the run that lives, at whatever stratum, and cleans what the others left.
func (e *Engine) findRun(ctx context.Context, rec environment.Record) (live stratum.Live, at string) {
	for _, d := range e.o.Drivers {
		found, err := d.Adopt(ctx, rec.ID)
		switch {
		case err == nil && live == nil:
			live, at = found, d.Stratum()
			continue
		case err == nil: // the disk's lock stands against it
			e.log.Error("an environment has two runs", "id", rec.ID)
			e.endUnwanted(ctx, d, rec.ID, found)
			continue
		case !fault.Is(err, fault.Missing):
			e.log.Warn("run not adopted", "id", rec.ID, "error", err)
		}
		if _, err := d.Clean(ctx, rec.ID); err != nil {
			e.log.Warn("run not cleaned", "id", rec.ID, "error", err)
		}
	}
	if live == nil {
		e.disconnect(ctx, rec)
	}
	return live, at
}

// resumeMove goes on with a move that an earlier daemon has begun. Nobody else has
// the environment yet.
func (e *Engine) resumeMove(en *entry) {
	en.op <- struct{}{}
	e.goes(func() {
		defer en.unlock()
		defer e.keepClaim(en)()
		to := en.snapshot()
		to.Place(to.Moving.To)
		if settle, err := e.claimBoth(en, to); err == nil { // else that start is refused, if it is made
			defer settle()
		}
		if err := e.switchOver(e.life, en); err != nil && e.life.Err() == nil {
			e.log.Warn("move not brought to its end", "id", en.id(), "error", err)
		}
	})
}
