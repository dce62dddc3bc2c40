package engine

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/store"
)

// Remove removes an environment with its disk and log. With force, one that runs
// is killed first. When it returns the name is free; what takes time is deleted in
// the background. Kinds: Missing, Conflict (it runs), Busy.
func (e *Engine) Remove(ctx context.Context, ref string, force bool) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if force {
		en.mu.Lock()
		if en.copying != nil {
			en.copying()
		}
		en.mu.Unlock()
		err = en.lockOver(ctx, false)
	} else {
		err = en.lock(ctx)
	}
	if err != nil {
		return err
	}
	defer en.unlock()
	if force {
		if err := e.down(ctx, en); err != nil {
			return fault.Wrap(err, "remove %s", en.name())
		}
	}
	en.mu.Lock()
	going := en.state.Going()
	en.mu.Unlock()
	if going {
		return nil // it was to be removed when it ended, and it ended
	}
	return e.remove(ctx, en)
}

// down ends whatever of an environment runs or waits. It is called with the
// operation lock held.
func (e *Engine) down(ctx context.Context, en *entry) error {
	en.mu.Lock()
	r, paused := en.run, en.state == environment.Paused
	if r != nil {
		r.final, r.keep = true, false
	}
	if en.state == environment.Waiting {
		close(en.waiting)
		en.waiting = nil
		en.state, _ = en.state.Next(environment.Stop)
		en.wake()
	}
	en.mu.Unlock()
	if r == nil {
		return nil
	}
	return killRun(ctx, r, paused)
}

// remove removes an environment that does not run, with the operation lock held.
func (e *Engine) remove(ctx context.Context, en *entry) error {
	if err := en.move(environment.Remove, nil); err != nil {
		return err
	}
	return e.vanish(ctx, en, false)
}

// vanish takes away an environment that is Removing. The rename into the trash is
// the moment from which on it does not exist. dirty tells that a run of it was
// not cleaned yet.
func (e *Engine) vanish(ctx context.Context, en *entry, dirty bool) error {
	rec := en.snapshot()
	en.saving.Lock() // no record is written into a folder that goes
	trashed, err := e.store.Trash(rec.ID, care(rec, store.Lasting))
	en.saving.Unlock()
	if err != nil && !fault.Is(err, fault.Missing) {
		_ = en.move(environment.Keep, nil)
		return fault.Wrap(err, "remove %s", rec.Name)
	}
	if dirty {
		e.disconnect(ctx, rec)
	}
	for _, l := range rec.Links() {
		if err := e.o.Network.Release(context.WithoutCancel(ctx), l.Key); err != nil {
			e.log.Warn("address not released", "id", rec.ID, "error", err)
		}
	}
	e.unlist(en)
	_ = en.move(environment.Vanish, nil) // from Removing it is always legal
	e.release(en)                        // it may have waited for room
	e.tell(ctx, en, "destroy")
	long := context.WithoutCancel(ctx)
	e.goes(func() {
		if dirty {
			e.cleanRun(long, en, environment.Record{ID: rec.ID})
		}
		e.ranges.give(rec.IDBase)
		if trashed != "" {
			e.empty(trashed)
		}
		if len(rec.Bases) > 0 {
			e.sweepBases()
		}
	})
	return nil
}

// Rename gives an environment another name. Kinds: Missing, Invalid, Conflict.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	if err := environment.CheckName(name, "name"); err != nil {
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
	before := en.snapshot()
	old := before.Name
	if old == name {
		return nil
	}
	if err := e.takeName(en, name); err != nil {
		return err
	}
	if err := e.renamed(ctx, en, name); err != nil {
		en.do(func() { en.rec.Name, en.rec.Resolved = old, before.Resolved })
		for _, l := range before.Links() {
			_ = e.o.Network.Rename(context.WithoutCancel(ctx), l.Key, old) // tolerated: the record counts
		}
		e.freeName(en, name)
		return fault.Wrap(err, "rename %s", old)
	}
	e.freeName(en, old)
	e.tell(ctx, en, "rename", "old_name", old)
	return nil
}

