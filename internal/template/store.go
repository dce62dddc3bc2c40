package template

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keyed"
)

// Store keeps the templates of one strata root. It is safe for concurrent use;
// one process may have one store of a folder.
type Store struct {
	dir   string // absolute
	agent string // path of strata-agent, which confines what reads layers
	log   *slog.Logger
	work  keyed.Locks   // one at a time by layer or blob
	slots chan struct{} // how many layers are unpacked at once

	mu      sync.Mutex // guards what follows and the files of names, records and layer notes
	records map[string]*record
	names   map[string]string // to id
	layers  map[string]Layer  // by DiffID: whether the file is there is checked on use
	pins    map[string]int    // paths below dir that work under way counts on
	held    map[string]int    // ids that a Use holds
	going   map[string]bool   // ids that are being removed
	unread  bool              // a record could not be read, so what it holds is not known
	aside   map[string]string // names of such ones, to id: kept until it can be read, or somebody takes them
}

// recordVersion is the version of the files that the store writes.
const recordVersion = 1

// record is a template as kept; its names are in names.json.
type record struct {
	Version  int       `json:"version"`
	Template Template  `json:"template"`
	Manifest string    `json:"manifest"` // digest of the blob
	Blobs    []string  `json:"blobs"`    // digests of the compressed layers, lowest first
	Added    time.Time `json:"added"`
}

type nameFile struct {
	Version int               `json:"version"`
	Names   map[string]string `json:"names"`
}

type layerNote struct {
	Version int   `json:"version"`
	Layer   Layer `json:"layer"`
}

// The folders of a store.
const (
	recordDir   = "records"  // <id>.json
	layerDir    = "layers"   // <digest>.erofs and <diff id>.json, which says which digest
	wholeDir    = "whole"    // <digest of the list of layers>.erofs
	blobDir     = "blobs"    // manifests, configurations, compressed layers as they came
	downloadDir = "download" // <digest>-<size>: blobs that are not whole, or whose template is not
	workDir     = "work"     // emptied at start
	namesFile   = "names.json"
)

// unpackAtOnce is how many layers are unpacked in parallel.
const unpackAtOnce = 2

// slot waits until one more may be, and returns what ends that.
func (s *Store) slot(ctx context.Context) (free func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Open returns the store in dir, which is made where it is missing. What an
// earlier process left half-made is removed; downloads that can be resumed stay
// for resumeFor. agent is the path of strata-agent, and log may be nil. Kinds: Internal.
func Open(dir, agent string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.Wrap(err, "open template store")
	}
	s := &Store{
		dir: dir, agent: agent, log: log, slots: make(chan struct{}, unpackAtOnce),
		records: map[string]*record{}, names: map[string]string{}, aside: map[string]string{}, layers: map[string]Layer{},
		pins: map[string]int{}, held: map[string]int{}, going: map[string]bool{},
	}
	// 0700: a layer holds setuid programs of strangers while it is unpacked.
	// 0711 on the way to work: there apt downloads as its own user, who must get
	// to the folder of the build and to none beside it.
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{"", 0o711}, {recordDir, 0o700}, {layerDir, 0o700}, {wholeDir, 0o700}, {blobDir, 0o700}, {downloadDir, 0o700}, {workDir, 0o711}} {
		path := filepath.Join(dir, d.name)
		if err := os.MkdirAll(path, d.mode); err != nil {
			return nil, fault.Wrap(diskFault(err), "open template store")
		}
		if err := os.Chmod(path, d.mode); err != nil {
			return nil, fault.Wrap(err, "open template store")
		}
	}
	for _, step := range []func() error{s.clearWork, s.load} {
		if err := step(); err != nil {
			return nil, fault.Wrap(diskFault(err), "open template store")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	s.expire(resumeFor)
	return s, nil
}

// clearWork removes what was unpacked when the process before ended. A builder that it had
// started may write on for a moment: what cannot be removed keeps nobody from the templates.
func (s *Store) clearWork() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, workDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, workDir, e.Name())
		if err := os.RemoveAll(path); err != nil {
			s.log.Warn("template work stays until the next start", "path", path, "err", err)
		}
	}
	for _, d := range []string{"", recordDir, layerDir, blobDir, downloadDir} {
		left, err := filepath.Glob(filepath.Join(s.dir, d, temporary+"*"))
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// load reads names, records and layer notes. A file that cannot be read, or that
// another version of strata wrote, is left where it is and said so: one damaged
// template must not stop the others. Nothing is swept then, for what that
// template holds is not known.
func (s *Store) load() error {
	err := s.eachFile(layerDir, func(hex string, data []byte) bool {
		var n layerNote
		if json.Unmarshal(data, &n) != nil || n.Version != recordVersion || n.Layer.DiffID != "sha256:"+hex || !isDigest(n.Layer.Digest) {
			return false
		}
		s.layers[n.Layer.DiffID] = n.Layer
		return true
	})
	if err != nil {
		return err
	}
	err = s.eachFile(recordDir, func(hex string, data []byte) bool {
		r := new(record)
		if json.Unmarshal(data, r) != nil || r.Version != recordVersion || r.Template.ID != "sha256:"+hex {
			return false
		}
		for _, d := range append(append([]string{r.Manifest, r.Template.ID}, r.Blobs...), layerDigests(r)...) {
			if !isDigest(d) {
				return false
			}
		}
		s.records[r.Template.ID] = r
		return true
	})
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(s.dir, namesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var n nameFile
	if err := json.Unmarshal(data, &n); err != nil {
		return fault.Internalf("%s is damaged: %w", filepath.Join(s.dir, namesFile), err).Help("remove it: the templates stay and can be named again by their ids")
	}
	if n.Version != recordVersion {
		return fault.Unablef("%s was written by another version of strata", filepath.Join(s.dir, namesFile))
	}
	for name, id := range n.Names {
		if s.records[id] != nil {
			s.names[name] = id
		} else if _, err := os.Lstat(s.recordPath(id)); err == nil { // else a removal was under way
			s.aside[name] = id
		}
	}
	return nil
}

func layerDigests(r *record) []string {
	var all []string
	for _, l := range r.Template.Layers {
		all = append(all, l.Digest)
	}
	return all
}

// eachFile gives the .json files of a folder to take, with the digest in their name.
func (s *Store) eachFile(dir string, take func(hex string, data []byte) bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		path := filepath.Join(s.dir, dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !isDigest("sha256:"+hex) || !take(hex, data) {
			// Not Debug as all else here: nobody above sees that something is left out.
			s.log.Warn("template file is damaged or of another version, and left out", "path", path)
			s.unread = s.unread || dir == recordDir
		}
	}
	return nil
}

func (s *Store) layerPath(digest string) string {
	return filepath.Join(s.dir, layerDir, strings.TrimPrefix(digest, "sha256:")+".erofs")
}

func (s *Store) layerPaths(layers []Layer) []string {
	paths := make([]string, len(layers))
	for i, l := range layers {
		paths[i] = s.layerPath(l.Digest)
	}
	return paths
}

func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.dir, blobDir, strings.TrimPrefix(digest, "sha256:"))
}

