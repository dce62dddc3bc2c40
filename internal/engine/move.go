package engine

import (
	"context"
	"slices"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// notKept is what no move keeps.
const notKept = "what runs inside is stopped and started anew: its memory, its processes, open connections and further programs are not kept"

// Move has an environment run at another stratum, with everything that is its own: disk,
// name, address, ports, volumes, limits. Nothing of disk or template is copied. One that
// runs is stopped, once all that the new stratum takes is found and made, and started there;
// where that fails it is started where it was. One that stands still changes its stratum only.
// A dry run checks all that is checked before anything is stopped, with what is to be
// changed before, and makes no more than what all environments of the stratum share.
// A move that has begun goes on when ctx ends, and when the daemon does (see moving.go).
//
// Kinds: Missing (also of a kernel, at "kernel"), Invalid (the stratum, needs, options, a change),
// Conflict (it is there already, or starting, stopping or paused), Busy (another move or
// operation on it is under way), Full (it would break a guarantee), Unable (the host cannot, or the
// new start failed).
func (e *Engine) Move(ctx context.Context, ref string, r api.MoveRequest) (api.Moved, error) {
	if err := e.open(); err != nil {
		return api.Moved{}, err
	}
	en, err := e.find(ref)
	if err != nil {
		return api.Moved{}, err
	}
	if !r.DryRun {
		if r.Update != nil {
			return api.Moved{}, fault.Invalidf("a move changes no limits; its dry run judges with those that are to be").At("update").Help("change them first, and move it then")
		}
		release, err := en.claimMove()
		if err != nil {
			return api.Moved{}, fault.Wrap(err, "move %s to %s", en.name(), r.Stratum)
		}
		defer release()
	}
	moved, to, err := e.planMove(ctx, en, r)
	if err != nil {
		return api.Moved{}, fault.Wrap(err, "move %s to %s", en.name(), r.Stratum)
	}
	if r.DryRun && moved.Plan.Fetch { // the rest cannot be tried without it
		return moved, nil
	}
	if err := e.rehearse(ctx, to); err != nil {
		return api.Moved{}, fault.Wrap(err, "move %s to %s", en.name(), r.Stratum)
	}
	if r.DryRun {
		return moved, fault.Wrap(e.mayClaim(en, to), "move %s to %s", en.name(), r.Stratum)
	}
	if !en.tryLock() {
		return api.Moved{}, en.inUse()
	}
	err = e.finish(ctx, func(ctx context.Context) error {
		defer en.unlock() // before anybody hears of it
		return e.carry(ctx, en, to.Placed(), &moved)
	})
	if ctx.Err() != nil { // moved may be the other's still
		return api.Moved{}, ctx.Err()
	}
	return moved, fault.Wrap(err, "move %s to %s", en.name(), r.Stratum)
}

// mayClaim tells whether nothing would stand against a move to that is known only with the
// operation lock: other operations, guarantees. Kinds: Busy, Conflict, Full.
func (e *Engine) mayClaim(en *entry, to environment.Record) error {
	if !en.tryLock() {
		return en.inUse()
	}
	defer en.unlock()
	if err := en.movable(); err != nil {
		return err
	}
	settle, err := e.claimBoth(en, to)
	if err != nil {
		return err
	}
	settle()
	return nil
}

// claimMove lets one move of an environment at a time be prepared. Kinds: Busy, Conflict.
func (en *entry) claimMove() (release func(), err error) {
	if !en.tryLock() {
		if err := en.movable(); err != nil { // which says what is under way
			return nil, err
		}
		return nil, en.inUse()
	}
	defer en.unlock()
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.moves {
		return nil, fault.Busyf("environment %s is being moved already", en.rec.Name).Help("wait until it has moved: strata show %s", en.rec.Name)
	}
	en.moves = true
	return func() { en.do(func() { en.moves = false }) }, nil
}

// tryLock takes the operation lock if nobody has it.
func (en *entry) tryLock() bool {
	select {
	case en.op <- struct{}{}:
		en.endKept()
		return true
	default:
		return false
	}
}

func (en *entry) inUse() error {
	return fault.Busyf("another operation on environment %s is under way", en.name()).Help("try again when it is over")
}

// movable refuses what is neither running nor standing still. Kinds: Conflict, Busy
// where it is between two strata, Missing.
func (en *entry) movable() error {
	en.mu.Lock()
	defer en.mu.Unlock()
	name := en.rec.Name
	if m := en.rec.Moving; m != nil {
		return fault.Busyf("environment %s is being moved to %s", name, m.To.Stratum).Help("wait until it has moved: strata show %s", name)
	}
	switch en.state {
	case environment.Running, environment.Stopped, environment.Made:
		return nil
	case environment.Paused:
		return fault.Conflictf("environment %s is paused and cannot be moved", name).Help("resume it first: strata resume %s", name)
	case environment.Suspended:
		return fault.Conflictf("environment %s is suspended and cannot be moved: what was written down goes on at stratum %s only", name, en.rec.Stratum).Help("resume it first, or give up what was in its memory: strata kill %s", name)
	case environment.Starting, environment.Stopping, environment.Waiting:
		return fault.Conflictf("environment %s is %s and cannot be moved", name, en.state).Help("wait until it runs or has stopped, or stop it: strata stop %s", name)
	}
	return fault.Missingf("environment %s is %s", name, en.state).At("environment")
}

// planMove checks all that can be checked without making anything, and returns what the
// move would do, and what it would be there.
func (e *Engine) planMove(ctx context.Context, en *entry, r api.MoveRequest) (api.Moved, environment.Record, error) {
	var to environment.Record
	if err := en.movable(); err != nil {
		return api.Moved{}, to, err
	}
	rec := en.snapshot()
	if r.Update != nil {
		changed, err := environment.Change(rec.Spec, *r.Update, bounds)
		if err != nil {
			return api.Moved{}, to, err
		}
		rec.Spec = changed
	}
	if r.Stratum == "" {
		return api.Moved{}, to, fault.Invalidf("no stratum was named").At("stratum").Help("use one of: zone, guest, machine")
	}
	if rec.Stratum == r.Stratum {
		return api.Moved{}, to, fault.Conflictf("environment %s is at stratum %s already", rec.Name, rec.Stratum).At("stratum")
	}
	if rec.Spec.Foreign != nil {
		return api.Moved{}, to, fault.Unablef("environment %s is a foreign system, which needs a machine and moves nowhere else", rec.Name).At("stratum")
	}
	spec := rec.Spec
	spec.Name, spec.Stratum, spec.Force = rec.Name, r.Stratum, r.Force
	if err := checkVolumes(spec); err != nil {
		return api.Moved{}, to, err
	}
	t, err := e.o.Templates.Get(rec.TemplateID)
	if err != nil {
		return api.Moved{}, to, fault.Wrap(err, "find the template")
	}
	choice, fetch, err := e.chooseFetching(ctx, spec, t)
	if err == nil && !r.DryRun && fetch != nil {
		err = fetch
	}
	var aside []string
	if err == nil {
		aside = setAside(&spec, choice.Stratum)
		err = fault.Join(fits(spec, choice.Stratum), detached(rec, choice.Stratum))
	}
	if err != nil {
		return api.Moved{}, to, err
	}
	hardware, err := e.outfit(ctx, spec, choice.Stratum)
	if err != nil && (fetch == nil || !fault.Is(err, fault.Missing)) {
		return api.Moved{}, to, err
	}
	choice.Reason = "it was moved there from stratum " + rec.Stratum
	at := environment.Placement{Stratum: choice.Stratum, Choice: &choice, Asked: r.Stratum, Force: r.Force, Notes: slices.Clone(rec.Notes)}
	if rec.Choice != nil { // what is forced where it is now need not be there
		at.Notes = slices.DeleteFunc(at.Notes, func(note string) bool { return note == forcedNote(*rec.Choice) })
	}
	if choice.Unmet != nil {
		choice.Reason += forcedReason(choice.Unmet)
		at.Notes = append(at.Notes, forcedNote(choice))
	}
	at.Reason = choice.Reason
	to = rec
	to.Place(at)
	en.mu.Lock()
	ran := en.run != nil
	en.mu.Unlock()
	moved := api.Moved{
		DryRun: r.DryRun, Plan: e.planOf(planned{spec, t, rec.Resolved, choice, fetch, hardware}), Notes: aside,
		Move: api.Move{At: time.Now(), From: rec.Stratum, To: choice.Stratum, Ran: ran, Forced: choice.Unmet != nil},
	}
	if ran {
		moved.Notes = append(moved.Notes, notKept)
	}
	return moved, to, nil
}

// rehearse makes and checks all that a start as to takes, while it still runs.
func (e *Engine) rehearse(ctx context.Context, to environment.Record) error {
	ctx, cancel := e.until(ctx)
	defer cancel()
	e.progress(ctx)(api.Progress{Step: "prepare", Item: to.Name + " at stratum " + to.Stratum})
	p, err := e.plan(ctx, to, false)
	if err != nil {
		return err
	}
	if d, ok := e.drivers[to.Stratum].(stratum.Rehearser); ok {
		return d.Rehearse(ctx, p)
	}
	return nil
}

// carry does what was planned, with the operation lock held.
func (e *Engine) carry(ctx context.Context, en *entry, to environment.Placement, moved *api.Moved) error {
	if err := en.movable(); err != nil { // it may have changed meanwhile
		return err
	}
	before := en.snapshot()
	after := before
	after.Place(to)
	settle, err := e.claimBoth(en, after)
	if err != nil {
		return err
	}
	defer settle()
	m := &environment.Moving{From: before.Placed(), To: to, Move: moved.Move}
	m.Move.At, m.Move.Ran = time.Now(), true
	var r *run
	gone := false
	en.do(func() {
		if r = en.run; r != nil {
			if gone = r.dropped; gone {
				return
			}
			en.rec.Moving, r.keep = m, true // it is not to go at its end, nor to be started by its policy
			return
		}
		m.Move.Ran = false
		en.rec.Place(to)
		en.rec.Moved(m.Move, "")
	})
	if gone {
		return fault.Conflictf("environment %s has ended, and goes with that (--rm)", en.name())
	}
	if err := e.save(en); err != nil { // nothing was stopped
		en.do(func() {
			if r != nil {
				en.rec.Moving, r.keep = nil, false
				return
			}
			en.rec.Place(before.Placed())
			en.rec.Moves = before.Moves
		})
		return err
	}
	if r == nil {
		moved.Move = m.Move
		e.tellMove(ctx, en, m.Move)
		return nil
	}
	err = e.switchOver(ctx, en)
	if all := en.snapshot().Moves; len(all) > 0 && err == nil {
		moved.Move = all[len(all)-1]
	}
	return err
}

func (e *Engine) tellMove(ctx context.Context, en *entry, m api.Move) {
	detail := []string{"from", m.From, "to", m.To}
	if m.Downtime > 0 {
		detail = append(detail, "downtime", m.Downtime.String())
	}
	if m.Failed != "" {
		detail = append(detail, "failed", m.Failed)
	}
	e.tell(ctx, en, "move", detail...)
}

// since is the time from start on, to the millisecond.
func since(start time.Time) unit.Duration {
	return unit.Duration(time.Since(start).Round(time.Millisecond))
}
