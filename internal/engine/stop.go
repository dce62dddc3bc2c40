package engine

import (
	"context"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// afterKill bounds the wait for the end of a run that was killed.
const afterKill = 20 * time.Second

// Stop asks the main program to end, and kills the environment when the grace is
// over; a start that is under way then is given up. The restart policy does not start it
// again. What is not running is left as it is, without an error. A stop that has begun goes on when ctx ends.
// Kinds: Missing, Invalid (signal), Busy.
func (e *Engine) Stop(ctx context.Context, ref string, o StopOptions) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.stop(ctx, en, o, false)
}

// stop does Stop's work; keep tells that a start follows.
func (e *Engine) stop(ctx context.Context, en *entry, o StopOptions, keep bool) error {
	sig, grace := en.snapshot().Resolved.StopSignal, time.Duration(en.snapshot().Resolved.StopGrace)
	if o.Signal != "" {
		var err error
		if sig, err = environment.ParseSignal(o.Signal, "signal"); err != nil {
			return err
		}
	}
	if o.Grace != nil {
		grace = max(*o.Grace, 0)
	}
	r, paused, err := e.beginStop(ctx, en, grace, keep)
	if err != nil || r == nil {
		return err
	}
	e.saved(en)
	err = e.finish(ctx, func(ctx context.Context) error {
		err := bringDown(ctx, r, sig, grace, paused)
		if err == nil {
			e.tell(ctx, en, "stop")
		}
		return err
	})
	return fault.Wrap(err, "stop %s", en.name())
}

// lockWithin takes the operation lock; after grace, starts are given up (see lockOver).
func (en *entry) lockWithin(ctx context.Context, grace time.Duration, keep bool) error {
	soon, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := en.lock(soon); err == nil || ctx.Err() != nil {
		return err
	}
	return en.lockOver(ctx, keep)
}

// beginStop notes that the user wants an end. It returns the run that is to end,
// nil where there is none, and whether it is held still.
func (e *Engine) beginStop(ctx context.Context, en *entry, grace time.Duration, keep bool) (*run, bool, error) {
	if err := en.lockWithin(ctx, grace, keep); err != nil {
		return nil, false, err
	}
	defer en.unlock()
	en.mu.Lock()
	state := en.state
	en.mu.Unlock()
	switch state {
	case environment.Running, environment.Paused:
		var r *run
		err := en.move(environment.Stop, func() {
			r = en.run
			r.final, r.keep = true, keep
			en.rec.UserStopped, en.rec.Restarting, en.rec.Phase = true, keep, environment.PhaseStopping
		})
		if err == nil {
			return r, state == environment.Paused, nil
		}
		return nil, false, nil // it ended meanwhile
	case environment.Stopping:
		en.mu.Lock()
		defer en.mu.Unlock()
		if en.run != nil {
			en.run.keep = en.run.keep || keep
			en.rec.Restarting = en.rec.Restarting || keep
		}
		return en.run, false, nil
	case environment.Waiting:
		err := en.move(environment.Stop, func() {
			close(en.waiting)
			en.waiting = nil
			en.rec.UserStopped, en.rec.Restarting, en.rec.Phase = true, false, environment.PhaseStopped
		})
		if err != nil {
			return nil, false, err
		}
		e.release(en)
	case environment.Suspended:
		return nil, false, fault.Conflictf("environment %s is suspended and not running", en.name()).
			Help("resume it: strata resume %s; or give up what was in its memory: strata kill %s", en.name(), en.name())
	default:
		en.do(func() { en.rec.UserStopped, en.rec.Restarting = true, false })
	}
	e.saved(en)
	return nil, false, nil
}

// bringDown ends a run: with a signal, and with force when the grace is over.
func bringDown(ctx context.Context, r *run, sig syscall.Signal, grace time.Duration, paused bool) error {
	over := func(err error) error {
		select {
		case <-r.done: // a signal to what has ended is no error
			return nil
		default:
			return err
		}
	}
	if grace > 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		asking, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		// A signal that cannot be sent does not keep from killing.
		_ = r.live.Signal(asking, sig)
		if p, ok := r.live.(stratum.Pauser); ok && paused {
			_ = p.Resume(asking)
		}
		ready := stillBooting(r)
	wait:
		for {
			select {
			case <-r.done:
				return nil
			case <-ctx.Done():
				return over(ctx.Err())
			case <-ready: // the kernel drops signals to an init that does not listen yet
				ready = nil
				_ = r.live.Signal(asking, sig)
			case <-timer.C:
				break wait
			}
		}
	}
	return killRun(ctx, r, paused)
}

// stillBooting is closed when a run that is not ready yet is; nil where it is ready.
func stillBooting(r *run) <-chan struct{} {
	select {
	case <-r.live.Ready():
		return nil
	default:
		return r.live.Ready()
	}
}