// downloadPath is where a blob comes. The size is in the name since it is the manifest's word: under
// the digest alone, one image with a wrong size would have another's download cut.
func (s *Store) downloadPath(d v1.Descriptor) string {
	return filepath.Join(s.dir, downloadDir, fmt.Sprint(d.Digest.Hex, "-", d.Size))
}

func (s *Store) notePath(diffID string) string {
	return filepath.Join(s.dir, layerDir, strings.TrimPrefix(diffID, "sha256:")+".json")
}

func (s *Store) recordPath(id string) string {
	return filepath.Join(s.dir, recordDir, strings.TrimPrefix(id, "sha256:")+".json")
}

// LayerPath returns the EROFS file of a layer.
func (s *Store) LayerPath(l Layer) string { return s.layerPath(l.Digest) }

// List returns every template, the newest first.
func (s *Store) List() []Template {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Template, 0, len(s.records))
	for _, r := range s.records {
		all = append(all, s.view(r))
	}
	slices.SortFunc(all, func(a, b Template) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// Get returns the template that ref names: a name with or without tag, an id, or
// the first 4 or more digits of one id. Kinds: Missing, Invalid for a malformed
// or ambiguous ref, Unable where the template's files are damaged.
func (s *Store) Get(ref string) (Template, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.find(ref)
	if err != nil {
		return Template{}, err
	}
	return s.whole(r)
}

// Use runs do with the template that ref names, which cannot be removed
// meanwhile: for writing down that something is made of it. Kinds: Get's, Busy
// while it is being removed, and do's own.
func (s *Store) Use(ref string, do func(Template) error) error {
	s.mu.Lock()
	r, _, err := s.find(ref)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	t, err := s.whole(r)
	if err == nil && s.going[t.ID] {
		err = fault.Busyf("template %s is being removed", ref)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.held[t.ID]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[t.ID]--; s.held[t.ID] == 0 {
			delete(s.held, t.ID)
		}
	}()
	return do(t)
}

// Tag gives the template that ref names a further name, which another template
// may have had. Kinds: Get's, Invalid for a malformed name.
func (s *Store) Tag(ref, name string) error {
	full, err := parseTag(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.setName(full, r.Template.ID)
}

// setName points name at id, and keeps that. Under mu.
func (s *Store) setName(name, id string) error {
	before, had := s.names[name]
	if had && before == id {
		return nil
	}
	s.names[name] = id
	if err := s.saveNames(); err != nil {
		if delete(s.names, name); had {
			s.names[name] = before
		}
		return fault.Wrap(err, "name template %s", name)
	}
	delete(s.aside, name)
	return nil
}

func (s *Store) saveNames() error {
	all := maps.Clone(s.aside)
	maps.Copy(all, s.names)
	data, err := json.MarshalIndent(nameFile{recordVersion, all}, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(s.dir, namesFile), data)
}

// view is the record as callers see it. Under mu.
func (s *Store) view(r *record) Template {
	t := r.Template
	t.Names = nil
	for name, id := range s.names {
		if id == t.ID {
			t.Names = append(t.Names, name)
		}
	}
	slices.Sort(t.Names)
	t.Layers = slices.Clone(t.Layers)
	return t
}

// whole is view, and a fault where a layer's file is gone or has another size.
func (s *Store) whole(r *record) (Template, error) {
	t := s.view(r)
	for _, l := range t.Layers {
		info, err := os.Stat(s.layerPath(l.Digest))
		if err != nil || info.Size() != l.Size {
			return Template{}, fault.Unablef("template %s is damaged: its layer %s is missing or truncated", refOf(t), short(l.Digest)).
				Help("fetch it again: it came from %s", t.Source)
		}
	}
	return t, nil
}

// refOf is how a template is called in messages.
func refOf(t Template) string {
	if len(t.Names) > 0 {
		return t.Names[0]
	}
	return short(t.ID)
}
