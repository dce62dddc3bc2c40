package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// savedDir is the folder of a suspended system, in an environment's folder.
const savedDir = "suspended"

func (e *Engine) savedPath(id string) string { return filepath.Join(e.store.Dir(id), savedDir) }

// hasSaved tells whether there is a suspended system that no run has gone on from.
func (e *Engine) hasSaved(id string) bool {
	_, err := os.Stat(e.savedPath(id))
	return err == nil
}

// dropSaved removes a suspended system, and what is left of one.
func (e *Engine) dropSaved(id string) error {
	dir := e.savedPath(id)
	return errors.Join(os.RemoveAll(dir+".new"), os.RemoveAll(dir+".used"), os.RemoveAll(dir))
}

// Suspend writes a running environment down as a whole and ends its run; Resume, or a
// start, goes on with it. Once begun it goes on when ctx ends. Kinds: Missing,
// Conflict, Unable (its stratum cannot, it has what cannot be written down, no room).
func (e *Engine) Suspend(ctx context.Context, ref string) error {
	if err := e.open(); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.finish(ctx, func(ctx context.Context) error { return e.suspend(ctx, en) })
}

func (e *Engine) suspend(ctx context.Context, en *entry) error {
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	r, s, err := e.suspender(en)
	if err != nil {
		return err
	}
	id := en.id()
	if err := e.dropSaved(id); err != nil { // of a daemon that was killed in between
		return fault.Internalf("remove what was suspended before: %w", err)
	}
	if err := s.Suspend(ctx, e.savedPath(id)); err != nil {
		return fault.Wrap(err, "suspend %s", en.name())
	}
	// It is whole. From the record on, it is what counts.
	var before environment.Phase
	en.do(func() {
		r.suspended, before = true, en.rec.Phase
		en.rec.Phase = environment.PhaseSuspended
	})
	if err := e.save(en); err != nil {
		en.do(func() { r.suspended, en.rec.Phase = false, before })
		err = errors.Join(err, e.dropSaved(id))
		if p, ok := r.live.(stratum.Pauser); ok {
			err = errors.Join(err, p.Resume(ctx))
		}
		return err
	}
	if err := killRun(ctx, r, false); err != nil {
		return fault.Wrap(err, "end what was suspended of %s", en.name())
	}
	e.tell(ctx, en, "suspend")
	return nil
}

// suspender returns what can be suspended, or says why it cannot.
func (e *Engine) suspender(en *entry) (*run, stratum.Suspender, error) {
	d, err := e.driver(en)
	if err != nil {
		return nil, nil, err
	}
	if d.Capabilities()&stratum.CanSuspend == 0 {
		return nil, nil, fault.Unablef("a %s cannot be suspended, and %s is one: its programs are the host kernel's", d.Stratum(), en.name()).
			Help("hold it still: strata pause %s; a guest or a machine can: --stratum guest", en.name())
	}
	en.mu.Lock()
	defer en.mu.Unlock()
	if _, err := en.state.Next(environment.Suspend); err != nil {
		return nil, nil, fault.Wrap(err, "environment %s", en.rec.Name)
	}
	if en.rec.Spec.AutoRemove {
		return nil, nil, fault.Conflictf("environment %s goes when its run ends (--rm), and to suspend it ends that", en.rec.Name).
			Help("hold it still: strata pause %s", en.rec.Name)
	}
	s, ok := en.run.live.(stratum.Suspender)
	if !ok {
		return nil, nil, fault.Unablef("environment %s cannot be suspended", en.rec.Name)
	}
	return en.run, s, nil
}

// endedSuspended is ended for a run that was suspended: no end of its program.
func (e *Engine) endedSuspended(ctx context.Context, en *entry, rec environment.Record) {
	e.cleanRun(ctx, en, rec)
	e.givePorts(en)
	err := en.move(environment.Suspend, func() { en.run, en.rec.Phase = nil, environment.PhaseSuspended })
	if err != nil {
		e.log.Error("state of a suspended environment", "id", rec.ID, "error", err)
	}
	e.release(en)
}

