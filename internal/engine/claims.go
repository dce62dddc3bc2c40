package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/price"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// assumed are the overheads where no price tells: what keeper, agent and the kernel's own
// hold for a zone; what QEMU held of a cold system with nothing in it, under TCG and
// rounded up, for a guest (whose clones take less) and a machine.
var assumed = map[string]unit.Size{
	stratum.Zone:    2 * unit.MiB,
	stratum.Guest:   250 * unit.MiB,
	stratum.Machine: 320 * unit.MiB,
}

// overheads are what strata itself spends of the host's memory for one running
// environment, by stratum: what an idle one held when its price was measured, on this
// kernel. They stay until the daemon's end, so that what runs never comes to need more
// than it was let in with.
func (e *Engine) overheads() map[string]unit.Size {
	all, kernel := maps.Clone(assumed), release()
	for at, p := range e.keptPrices() {
		if p.Host == nil || p.Host.Kernel != kernel {
			continue
		}
		for _, f := range p.Figures {
			if f.Name == price.Memory && f.Inside != nil && f.Inside.Median >= 0 && f.Inside.Median < 1<<20 {
				all[at] = max(unit.MiB, unit.Size(f.Inside.Median*float64(unit.MiB)))
			}
		}
	}
	return all
}

// claimOf is what an environment takes of the host while it runs.
func (e *Engine) claimOf(rec environment.Record) admission.Claim {
	r := rec.Spec.Resources
	return admission.Claim{
		ID: rec.ID, Name: rec.Name, Stratum: rec.Stratum,
		Memory: r.MemoryGuarantee, CPUs: r.CPUGuarantee, Overhead: e.overhead[rec.Stratum],
		MemoryLimit: r.Memory, CPULimit: r.CPUs, Weight: int(r.CPUWeight),
	}
}

// claim takes what a start needs, from before it until the end. Kinds: Full.
func (e *Engine) claim(en *entry) error { return e.book.Take(e.claimOf(en.snapshot())) }

// release gives the claim of what does not run any more back, and shares anew. It is
// called once the environment's state says so. What is about to be started again keeps it,
// whoever wants that.
func (e *Engine) release(en *entry) {
	en.mu.Lock()
	if en.state.Active() || en.restarting > 0 {
		en.mu.Unlock()
		return
	}
	e.book.Give(en.key) // with mu held: a start takes its claim after it has moved the state
	en.mu.Unlock()
	e.share()
}

// keepClaim has a claim outlive the time between the two halves of a restart.
// done ends that.
func (e *Engine) keepClaim(en *entry) (done func()) {
	en.mu.Lock()
	en.restarting++
	en.mu.Unlock()
	return func() {
		en.do(func() { en.restarting-- }) // whoever waits for its end waits for that, too
		e.release(en)
	}
}

// changeClaim changes the claim of what runs as its spec changes, in two steps, so that
// nobody takes in between what is not given back for sure: first to the larger of
// both, and with settle to the new one, or back. Kinds: Full.
func (e *Engine) changeClaim(en *entry, old, now environment.Record) (settle func(done bool), err error) {
	before, after := e.claimOf(old), e.claimOf(now)
	if before == after {
		return func(bool) {}, nil
	}
	both := after.Beside(before)
	en.mu.Lock()
	runs := en.run != nil
	en.mu.Unlock()
	if !runs {
		return func(bool) {}, nil
	}
	if err := e.book.Take(both); err != nil {
		return nil, err
	}
	return func(done bool) {
		if !done {
			after = before
		}
		en.mu.Lock()
		if en.run != nil { // else it has ended meanwhile, and given back all
			if err := e.book.Take(after); err != nil { // it asks for no more than it has
				e.log.Error("claim not lowered", "id", en.id(), "error", err)
			}
		}
		en.mu.Unlock()
		e.release(en)
		e.share()
	}, nil
}

// claimBoth has what runs keep its claim over a move, of the larger of what it takes at
// its stratum and as to, what it is to be. settle ends that. Kinds: Full.
func (e *Engine) claimBoth(en *entry, to environment.Record) (settle func(), err error) {
	both := e.claimOf(en.snapshot()).Beside(e.claimOf(to))
	en.mu.Lock()
	runs := en.run != nil
	en.mu.Unlock()
	if !runs {
		return func() {}, nil
	}
	done := e.keepClaim(en)
	if err := e.book.Take(both); err != nil {
		done()
		return nil, err
	}
	return func() {
		done()
		e.claimAgain(en)
	}, nil
}

// claimAgain has what runs claim what it takes as it is, which is no more than it has.
func (e *Engine) claimAgain(en *entry) {
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.run != nil {
		_ = e.book.Take(e.claimOf(en.rec))
	}
}

// shareAll begins to share, once what runs has its claims again.
func (e *Engine) shareAll() {
	e.sharing.Lock()
	e.sharesAll = true
	e.sharing.Unlock()
	e.share()
}

