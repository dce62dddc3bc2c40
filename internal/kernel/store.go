package kernel

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keyed"
	"github.com/strata-project/strata/internal/unit"
)

// The files of a store; see the package's comment.
const (
	recordFile   = "record.json"
	vmlinuxFile  = "vmlinux"
	modulesDir   = "modules"
	moduleTail   = ".ko"
	initramfsDir = "initramfs"
	downloadDir  = "download"
	defaultFile  = "default"
	workDir      = "work"
	temporary    = ".tmp-"
)

// recordVersion is the version of the records that are written.
const recordVersion = 1

// maxRecord bounds a record that is read. Unit: bytes.
const maxRecord = 8 * unit.MiB

// Store keeps the kernels of one strata root. It is safe for concurrent use; one
// process may have one store of a folder.
type Store struct {
	dir    string
	log    *slog.Logger
	agents agents
	making keyed.Locks

	mu      sync.Mutex // guards what follows, and the files record.json and default
	kernels map[string]*Kernel
	chosen  string // id of the default one; "": none was chosen
}

// record is a kernel as it is kept.
type record struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Release string    `json:"release"`
	Arch    string    `json:"arch"`
	Source  string    `json:"source"`
	Origin  string    `json:"origin"`
	Size    int64     `json:"size"`
	Added   time.Time `json:"added"`
	Vmlinux string    `json:"vmlinux"` // its digest
	Modules []module  `json:"modules"` // by name
	BuiltIn builtin   `json:"built_in"`
}

// Open returns the store in dir, which is made where it is missing. What an
// earlier process left half-made is removed. log may be nil. Kinds: Internal.
func Open(dir string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{dir: dir, log: log, kernels: map[string]*Kernel{}}
	if err := s.open(); err != nil {
		return nil, fault.Wrap(err, "open the store of kernels")
	}
	return s, nil
}