// takeName holds a further name for an environment. Kinds: Conflict.
func (e *Engine) takeName(en *entry, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other := e.names[name]; other != nil {
		return other.taken(name)
	}
	if e.ids[en.id()] != en {
		return fault.Missingf("environment %s was removed", en.id())
	}
	e.names[name] = en
	return nil
}

func (e *Engine) freeName(en *entry, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names[name] == en {
		delete(e.names, name)
	}
}

// renamed writes the new name down, and tells the network. The host name inside
// changes with the next start where it was the name.
func (e *Engine) renamed(ctx context.Context, en *entry, name string) error {
	var rec environment.Record
	en.do(func() {
		old := en.rec.Name
		en.rec.Name = name
		if en.rec.Spec.Hostname == "" && en.rec.Resolved.Hostname == old {
			en.rec.Resolved.Hostname = name
			en.rec.Resolved.Env = environment.MergeEnv(en.rec.Resolved.Env, []string{"HOSTNAME=" + name})
		}
		rec = en.rec
	})
	for _, l := range rec.Links() {
		if err := e.o.Network.Rename(ctx, l.Key, name); err != nil {
			return err
		}
	}
	return e.save(en)
}

// Wait waits for a condition and returns how the last run ended:
//
//	"" or "stopped"  it neither runs nor is about to; at once where that is so
//	"next-exit"      a run ends after this call, but for one that a move leaves
//	"removed"        it is gone
//
// Kinds: Missing, Invalid (condition), Busy where ctx's deadline passes.
func (e *Engine) Wait(ctx context.Context, ref, condition string) (api.Exit, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Exit{}, err
	}
	en.mu.Lock()
	ends := en.ends
	en.mu.Unlock()
	var met func() bool
	switch condition {
	case "", "stopped":
		met = func() bool { return !en.state.Active() && en.rec.Moving == nil && en.restarting == 0 }
	case "next-exit":
		met = func() bool { return en.ends > ends || en.state == environment.Gone }
	case "removed":
		met = func() bool { return en.state == environment.Gone }
	default:
		return api.Exit{}, fault.Invalidf("%q is not a condition", condition).At("condition").Help("use stopped, next-exit or removed")
	}
	short, cancel := e.until(ctx)
	defer cancel()
	if err := en.until(short, met); err != nil {
		if e.life.Err() != nil {
			return api.Exit{}, e.open()
		}
		return api.Exit{}, fault.Wrap(err, "wait for %s", en.name())
	}
	rec := en.snapshot()
	if rec.Exit == nil {
		return api.Exit{}, nil
	}
	return *rec.Exit, nil
}

// DestroyAll removes every environment, running or not, and everything of this
// root on the host: layer mounts, networks, control groups. Templates stay on
// disk. The engine can be used afterwards.
func (e *Engine) DestroyAll(ctx context.Context) error {
	if !e.resetting.CompareAndSwap(false, true) {
		return fault.Busyf("everything is being removed already")
	}
	defer e.resetting.Store(false)
	var bad []error
	failed := make(chan error)
	all := e.entries()
	slots := make(chan struct{}, atOnce)
	for _, en := range all {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := e.Remove(ctx, en.id(), true)
			if fault.Is(err, fault.Missing) {
				err = nil // somebody else removed it
			}
			failed <- err
		}()
	}
	for range all {
		bad = append(bad, <-failed)
	}
	bad = append(bad, e.settleDown(ctx))
	if e.o.Layers != nil {
		bad = append(bad, e.o.Layers.UnmountAll(ctx))
	}
	bad = append(bad, e.o.Network.Destroy(ctx))
	for _, d := range e.o.Drivers {
		if all, ok := d.(interface{ Destroy(context.Context) error }); ok {
			bad = append(bad, all.Destroy(ctx))
		}
	}
	return fault.Join(bad...)
}

// settleDown waits until background cleaning is through: until no driver has
// anything of a run, and the trash is empty.
func (e *Engine) settleDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleaning)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, d := range e.o.Drivers {
			runs, err := d.Runs(ctx)
			if err != nil {
				return err
			}
			left += len(runs)
		}
		trash, err := e.store.Trashed()
		if err != nil {
			return err
		}
		if left+len(trash) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.Busyf("%d runs and %d folders are still being cleaned", left, len(trash))
		case <-tick.C:
		}
	}
}