// killRun ends every process of a run and waits until it is over.
func killRun(ctx context.Context, r *run, paused bool) error {
	err := r.live.Kill(ctx)
	if p, ok := r.live.(stratum.Pauser); ok && paused {
		_ = p.Resume(ctx) // what is held still cannot die; that it may be gone is well
	}
	timer := time.NewTimer(afterKill)
	defer timer.Stop()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		if err == nil {
			err = fault.Internalf("it was killed and has not ended within %v", afterKill)
		}
		return err
	}
}

// Kill sends a signal to the main program; KILL (the default) ends every process.
// KILL and the environment's own stop signal count as a stop by the user, so the
// restart policy does not start it again. Kinds: Missing, Invalid, Conflict (it
// is not running).
func (e *Engine) Kill(ctx context.Context, ref, signal string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if signal != "" {
		if sig, err = environment.ParseSignal(signal, "signal"); err != nil {
			return err
		}
	}
	final := sig == syscall.SIGKILL || sig == en.snapshot().Resolved.StopSignal
	en.mu.Lock()
	r, state := en.run, en.state
	if r != nil && final {
		r.final, en.rec.UserStopped = true, true
	}
	en.mu.Unlock()
	if state == environment.Suspended && sig == syscall.SIGKILL {
		return e.giveUp(ctx, en)
	}
	if state == environment.Waiting && final {
		_, _, err := e.beginStop(ctx, en, startPatience, false)
		return err
	}
	if r == nil {
		return notRunning(en.name(), state, "signalled")
	}
	e.tell(ctx, en, "kill", "signal", itoa(int(sig)))
	if final {
		e.saveSoon(en)
	}
	if sig == syscall.SIGKILL {
		if err := killRun(ctx, r, state == environment.Paused); err != nil {
			return fault.Wrap(err, "kill %s", en.name())
		}
		en.mu.Lock()
		written := r.suspended
		en.mu.Unlock()
		if written { // it ended as what had just been suspended
			return e.giveUp(ctx, en)
		}
		return nil
	}
	return fault.Wrap(r.live.Signal(ctx, sig), "signal %s", en.name())
}

// Restart stops an environment, if it runs, and starts it. Once begun it goes on
// when ctx ends. Kinds: those of Stop and Start.
func (e *Engine) Restart(ctx context.Context, ref string, o StopOptions) error {
	if err := e.open(); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.finish(ctx, func(ctx context.Context) error { return e.restart(ctx, en, o) })
}

func (e *Engine) restart(ctx context.Context, en *entry, o StopOptions) error {
	defer e.keepClaim(en)()
	err := e.stop(ctx, en, o, true)
	if err == nil {
		err = en.lock(ctx)
	}
	if err != nil {
		if e.life.Err() == nil { // else the next engine goes on
			en.do(func() { en.rec.Restarting = false })
			e.saved(en)
		}
		return err
	}
	defer en.unlock()
	if err := e.start(ctx, en, nil, false); err != nil {
		return err
	}
	e.tell(ctx, en, "restart")
	return nil
}

// Pause holds every process of an environment still. Kinds: Missing, Conflict,
// Unable (its stratum cannot).
func (e *Engine) Pause(ctx context.Context, ref string) error {
	return e.hold(ctx, ref, environment.Pause)
}

// Resume lets a paused environment go on, or a suspended one, which is a start of it.
// Kinds: as Pause's, and Start's.
func (e *Engine) Resume(ctx context.Context, ref string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	en.mu.Lock()
	suspended := en.state == environment.Suspended
	en.mu.Unlock()
	if suspended {
		return e.Start(ctx, ref, nil)
	}
	return e.hold(ctx, ref, environment.Resume)
}

func (e *Engine) hold(ctx context.Context, ref string, event environment.Event) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	en.mu.Lock()
	r := en.run
	_, err = en.state.Next(event)
	en.mu.Unlock()
	if err != nil {
		return fault.Wrap(err, "environment %s", en.name())
	}
	d, err := e.driver(en)
	if err != nil {
		return err
	}
	p, ok := r.live.(stratum.Pauser)
	if d.Capabilities()&stratum.CanPause == 0 || !ok {
		return fault.Unablef("stratum %s cannot pause and resume", d.Stratum())
	}
	act, word := p.Pause, "pause"
	if event == environment.Resume {
		act, word = p.Resume, "resume"
	}
	if err := act(ctx); err != nil {
		return fault.Wrap(err, "%s %s", word, en.name())
	}
	if err := en.move(event, nil); err != nil {
		return err // it ended meanwhile
	}
	e.tell(ctx, en, word)
	return nil
}
