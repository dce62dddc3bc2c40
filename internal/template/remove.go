package template

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// resumeFor is how long a download that was broken off can be resumed.
const resumeFor = 24 * time.Hour

// Remove removes the template that ref names, or only that name where the
// template has others and all does not say so. used returns the names of the environments made of a
// template; it is called without any lock held. freed is in bytes.
// Kinds: Get's, Conflict while environments use it, Busy while a Use holds it.
func (s *Store) Remove(ref string, all bool, used func(id string) []string) (freed int64, err error) {
	s.mu.Lock()
	r, name, err := s.find(ref)
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	t := s.view(r)
	if name != "" && len(t.Names) > 1 && !all {
		defer s.mu.Unlock()
		return 0, s.dropName(name)
	}
	s.mu.Unlock()
	return s.removeUnused(t, used)
}

// removeUnused removes a template that nothing uses. No lock is held while used
// runs: the mark in going keeps a Use from starting meanwhile.
func (s *Store) removeUnused(t Template, used func(id string) []string) (int64, error) {
	s.mu.Lock()
	if s.held[t.ID] > 0 || s.going[t.ID] {
		s.mu.Unlock()
		return 0, fault.Busyf("template %s is being used or removed right now", refOf(t)).Help("try again")
	}
	if s.records[t.ID] == nil {
		s.mu.Unlock()
		return 0, fault.Missingf("there is no template %q any more", refOf(t))
	}
	s.going[t.ID] = true
	s.mu.Unlock()
	var users []string
	if used != nil {
		users = used(t.ID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.going, t.ID)
	if len(users) > 0 {
		slices.Sort(users)
		return 0, fault.Conflictf("template %s is in use by %s", refOf(t), strings.Join(users, ", ")).
			Help("remove what uses it first: `strata rm %s`", strings.Join(users, " "))
	}
	if now := s.view(s.records[t.ID]); !slices.Equal(now.Names, t.Names) {
		return 0, fault.Busyf("the names of template %s are being changed right now", refOf(now)).Help("try again")
	}
	freed, err := s.drop(t.ID)
	return freed, fault.Wrap(err, "remove template %s", refOf(t))
}

// drop removes a template and what only it had. Its names are written off last: that takes
// room, which a full disk has only then, and Open passes over a name that leads nowhere. Under mu.
func (s *Store) drop(id string) (freed int64, err error) {
	names := s.view(s.records[id]).Names
	if err := os.Remove(s.recordPath(id)); err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	delete(s.records, id)
	for _, name := range names {
		delete(s.names, name)
	}
	if err := syncPath(filepath.Join(s.dir, recordDir)); err != nil {
		return 0, err
	}
	freed = s.sweep()
	if len(names) == 0 {
		return freed, nil
	}
	return freed, s.saveNames()
}

// dropName takes one of several names away from a template. Under mu.
func (s *Store) dropName(name string) error {
	id := s.names[name]
	delete(s.names, name)
	err := s.saveNames()
	if err != nil {
		s.names[name] = id
	}
	return err
}

// Prune removes the templates that no environment uses and that have no name, or
// all unused ones where all says so, and downloads that nobody resumed in a day
// (with all: every one that is not under way). It returns what was removed, by
// name or id, and the bytes freed. Kinds: Internal, Busy where the disk is full.
func (s *Store) Prune(used func(id string) []string, all bool) (removed []string, freed int64, err error) {
	for _, t := range s.List() {
		if len(t.Names) > 0 && !all {
			continue
		}
		n, err := s.removeUnused(t, used)
		freed += n
		switch kind := fault.KindOf(err); {
		case err == nil:
			removed = append(removed, refOf(t))
		case kind != fault.Conflict && kind != fault.Missing && kind != fault.Busy, isFull(err):
			return removed, freed, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	age := resumeFor
	if all {
		age = 0
	}
	return removed, freed + s.expire(age) + s.sweep(), nil
}

// unpin takes one pin of a file away. Under mu.
func (s *Store) unpin(path string) {
	if s.pins[path]--; s.pins[path] <= 0 {
		delete(s.pins, path)
	}
}

// sweep removes layers and blobs that no template has and no work counts on, and
// returns how many bytes that freed. A file that cannot be removed stays for the
// next sweep. Under mu.
func (s *Store) sweep() (freed int64) {
	if s.unread {
		return 0
	}
	keep := map[string]bool{}
	diffs := map[string]bool{}
	for _, r := range s.records {
		for _, l := range r.Template.Layers {
			keep[s.layerPath(l.Digest)] = true
			diffs[l.DiffID] = true
		}
		keep[s.wholePath(wholeDigest(distinct(r.Template.Layers)))] = true
		for _, d := range append([]string{r.Manifest, r.Template.ID}, r.Blobs...) {
			keep[s.blobPath(d)] = true
		}
	}
	for diffID, l := range s.layers {
		if diffs[diffID] || s.pins[s.notePath(diffID)] > 0 {
			keep[s.notePath(diffID)] = true
			keep[s.layerPath(l.Digest)] = true
		} else {
			delete(s.layers, diffID)
		}
	}
	for _, dir := range []string{blobDir, layerDir, wholeDir} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if err != nil {
			s.log.Debug("template sweep", "dir", dir, "err", err)
			continue
		}
		for _, e := range entries {
			path := filepath.Join(s.dir, dir, e.Name())
			if keep[path] || s.pins[path] > 0 || strings.HasPrefix(e.Name(), temporary) {
				continue
			}
			freed += s.discard(path)
		}
	}
	return freed
}

// expire removes downloads that nobody has touched for longer than age. Under mu.
func (s *Store) expire(age time.Duration) (freed int64) {
	entries, err := os.ReadDir(filepath.Join(s.dir, downloadDir))
	if err != nil {
		s.log.Debug("template downloads", "err", err)
		return 0
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, downloadDir, e.Name())
		info, err := e.Info()
		if err != nil || s.pins[path] > 0 || time.Since(info.ModTime()) < age {
			continue
		}
		freed += s.discard(path)
	}
	return freed
}

func (s *Store) discard(path string) int64 {
	info, err := os.Stat(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		s.log.Debug("template file stays until the next sweep", "path", path, "err", err)
		return 0
	}
	return info.Size()
}
