package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/store"
	"github.com/strata-project/strata/internal/stratum"
)

// atOnce bounds how many environments are adopted or removed at the same time.
const atOnce = 16

// Open takes the state folder, loads every record, and makes the host and the
// records agree: it adopts what runs, finishes or undoes what an earlier daemon
// left half-made, and starts what a restart policy wants to run. ctx bounds the
// opening only. Kinds: Conflict where another daemon has the state folder.
func Open(ctx context.Context, o Options) (_ *Engine, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Claims == "" {
		o.Claims = DefaultClaims
	}
	if o.Logs == nil {
		o.Logs = ReadLogs
	}
	lock, err := store.Lock(o.Places.State, fmt.Sprintf("process %d, socket %s", os.Getpid(), o.Places.Socket))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	e := &Engine{
		o: o, log: o.Log, lockf: lock, started: time.Now(), drivers: map[string]stratum.Driver{},
		ids: map[string]*entry{}, names: map[string]*entry{}, ports: ports{}, policy: make(chan struct{}, atOnce), first: make(chan struct{}, 1), prices: newPrices(filepath.Join(o.Places.State, pricesName)),
		book: admission.New(o.Host),
	}
	e.overhead = e.overheads()
	e.sampler.tracks = map[string]*track{}
	for _, d := range o.Drivers {
		e.drivers[d.Stratum()] = d
	}
	if e.store, err = store.Open(o.Places.State); err != nil {
		return nil, err
	}
	if e.ranges, err = newRanges(o.Claims, o.Places.State, o.Places.Tag, "/etc/subuid", "/etc/subgid"); err != nil {
		return nil, err
	}
	e.life, e.end = context.WithCancel(context.Background())
	if err := e.reconcile(ctx); err != nil {
		e.end()
		e.group.Wait()
		return nil, err
	}
	return e, nil
}

// Close ends the engine. Environments keep running; the next engine adopts them.
func (e *Engine) Close(ctx context.Context) error {
	e.end()
	e.going.Lock()
	e.ending = true
	e.going.Unlock()
	done := make(chan struct{})
	go func() {
		e.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "close the engine")
	}
	return e.lockf.Close()
}

// reconcile makes memory, records and host agree. Its steps stand in the
// package's comment.
func (e *Engine) reconcile(ctx context.Context) error {
	rebooted, err := e.rebooted()
	if err != nil {
		return err
	}
	unreadable, err := e.load(ctx)
	if err != nil {
		return err
	}
	runs, err := e.runs(ctx)
	if err != nil {
		return err
	}
	unknown := map[string]stratum.Driver{}
	for id, d := range runs {
		switch {
		case !unreadable[id] && e.ids[id] == nil:
			unknown[id] = d
		case unreadable[id] && e.ids[id] != nil:
			e.book.Restore(e.claimOf(e.ids[id].rec))
		}
	}
	lost := e.keepRanges()
	e.finishFreezes()
	e.goes(e.sweepBases)
	inParallel(e.entries(), func(en *entry) { e.recover(ctx, en, runs[en.id()], rebooted) })
	inParallel(e.entries(), func(en *entry) { e.settleDevices(ctx, en) })
	e.cleanUnknown(ctx, unknown)
	e.openOutside() // when what runs has its claims again
	e.shareAll()
	e.otherRanges(lost)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.o.Network.Sync(ctx, e.running()); err != nil {
		// What runs must not be without a daemon.
		e.log.Error("networks not restored", "error", err)
		e.goes(e.syncLate)
	} else {
		e.leaseAgain()
	}
	trash, err := e.store.Trashed()
	if err != nil {
		return err
	}
	for _, path := range trash {
		e.goes(func() { e.empty(path) })
	}
	for _, en := range e.entries() {
		e.resume(en)
	}
	e.goes(e.prepare)
	e.goes(e.sampling)
	if e.o.Kills != nil {
		e.goes(e.watchKills)
	}
	if w, ok := e.o.Network.(Watcher); ok {
		e.goes(func() { w.Watch(e.life, e.linkLost) })
	}
	e.goes(e.reclaiming)
	e.goes(func() {
		if err := e.ranges.sweep(); err != nil {
			e.log.Debug("claims of id ranges not swept", "error", err)
		}
	})
	return e.noteBoot()
}

