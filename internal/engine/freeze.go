package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// A clone of a foreign system copies nothing. What its disk holds is frozen: the file
// becomes a base, in a folder of the state's own, that is only read from then on, and both
// the system and its clone go on in an empty image each that lies over it. Records name
// their bases, the highest first; a base that none names any more is removed.
//
// The steps of a freeze: an empty image is made beside the disk (nextDisk); the disk gets a
// second name, as a base; the record names that; the empty image replaces the disk. A
// daemon that finds a record whose disk is still its base does the last step, and a base
// that no record names is swept.

const (
	basesDir = "bases"      // of the state folder
	nextDisk = "next.qcow2" // beside the disk, which it is to replace
	baseTail = ".qcow2"
)

func (e *Engine) basePath(id string) string {
	return filepath.Join(e.o.Places.State, basesDir, id+baseTail)
}

// bases are the paths of what a foreign system's disk lies over, the highest first.
func (e *Engine) bases(rec environment.Record) (all []string) {
	for _, id := range rec.Bases {
		all = append(all, e.basePath(id))
	}
	return all
}

// freeze has what the disk of en holds become a base, unless nothing has been written
// since the last time; en is locked, and does not run. size is the disk's.
func (e *Engine) freeze(ctx context.Context, en *entry, host stratum.Hoster) (size unit.Size, err error) {
	rec := en.snapshot()
	path, next := e.diskOf(rec), filepath.Join(e.store.Dir(rec.ID), nextDisk)
	if err := e.frozen(rec); err != nil {
		return 0, err
	}
	if size, err = host.DiskSize(path); err != nil {
		return 0, err
	}
	if len(rec.Bases) > 0 && !rec.Written {
		return size, nil
	}
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fault.Internalf("remove an image that was not used: %w", err)
	}
	if err := host.EmptyDisk(ctx, e.planForeign(rec), next, size); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Join(e.o.Places.State, basesDir), 0o700); err != nil {
		return 0, fault.Internalf("make the folder of bases: %w", err)
	}
	base := environment.NewID()
	if err := os.Link(path, e.basePath(base)); err != nil {
		return 0, fault.Internalf("freeze the disk: %w", err)
	}
	en.do(func() { en.rec.Bases, en.rec.Written = append([]string{base}, rec.Bases...), false })
	if err := e.save(en); err != nil {
		en.do(func() { en.rec.Bases, en.rec.Written = rec.Bases, rec.Written })
		return 0, errors.Join(err, os.Remove(e.basePath(base)))
	}
	return size, e.frozen(en.snapshot())
}

// frozen does the last step of a freeze, where it was not done.
func (e *Engine) frozen(rec environment.Record) error {
	if len(rec.Bases) == 0 {
		return nil
	}
	disk, base := e.diskOf(rec), e.basePath(rec.Bases[0])
	have, err := os.Stat(disk)
	if err != nil {
		return fault.Internalf("look at the disk: %w", err)
	}
	if !same(have, base) {
		return nil
	}
	if err := os.Rename(filepath.Join(filepath.Dir(disk), nextDisk), disk); err != nil {
		return fault.Internalf("freeze the disk: %w", err)
	}
	return nil
}

// sweepBases removes the bases that no record names. No clone is being made. Where a
// record says nothing at all none is removed, as it may have named any.
func (e *Engine) sweepBases() {
	if e.blind {
		return
	}
	e.freezing.Lock()
	defer e.freezing.Unlock()
	found, err := os.ReadDir(filepath.Join(e.o.Places.State, basesDir))
	if err != nil {
		return // there is none
	}
	named := map[string]bool{}
	e.mu.RLock()
	for _, en := range e.ids { // those whose record cannot be used as well
		for _, id := range en.snapshot().Bases {
			named[id] = true
		}
	}
	e.mu.RUnlock()
	for _, f := range found {
		id, _ := strings.CutSuffix(f.Name(), baseTail)
		if named[id] {
			continue
		}
		if err := os.Remove(e.basePath(id)); err != nil {
			e.log.Warn("a base that nobody uses is not removed", "base", id, "error", err)
		}
	}
}

// finishFreezes does the last step of what a daemon before this one was killed in.
func (e *Engine) finishFreezes() {
	for _, en := range e.entries() {
		if rec := en.snapshot(); rec.Spec.Foreign != nil {
			if err := e.frozen(rec); err != nil {
				e.log.Error("a disk is not whole", "id", rec.ID, "error", err)
			}
		}
	}
}

// cloneDisk gives rec, a clone of from, its disk. e.freezing is held.
func (e *Engine) cloneDisk(ctx context.Context, from *entry, rec *environment.Record) error {
	source := from.snapshot()
	if source.Spec.Foreign == nil {
		return e.o.Pool.Clone(ctx, e.diskOf(source), e.diskOf(*rec))
	}
	if has, _ := environment.ForeignDisk(source.Spec); !has {
		return nil
	}
	host, ok := e.drivers[source.Stratum].(stratum.Hoster)
	if !ok {
		return fault.Unablef("stratum %s of this strata runs no foreign systems", source.Stratum)
	}
	size, err := e.freeze(ctx, from, host)
	if err != nil {
		return err
	}
	rec.Bases, rec.Written = slices.Clone(from.snapshot().Bases), false
	return host.EmptyDisk(ctx, e.planForeign(*rec), e.diskOf(*rec), size)
}
