package engine

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/store"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Engine is what the API offers. It is safe for concurrent use.
type Engine struct {
	o       Options
	log     *slog.Logger
	drivers map[string]stratum.Driver
	store   *store.Store
	ranges  *ranges
	lockf   *os.File
	started time.Time
	hub     hub
	sampler sampler
	outside outside

	// life ends with Close. It is stored, against the rule, because the work of
	// supervision belongs to no request and ends with the engine.
	life  context.Context
	end   context.CancelFunc
	group sync.WaitGroup // supervision, cleaning, waiting restarts

	going  sync.Mutex // guards ending, a leaf
	ending bool       // Close waits for group: nothing is added any more

	policy chan struct{} // bounds how many starts the restart policy makes at once

	prices *prices

	overhead map[string]unit.Size // by stratum; never changed, see overheads

	first chan struct{} // held while a first kernel is fetched

	resetting atomic.Bool // DestroyAll is under way

	book    *admission.Book // what the host has promised
	sharing sync.Mutex      // of one division of processors and memory at a time, and of shared
	shared  admission.Parts // as it was last written

	sharesAll bool // Open has found all that runs; guarded by sharing

	freezing sync.Mutex // of disks, while bases come and go; taken with an entry's op, before all others

	blind bool // a record cannot be read at all: nobody knows what it named. Set by Open only

	mu    sync.RWMutex // allocation: never held over slow work
	ids   map[string]*entry
	names map[string]*entry
	ports ports
}

// open refuses requests that would begin something while all is being ended.
func (e *Engine) open() error {
	switch {
	case e.life.Err() != nil:
		return fault.Busyf("the daemon is ending").Help("try again: the next one takes over")
	case e.resetting.Load():
		return fault.Busyf("everything is being removed").Help("try again afterwards")
	}
	return nil
}

// goes runs work in the background; Close waits for it. While the engine closes
// the work is done at once: contexts have ended, so it is short.
func (e *Engine) goes(work func()) {
	e.going.Lock()
	ending := e.ending
	if !ending {
		e.group.Add(1)
	}
	e.going.Unlock()
	if ending {
		work()
		return
	}
	go func() {
		defer e.group.Done()
		work()
	}()
}

// outlive returns a context with ctx's values that ends with the engine and not
// with the request: what a request starts outlives the request.
func (e *Engine) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(e.life, cancel)
	return long, func() { stop(); cancel() }
}

// finish does work that goes on when ctx ends, as something was begun that a request must
// not leave half done, and waits for it as long as ctx lasts.
func (e *Engine) finish(ctx context.Context, work func(context.Context) error) error {
	long, cancel := e.outlive(ctx)
	done := make(chan error, 1)
	e.goes(func() {
		defer cancel()
		done <- work(long)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until is a context that ends with ctx or with the engine, whichever is first.
func (e *Engine) until(ctx context.Context) (context.Context, context.CancelFunc) {
	short, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.life, cancel)
	return short, func() { stop(); cancel() }
}

// cleaning bounds the cleaning after one run.
const cleaning = time.Minute

// tidy is a context for cleaning, which goes on while the engine closes.
func tidy(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleaning)
}

// driver returns the driver of an environment's stratum. Kinds: Unable.
func (e *Engine) driver(en *entry) (stratum.Driver, error) {
	name := en.snapshot().Stratum
	if d := e.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fault.Unablef("environment %s is at stratum %s, which this strata does not serve", en.name(), name)
}

// strata returns the strata that are served, shallowest first.
func (e *Engine) strata() []string {
	var all []string
	for _, d := range e.o.Drivers {
		all = append(all, d.Stratum())
	}
	return all
}

// entries returns every environment that can be seen.
func (e *Engine) entries() []*entry {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]*entry, 0, len(e.ids))
	for _, en := range e.ids {
		if en.visible() {
			all = append(all, en)
		}
	}
	return all
}

// save writes the record as it is now, unless the environment is going.
func (e *Engine) save(en *entry) error {
	en.saving.Lock()
	defer en.saving.Unlock()
	en.mu.Lock()
	rec, going := en.rec, en.state.Going()
	en.mu.Unlock()
	if going {
		return nil
	}
	return e.store.Write(rec, care(rec, store.Whole))
}

// saveSoon writes the record in the background: for facts that a new daemon finds
// out by itself.
func (e *Engine) saveSoon(en *entry) {
	e.goes(func() { e.saved(en) })
}

// saved writes the record where nobody can be told that it failed.
func (e *Engine) saved(en *entry) {
	if err := e.save(en); err != nil {
		e.log.Error("record not written", "id", en.id(), "error", err)
	}
}

// discard moves an environment's folder to the trash and empties it.
func (e *Engine) discard(id string) error {
	trashed, err := e.store.Trash(id, store.Fleeting)
	if err != nil {
		if fault.Is(err, fault.Missing) {
			return nil
		}
		return err
	}
	e.goes(func() { e.empty(trashed) })
	return nil
}

// empty deletes one folder of the trash; what is left is the next Open's.
func (e *Engine) empty(trashed string) {
	if err := e.o.Pool.Remove(filepath.Join(trashed, diskName)); err != nil {
		e.log.Debug("disk in the trash not removed", "path", trashed, "error", err)
	}
	if err := e.store.Delete(trashed); err != nil {
		e.log.Warn("trash not emptied", "path", trashed, "error", err)
	}
}