// syncLate has networks restored that could not be when the daemon started, and tries until
// they are. Whoever starts meanwhile has it done, too.
func (e *Engine) syncLate() {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		select {
		case <-e.life.Done():
			return
		case <-time.After(wait):
		}
		if err := e.o.Network.SyncLate(e.life); err != nil {
			e.log.Debug("networks still not restored", "error", err)
			continue
		}
		e.leaseAgain()
		return
	}
}

// linkLost tells of an environment that runs and has lost its link, or an attached card's.
func (e *Engine) linkLost(key string) {
	for _, en := range e.entries() {
		en.mu.Lock()
		rec, runs := en.rec, en.run != nil
		en.mu.Unlock()
		for _, l := range rec.Links() {
			if l.Key == key && runs {
				e.tell(e.life, en, "network_lost", "text", "its link on the host was removed; `strata restart "+rec.Name+"` gives it another", "network", l.Address.Network)
			}
		}
	}
}

// running is what the network must know of what was adopted.
func (e *Engine) running() map[string]Running {
	all := map[string]Running{}
	for _, en := range e.entries() {
		en.mu.Lock()
		if en.run != nil {
			all[en.rec.ID] = Running{en.run.live.PID(), en.rec.Stratum != stratum.Zone, en.rec.Address, en.rec.Spec.Ports, rateOf(en.rec.Spec.Resources)}
			for _, l := range en.rec.Links() {
				if l.Key != en.rec.ID { // an attached card
					all[l.Key] = Running{PID: en.run.live.PID(), Tap: true, Address: l.Address, Rate: rateOf(en.rec.Spec.Resources)}
				}
			}
		}
		en.mu.Unlock()
	}
	for _, en := range e.aside() { // what is there of theirs stays
		for _, l := range en.rec.Links() {
			r := Running{Tap: true, Address: l.Address, Rate: rateOf(en.rec.Spec.Resources)}
			if l.Key == en.rec.ID {
				r.Tap, r.Ports = en.rec.Stratum != stratum.Zone, en.rec.Spec.Ports
			}
			all[l.Key] = r
		}
	}
	return all
}

// aside returns those whose record cannot be used.
func (e *Engine) aside() (all []*entry) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, en := range e.ids {
		if en.aside {
			all = append(all, en)
		}
	}
	return all
}

// bootFile keeps the id of the boot that the records are of.
const bootFile = "boot"

