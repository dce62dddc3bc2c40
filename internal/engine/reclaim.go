package engine

import (
	"context"
	"strconv"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Reclaim gives memory back to the host that a running environment does not use, and
// never what is guaranteed to it. Kinds: Missing, Conflict (it does not run, or is
// paused), Unable (its stratum, its system or this host cannot).
func (e *Engine) Reclaim(ctx context.Context, ref string) (api.Reclaimed, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Reclaimed{}, err
	}
	if err := en.lock(ctx); err != nil {
		return api.Reclaimed{}, err
	}
	defer en.unlock()
	d, err := e.driver(en)
	if err != nil {
		return api.Reclaimed{}, err
	}
	r, err := en.current("reclaimed")
	if err != nil {
		return api.Reclaimed{}, err
	}
	l, ok := r.live.(stratum.Reclaimer)
	if d.Capabilities()&stratum.CanReclaim == 0 || !ok {
		return api.Reclaimed{}, fault.Unablef("a %s gives no memory back while it runs", d.Stratum())
	}
	rec := en.snapshot()
	got, err := l.Reclaim(ctx, rec.Spec.Resources)
	if err != nil {
		return api.Reclaimed{}, fault.Wrap(err, "reclaim %s", rec.Name)
	}
	out := api.Reclaimed{
		ID: rec.ID, Environment: rec.Name, Stratum: rec.Stratum,
		Before: got.Before, After: got.After, Freed: max(0, got.Before-got.After), By: got.By, Kept: got.Kept,
	}
	e.tell(ctx, en, "reclaim", "freed", strconv.FormatInt(out.Freed, 10))
	return out, nil
}

// When the policy idle takes memory back.
const (
	// idleLook is how often it is looked at who is idle.
	idleLook = 30 * time.Second
	// idleCPU is what one that is idle uses at most. Unit: thousandths of a processor. A
	// whole Debian in a guest under TCG uses 10 to 20 with nothing to do.
	idleCPU = 50
	// idleAfter is how long it has been so.
	idleAfter = 5 * time.Minute
	// idleAgain is the time to the next one where it stays idle.
	idleAgain = time.Hour
)

// idleness is what the policy knows of one run.
type idleness struct {
	run   *run
	cpu   int64     // nanoseconds so far, at
	at    time.Time // of the last look
	since time.Time // it has been idle since then; zero: it is not
	next  time.Time // nothing is taken before
}

// due notes that a run had used cpu by now, and tells whether it is to give memory back.
func (i *idleness) due(r *run, cpu int64, now time.Time) bool {
	if i.run != r {
		*i = idleness{run: r, cpu: cpu, at: now}
		return false
	}
	used, passed := cpu-i.cpu, now.Sub(i.at)
	i.cpu, i.at = cpu, now
	switch {
	case passed <= 0:
		return false
	case used*1000/int64(passed) > idleCPU:
		i.since, i.next = time.Time{}, time.Time{}
		return false
	case i.since.IsZero():
		i.since = now.Add(-passed)
	}
	if now.Sub(i.since) < idleAfter || now.Before(i.next) {
		return false
	}
	i.next = now.Add(idleAgain)
	return true
}

// reclaiming takes memory back from those that have the policy idle, until the engine closes.
func (e *Engine) reclaiming() {
	tick := time.NewTicker(idleLook)
	defer tick.Stop()
	known := map[string]*idleness{}
	for {
		select {
		case <-tick.C:
		case <-e.life.Done():
			return
		}
		seen := map[string]*idleness{}
		for _, id := range e.idlers(known, seen) {
			if got, err := e.Reclaim(e.life, id); err != nil {
				e.log.Debug("nothing reclaimed", "id", id, "error", err)
			} else {
				e.log.Debug("reclaimed", "id", id, "bytes", got.Freed)
			}
		}
		known = seen
	}
}

// idlers are those that are to give memory back now. What is known of each is in seen then.
func (e *Engine) idlers(known, seen map[string]*idleness) (due []string) {
	for _, en := range e.entries() {
		en.mu.Lock()
		r, asked := en.run, en.rec.Spec.Resources.Reclaim == api.ReclaimIdle && en.state.Live()
		en.mu.Unlock()
		if r == nil || !asked {
			continue
		}
		c, ok := r.live.(stratum.Counter)
		if !ok {
			continue
		}
		s, ok := c.Sample()
		if !ok {
			continue
		}
		i := known[en.id()]
		if i == nil {
			i = &idleness{}
		}
		seen[en.id()] = i
		if i.due(r, s.CPU, time.Now()) {
			due = append(due, en.id())
		}
	}
	return due
}