// share divides processors and memory between all that run, as their claims have it.
// What was so already is not written again, but for what fresh names, whose groups
// are new.
func (e *Engine) share(fresh ...string) {
	e.sharing.Lock()
	defer e.sharing.Unlock()
	if !e.sharesAll {
		return // what runs has not got its claims again
	}
	for _, id := range fresh {
		delete(e.shared.Each, id)
	}
	held, _ := e.book.Claims()
	running := slices.DeleteFunc(held, func(c admission.Claim) bool {
		e.mu.RLock()
		en := e.ids[c.ID]
		e.mu.RUnlock()
		if en == nil {
			return true
		}
		en.mu.Lock()
		defer en.mu.Unlock()
		return en.run == nil
	})
	sharers := map[string]stratum.Sharer{}
	for _, d := range e.o.Drivers {
		if s, ok := d.(stratum.Sharer); ok {
			sharers[d.Stratum()] = s
			sharers[""] = s // any may be told what all get
		}
	}
	parts := admission.Shares(e.book.Host(), running)
	// The group above goes first: nothing below it has more memory kept than it has.
	if parts.Own != e.shared.Own && !e.tellShare(sharers[""], "", parts.Own) {
		parts.Own = admission.Share{} // to be told again
	}
	for _, c := range running {
		now := parts.Each[c.ID]
		before, ok := e.shared.Each[c.ID]
		if !ok && e.shared.Each != nil { // else an earlier daemon may have left anything
			before = admission.Rest() // as every new group
		}
		if now != before && !e.tellShare(sharers[c.Stratum], c.ID, now) {
			parts.Each[c.ID] = admission.Share{}
		}
	}
	e.shared = parts
}

// tellShare writes one share, and tells whether that is done.
func (e *Engine) tellShare(s stratum.Sharer, id string, share admission.Share) bool {
	if s == nil {
		return true
	}
	err := s.Share(id, stratum.Share(share))
	if err != nil {
		e.log.Warn("share not set", "id", id, "error", err)
	}
	return err == nil
}

// Bounds of a wait for room.
const (
	// usualQueue is how long it lasts at most where the caller does not say.
	usualQueue = time.Hour
	// heldFor is how long room is held for the start that is to follow.
	heldFor = 30 * time.Second
)

// Queue waits until there is room for what ref has guaranteed once next is done, and holds
// it for the start, change or move that follows within half a minute. It ends with ctx, and
// after patience (0: an hour). What runs, and is to take no more, waits for nothing, nor
// does a change of what does not run. Kinds: Missing, Invalid, Conflict (of the change),
// Busy (its time is over, or too many wait), Full where it can never fit.
func (e *Engine) Queue(ctx context.Context, ref string, next api.Next, patience time.Duration) error {
	if err := e.open(); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	want, waits, err := e.toCome(en, next)
	if err != nil || !waits {
		return err
	}
	if patience <= 0 {
		patience = usualQueue
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ctx, stop := e.until(ctx)
	defer stop()
	stay, leave := context.WithCancel(ctx)
	defer leave()
	go func() {
		if en.until(stay, func() bool { return en.state.Going() }) == nil {
			leave()
		}
	}()
	err = e.book.Wait(stay, want)
	en.mu.Lock()
	going := en.state.Going()
	en.mu.Unlock()
	if going {
		e.release(en) // room may have come in the last moment
		err = fault.Missingf("it was removed meanwhile")
	}
	if err != nil {
		return fault.Wrap(err, "wait for room for %s", en.name())
	}
	e.goes(func() {
		timer := time.NewTimer(heldFor)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-e.life.Done():
			return // the next daemon counts what runs
		}
		e.giveBack(en)
	})
	return nil
}

// toCome is what an environment claims once next is done, and whether that is more than
// it may have at once.
func (e *Engine) toCome(en *entry, next api.Next) (want admission.Claim, waits bool, err error) {
	rec := en.snapshot()
	now := e.claimOf(rec)
	if next.Update != nil {
		if rec.Spec, err = environment.Change(rec.Spec, *next.Update, bounds); err != nil {
			return want, false, err
		}
	}
	if next.Stratum != "" {
		if e.drivers[next.Stratum] == nil {
			return want, false, fault.Invalidf("%q is not a stratum", next.Stratum).At("stratum").Help("use one of: %s", strings.Join(e.strata(), ", "))
		}
		rec.Stratum = next.Stratum
	}
	want = e.claimOf(rec).Beside(now)
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.run != nil || en.state == environment.Starting {
		return want, now.Beside(want) != now, nil
	}
	return want, next == (api.Next{}), nil
}

// giveBack ends the holding of room for what was to follow: what runs keeps what it takes
// as it is.
func (e *Engine) giveBack(en *entry) {
	if en.lock(e.life) != nil { // what follows may be under way
		return
	}
	defer en.unlock()
	e.claimAgain(en)
	e.release(en)
}

// Capacity tells what the host has, what of it is guaranteed, and to whom.
func (e *Engine) Capacity(context.Context) api.Capacity {
	h := e.book.Host()
	held, waiting := e.book.Claims()
	sum := h.Total(held)
	memory, cpus := h.Capacity()
	c := api.Capacity{
		Memory: api.MemoryCapacity{Host: h.Memory, Reserve: h.ReserveMemory, ReserveFrom: e.o.Reserve.Memory, Capacity: memory, Guaranteed: sum.Memory, Overhead: sum.Overhead,
			Free: max(memory-sum.Memory-sum.Overhead, 0), Overcommit: h.OvercommitMemory},
		CPUs: api.CPUCapacity{Host: h.CPUs, Reserve: h.ReserveCPUs, ReserveFrom: e.reserveWords(), Capacity: cpus, Guaranteed: sum.CPUs,
			Free: max(cpus-sum.CPUs, 0), Overcommit: h.OvercommitCPUs},
		Held: wireClaims(held), Waiting: wireClaims(waiting),
	}
	return c
}

func wireClaims(all []admission.Claim) []api.Claim {
	out := []api.Claim{}
	for _, c := range all {
		out = append(out, api.Claim{ID: c.ID, Name: c.Name, Stratum: c.Stratum, Memory: c.Memory, CPUs: c.CPUs, Overhead: c.Overhead})
	}
	return out
}