// bootID names this boot of the host. Source: random(4).
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// rebooted tells whether the host was rebooted since an engine last had the state.
func (e *Engine) rebooted() (bool, error) {
	id, err := bootID()
	if err != nil {
		return false, fmt.Errorf("read the boot id: %w", err)
	}
	kept, err := os.ReadFile(filepath.Join(e.o.Places.State, bootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && strings.TrimSpace(string(kept)) != id, err
}

// noteBoot is the last step of opening: a daemon that is killed before it finds
// the reboot again.
func (e *Engine) noteBoot() error {
	id, err := bootID()
	if err != nil {
		return err
	}
	path := filepath.Join(e.o.Places.State, bootFile)
	if kept, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(kept)) == id {
		return nil
	}
	return replaceFile(path, []byte(id+"\n"))
}

// replaceFile writes a file that is whole at every moment, and is not synced: nothing depends
// on it.
func replaceFile(path string, text []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// load reads the records into memory. It returns the ids whose record cannot be
// read: those are left alone, and keep what they are known to have.
func (e *Engine) load(ctx context.Context) (map[string]bool, error) {
	found, err := e.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	unreadable := map[string]bool{}
	var aside []environment.Record
	for _, f := range found {
		switch {
		case fault.Is(f.Err, fault.Missing): // a create that was not finished
			if err := e.discard(f.ID); err != nil {
				return nil, err
			}
			continue
		case f.Err != nil:
			e.log.Error("record not read, environment left alone", "id", f.ID, "error", f.Err)
			unreadable[f.ID] = true
			aside = append(aside, f.Record)
			continue
		}
		e.admit(f.Record)
	}
	for _, rec := range aside { // they get what no other has by now
		e.setAside(rec)
	}
	return unreadable, nil
}

// setAside has nobody else get what an environment has whose record cannot be used: rec is
// what could be read of that.
func (e *Engine) setAside(rec environment.Record) {
	if rec.ID == "" {
		e.blind = true
		return
	}
	e.keepAddresses(rec)
	en := newEntry(rec, environment.Stopped)
	en.hidden, en.aside = true, true
	e.ids[rec.ID] = en
	if e.names[rec.Name] == nil {
		e.names[rec.Name] = en
	}
}

// admit takes a record into memory, with its name, range and address.
func (e *Engine) admit(rec environment.Record) {
	if other := e.names[rec.Name]; other != nil { // a rename was interrupted by a loss of power
		rec.Name = rec.Name[:min(len(rec.Name), 50)] + "-" + rec.ID
	}
	state := environment.Stopped
	if rec.Phase == environment.PhaseCreated || rec.Phase == environment.PhaseCopying {
		state = environment.Made
	}
	if rec.Phase == environment.PhaseSuspended {
		state = environment.Suspended
	}
	e.keepAddresses(rec)
	en := newEntry(rec, state)
	e.ids[rec.ID], e.names[rec.Name] = en, en
}

func (e *Engine) keepAddresses(rec environment.Record) {
	for _, l := range rec.Links() {
		if err := e.o.Network.Reserve(l.Key, rec.Name, l.Address); err != nil {
			e.log.Error("address not reserved", "id", rec.ID, "address", l.Address.IPv4, "error", err)
		}
	}
}

// keepRanges takes the id ranges that records have, and returns whose range
// another root has meanwhile.
func (e *Engine) keepRanges() (lost []*entry) {
	for _, en := range e.entries() {
		if !e.ranges.keep(en.snapshot().IDBase) {
			lost = append(lost, en)
		}
	}
	for _, en := range e.aside() {
		e.ranges.keep(en.rec.IDBase) // tolerated: one that another has is not ours to change
	}
	return lost
}

// otherRanges gives those environments other ranges: owners on disk are not
// shifted, so any will do. What runs keeps the one it runs with.
func (e *Engine) otherRanges(lost []*entry) {
	for _, en := range lost {
		en.mu.Lock()
		live := en.run != nil
		en.mu.Unlock()
		base, err := uint32(0), error(nil)
		if !live {
			base, err = e.ranges.take()
		}
		if live || err != nil {
			e.log.Error("id range of environment is another root's", "id", en.id(), "error", err)
			continue
		}
		en.do(func() { en.rec.IDBase = base })
		e.saved(en)
	}
}

// runs returns which ids have anything of a run on the host, with their driver.
func (e *Engine) runs(ctx context.Context) (map[string]stratum.Driver, error) {
	all := map[string]stratum.Driver{}
	for _, d := range e.o.Drivers {
		ids, err := d.Runs(ctx)
		if err != nil {
			return nil, fault.Wrap(err, "find what runs at stratum %s", d.Stratum())
		}
		for _, id := range ids {
			// Another stratum may have kept something that could not be cleaned when it moved.
			if en := e.ids[id]; all[id] == nil || en != nil && en.snapshot().Stratum == d.Stratum() {
				all[id] = d
			}
		}
	}
	return all, nil
}

func inParallel(all []*entry, do func(*entry)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, en := range all {
		group.Add(1)
		slots <- struct{}{}
		go func() {
			defer group.Done()
			defer func() { <-slots }()
			do(en)
		}()
	}
	group.Wait()
}