func (s *Store) open() error {
	if err := os.RemoveAll(filepath.Join(s.dir, workDir)); err != nil {
		return err
	}
	for name, mode := range map[string]fs.FileMode{"": 0o755, initramfsDir: 0o755, downloadDir: 0o755, workDir: 0o700} {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
			return err
		}
	}
	if err := s.downloads().expire(time.Now().Add(-resumeFor)); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), temporary):
			err = os.RemoveAll(filepath.Join(s.dir, e.Name()))
		case e.IsDir() && isID(idPrefix+e.Name()):
			s.load(idPrefix + e.Name())
		}
		if err != nil {
			return err
		}
	}
	left, err := filepath.Glob(filepath.Join(s.dir, initramfsDir, temporary+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(s.dir, defaultFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if id := strings.TrimSpace(string(text)); s.kernels[id] != nil {
		s.chosen = id
	}
	s.tidy()
	return nil
}

// load reads one record. One that cannot be read is left where it is, and said
// so: one damaged kernel must not stop the others.
func (s *Store) load(id string) {
	dir := s.folder(id)
	r, err := readRecord(filepath.Join(dir, recordFile))
	if err == nil && (r.Version != recordVersion || r.ID != id || checkName(r.Name) != nil) {
		err = errors.New("it is of another version, or damaged")
	}
	if err != nil {
		s.log.Warn("kernel is left out", "path", dir, "error", err)
		return
	}
	s.kernels[id] = r.kernel(dir)
}

func readRecord(path string) (record, error) {
	var r record
	info, err := os.Stat(path)
	if err != nil {
		return r, err
	}
	if info.Size() > maxRecord {
		return r, errors.New("its record is too large")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

func (r record) kernel(dir string) *Kernel {
	k := &Kernel{
		ID: r.ID, Name: r.Name, Release: r.Release, Arch: r.Arch, Source: r.Source, Origin: r.Origin, Size: r.Size, Added: r.Added,
		Modules: len(r.Modules), dir: dir, index: map[string]module{}, built: r.BuiltIn,
	}
	for _, m := range r.Modules {
		k.index[m.Name] = m
	}
	return k
}

func (s *Store) folder(id string) string {
	return filepath.Join(s.dir, strings.TrimPrefix(id, idPrefix))
}

func (s *Store) downloads() downloads {
	return downloads{filepath.Join(s.dir, downloadDir), s.making.Lock}
}

// Dir returns the store's folder.
func (s *Store) Dir() string { return s.dir }

// List returns every kernel, the newest first.
func (s *Store) List() []Kernel {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Kernel, 0, len(s.kernels))
	fallback := s.fallback()
	for _, k := range s.kernels {
		all = append(all, view(k, fallback))
	}
	slices.SortFunc(all, func(a, b Kernel) int {
		return cmp.Or(b.Added.Compare(a.Added), strings.Compare(a.ID, b.ID))
	})
	return all
}

func view(k *Kernel, fallback string) Kernel {
	v := *k
	v.Default = k.ID == fallback
	return v
}

// fallback is the default one: the chosen, else the newest. Under mu.
func (s *Store) fallback() string {
	if s.kernels[s.chosen] != nil {
		return s.chosen
	}
	var newest *Kernel
	for _, k := range s.kernels {
		if newest == nil || k.Added.After(newest.Added) {
			newest = k
		}
	}
	if newest == nil {
		return ""
	}
	return newest.ID
}

// Get returns the kernel that ref names: a name, a release, an id or its first 4
// or more digits; "" names the default one. Kinds: Missing, Invalid where it is
// ambiguous, Unable where the kernel's files are damaged.
func (s *Store) Get(ref string) (Kernel, error) {
	s.mu.Lock()
	k, err := s.find(ref)
	if err != nil {
		s.mu.Unlock()
		return Kernel{}, err
	}
	v := view(k, s.fallback())
	s.mu.Unlock()
	if _, err := os.Stat(v.Vmlinux()); err != nil {
		return Kernel{}, fault.Unablef("kernel %s is damaged: its file is gone", v.Name).
			Help("remove it with `strata kernel rm %s`, and add it again: it came from %s", v.Name, v.Source)
	}
	return v, nil
}

// GetFor is Get of a kernel that has what w requires: where ref is "", the newest one
// that has where the default one has not. Kinds: Get's, and Unable where the kernel
// that is named lacks something.
func (s *Store) GetFor(ref string, w Wanted) (Kernel, error) {
	k, err := s.Get(ref)
	if err == nil {
		_, err = k.Set(w)
	}
	if err == nil || ref != "" || k.ID == "" && !fault.Is(err, fault.Missing) {
		return k, err
	}
	for _, other := range s.List() {
		if _, e := other.Set(w); e == nil {
			return s.Get(other.ID)
		}
	}
	words := ""
	if k.ID != "" {
		words = ": " + err.Error()
	}
	return Kernel{}, fault.Missingf("there is no kernel for %s yet%s", w.For, words).At("kernel").Help("get one: strata kernel add %s", w.Source)
}

// find is Get without looking at files. Under mu.
func (s *Store) find(ref string) (*Kernel, error) {
	if ref == "" {
		if id := s.fallback(); id != "" {
			return s.kernels[id], nil
		}
		return nil, fault.Missingf("there is no kernel for guests yet").At("kernel").Help("get one: strata kernel add debian")
	}
	var releases, ids []*Kernel
	digits := strings.TrimPrefix(ref, idPrefix)
	for _, k := range s.kernels {
		if k.Name == ref {
			return k, nil
		}
		if k.Release == ref {
			releases = append(releases, k)
		}
		if len(digits) >= leastPrefix && isHex(digits) && strings.HasPrefix(k.ID, idPrefix+digits) {
			ids = append(ids, k)
		}
	}
	for _, found := range [][]*Kernel{releases, ids} {
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return nil, fault.Invalidf("%q names %d kernels", printable(ref), len(found)).At("kernel").Help("use a name or more digits of the id: strata kernel ls")
		}
	}
	return nil, fault.Missingf("there is no kernel %q", printable(ref)).At("kernel").Help("`strata kernel ls` has those there are")
}

// SetDefault makes the kernel that ref names the default one. Kinds: Get's.
func (s *Store) SetDefault(ref string) (Kernel, error) {
	if ref == "" {
		return Kernel{}, fault.Invalidf("no kernel is named").At("kernel")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(ref)
	if err != nil {
		return Kernel{}, err
	}
	if err := s.choose(k.ID); err != nil {
		return Kernel{}, fault.Wrap(err, "make %s the default kernel", k.Name)
	}
	return view(k, k.ID), nil
}

// choose keeps which is the default one. Under mu.
func (s *Store) choose(id string) error {
	if err := writeFile(filepath.Join(s.dir, defaultFile), []byte(id+"\n")); err != nil {
		return err
	}
	s.chosen = id
	return nil
}

// Remove removes the kernel that ref names and what was made of it, and returns
// how many bytes that gave back. used returns who needs it; nil: nobody. What
// runs has it open, and goes on. Kinds: Get's, Conflict while somebody needs it.
func (s *Store) Remove(ref string, used func(Kernel) []string) (Kernel, int64, error) {
	if ref == "" {
		return Kernel{}, 0, fault.Invalidf("no kernel is named").At("kernel")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(ref)
	if err != nil {
		return Kernel{}, 0, err
	}
	k := view(found, s.fallback())
	if used != nil {
		if by := used(k); len(by) > 0 {
			return k, 0, fault.Conflictf("kernel %s is used by %s", k.Name, strings.Join(by, ", ")).At("kernel").
				Help("remove those first, or make another kernel the default: strata kernel default NAME")
		}
	}
	freed := k.Size + s.removeImages(k.ID)
	gone := filepath.Join(s.dir, temporary+strings.TrimPrefix(k.ID, idPrefix))
	if err := os.Rename(k.dir, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return k, 0, fault.Wrap(err, "remove kernel %s", k.Name)
	}
	delete(s.kernels, k.ID)
	if err := os.RemoveAll(gone); err != nil {
		s.log.Warn("a removed kernel's files stay until the next start", "path", gone, "error", err)
	}
	return k, freed, nil
}