// keepSaved puts an environment back whose start did not go as far as to use what was
// suspended of it, and tells whether that is so.
func (e *Engine) keepSaved(en *entry, failure error) bool {
	if !en.goingOn || !e.hasSaved(en.id()) {
		return false
	}
	err := en.move(environment.Back, func() {
		en.run, en.rec.Phase, en.rec.LastFailure = nil, environment.PhaseSuspended, failure.Error()
	})
	if err != nil {
		e.log.Error("state of a suspended environment", "id", en.id(), "error", err)
	}
	e.saved(en)
	return true
}

// recoverSaved makes record and host agree on what is suspended, of what does not run.
// It tells whether that is all.
func (e *Engine) recoverSaved(en *entry, rec environment.Record) bool {
	has := e.hasSaved(rec.ID)
	switch {
	case rec.Phase == environment.PhaseSuspended:
		return true
	case rec.Phase == environment.PhaseStarting && has: // it was not gone on with yet
		en.do(func() { en.state, en.rec.Phase = environment.Suspended, environment.PhaseSuspended })
		e.saved(en)
		return true
	}
	if err := e.dropSaved(rec.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("what was suspended is not removed", "id", rec.ID, "error", err)
	}
	return false
}

// giveUp makes a suspended environment a stopped one.
func (e *Engine) giveUp(ctx context.Context, en *entry) error {
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	en.mu.Lock()
	state := en.state
	en.mu.Unlock()
	if state != environment.Suspended { // it was resumed meanwhile, or another kill came first
		return fault.Conflictf("environment %s is %s and no longer suspended", en.name(), state)
	}
	exit := api.Exit{Status: statusLost, Signal: 9, At: time.Now()}
	err := en.move(environment.Stop, func() {
		en.rec.Phase, en.rec.UserStopped, en.rec.Exit = environment.PhaseStopped, true, &exit
		en.ends++
	})
	if err != nil {
		return err
	}
	if err := e.save(en); err != nil {
		return err
	}
	e.tell(ctx, en, "kill", "signal", "9")
	return fault.Wrap(e.dropSaved(en.id()), "remove what was suspended of %s", en.name())
}

// Reset presses the reset button of a running environment: at once, with nothing
// written out. Kinds: Missing, Conflict, Unable (it has none).
func (e *Engine) Reset(ctx context.Context, ref string) error {
	if err := e.open(); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	return e.finish(ctx, func(ctx context.Context) error { return e.reset(ctx, en) })
}

func (e *Engine) reset(ctx context.Context, en *entry) error {
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	r, err := e.capable(en, stratum.CanReset, "reset", "reset button")
	if err != nil {
		return err
	}
	en.do(func() { r.final, r.keep, en.rec.Restarting = true, true, true })
	over, err := r.live.(stratum.Resetter).Reset(ctx)
	if err != nil || !over {
		en.do(func() { r.final, r.keep, en.rec.Restarting = false, false, false })
		if err == nil {
			e.tell(ctx, en, "reset")
		}
		return fault.Wrap(err, "reset %s", en.name())
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(afterKill):
		err = fault.Internalf("%s was reset and has not ended within %v", en.name(), afterKill)
	}
	if err != nil {
		if e.life.Err() == nil { // else the next engine goes on
			en.do(func() { r.keep, en.rec.Restarting = false, false })
			e.saved(en)
		}
		return err
	}
	if err := e.start(ctx, en, nil, false); err != nil {
		return err
	}
	e.tell(ctx, en, "reset")
	return nil
}

// Interrupt sends a running environment an interrupt that it cannot mask.
// Kinds: Missing, Conflict, Unable.
func (e *Engine) Interrupt(ctx context.Context, ref string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	r, err := e.capable(en, stratum.CanInterrupt, "interrupted", "interrupt that cannot be masked")
	if err != nil {
		return err
	}
	if err := r.live.(stratum.Interrupter).Interrupt(ctx); err != nil {
		return fault.Wrap(err, "interrupt %s", en.name())
	}
	e.tell(ctx, en, "nmi")
	return nil
}

// capable returns the run of an environment whose stratum can do something, which it
// calls what.
func (e *Engine) capable(en *entry, c stratum.Capability, doing, what string) (*run, error) {
	d, err := e.driver(en)
	if err != nil {
		return nil, err
	}
	if d.Capabilities()&c == 0 {
		return nil, fault.Unablef("a %s has no %s, and %s is one", d.Stratum(), what, en.name()).Help("a machine has one: use --stratum machine")
	}
	return en.current(doing)
}
