package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// MaxRecord bounds a record that is read. Unit: bytes. A spec can hold 2 MiB of
// arguments and variables, which JSON may write six times as long, and twice.
const MaxRecord = 32 * unit.MiB

const (
	recordName = "record.json"
	tempPrefix = ".record-"
)

// Store is the folder of all environments of one root.
type Store struct {
	environments string
	trash        string
	stock        stock
	temp         atomic.Uint64
}

// Open takes the folder state, and makes what is missing in it.
func Open(state string) (*Store, error) {
	s := &Store{environments: filepath.Join(state, "environments"), trash: filepath.Join(state, "trash")}
	for _, dir := range []string{s.environments, s.trash} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	s.stock.dir = filepath.Join(state, "spare")
	if err := s.stock.adopt(); err != nil {
		return nil, fmt.Errorf("look for spare folders: %w", err)
	}
	return s, nil
}

// Dir returns the folder of an environment.
func (s *Store) Dir(id string) string { return filepath.Join(s.environments, id) }

// Make makes the folder of a new environment. Kinds: Conflict.
func (s *Store) Make(id string) error {
	if taken, err := s.stock.take(s.Dir(id)); taken || err != nil {
		return err
	}
	err := os.Mkdir(s.Dir(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fault.Conflictf("there is an environment %s already", id)
	}
	return err
}

// Care says what a write outlives. A killed daemon is outlived always.
type Care uint8

// The kinds of care.
const (
	Fleeting Care = iota // a loss of power may lose the record
	Whole                // after a loss of power there is the record as it was, or as it is now
	Lasting              // once Write has returned, a loss of power changes nothing
)

// Write replaces the record of an environment whose folder exists.
func (s *Store) Write(r environment.Record, care Care) (err error) {
	data, err := r.Encode()
	if err != nil {
		return fmt.Errorf("write record of %s: %w", r.ID, err)
	}
	dir := s.Dir(r.ID)
	temp := filepath.Join(dir, fmt.Sprintf("%s%d", tempPrefix, s.temp.Add(1)))
	defer func() {
		if err != nil {
			_ = os.Remove(temp) // tolerated: it is removed with the folder, or by the next Load
			err = unwritten(r.ID, err)
		}
	}()
	if err := writeFile(dir, temp, data, care > Fleeting); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, recordName)); err != nil {
		return err
	}
	if care < Lasting {
		return nil
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(s.environments)
}

// unwritten is why a record was not written. Kinds: Busy (a full disk), Internal.
func unwritten(id string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.Busyf("write record of %s: the disk is full: %w", id, err).Help("free some space on the disk of strata's state folder")
	}
	return fault.Internalf("write record of %s: %w", id, err)
}

func writeFile(dir, temp string, data []byte, sync bool) error {
	f, err := create(dir, temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read returns one record. Kinds: Missing, Unable (of a newer form), Internal
// (damaged); with the last two there is what of it can be read.
func (s *Store) Read(id string) (environment.Record, error) {
	var r environment.Record
	f, err := os.OpenFile(filepath.Join(s.Dir(id), recordName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return r, fault.Missingf("there is no record of %s", id)
	}
	if err != nil {
		return r, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxRecord+1))
	if err != nil {
		return r, err
	}
	if len(data) > MaxRecord {
		return r, fault.Internalf("the record of %s is longer than %d bytes", id, int64(MaxRecord))
	}
	return Decode(id, data)
}

// Decode reads the record of id, of this form or an older one. Kinds: Unable, Internal;
// with those there is what of it can be read: at least its ID, or nothing.
func Decode(id string, data []byte) (environment.Record, error) {
	r, err := decode(id, data)
	if err == nil {
		return r, nil
	}
	r = environment.Record{}
	_ = json.Unmarshal(data, &r) // tolerated: what it could not read stays empty
	if r.ID != id {
		r = environment.Record{}
	}
	return r, err
}

func decode(id string, data []byte) (environment.Record, error) {
	var r environment.Record
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return r, fault.Internalf("the record of %s is damaged: %w", id, err).Help("restore the file, or remove the folder by hand")
	}
	if form.Version > environment.Version {
		return r, fault.Unablef("the record of %s has form %d, and this strata knows up to %d", id, form.Version, environment.Version).Help("run the newer strata that wrote it")
	}
	if form.Version < 1 {
		return r, fault.Internalf("the record of %s does not say its form", id).Help("restore the file, or remove the folder by hand")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // what is dropped in silence would be lost at the next write
	if err := dec.Decode(&r); err != nil {
		return r, fault.Internalf("the record of %s is damaged: %w", id, err).Help("restore the file, or remove the folder by hand")
	}
	if r.ID != id {
		return r, fault.Internalf("the record in the folder %s is that of %q", id, r.ID).Help("restore the file, or remove the folder by hand")
	}
	return r, nil
}

// Found is what Load found of one environment: a record, or why it has none that can be
// used.
type Found struct {
	ID     string
	Record environment.Record // with an Err what Read gives with it
	Err    error              // kind Missing: a create that was not finished
}

// Load reads every record, and removes half-written ones.
func (s *Store) Load(ctx context.Context) ([]Found, error) {
	entries, err := os.ReadDir(s.environments)
	if err != nil {
		return nil, fmt.Errorf("read the state folder: %w", err)
	}
	var all []Found
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !entry.IsDir() || !environment.ValidID(entry.Name()) {
			continue // not ours
		}
		id := entry.Name()
		temps, _ := filepath.Glob(filepath.Join(s.Dir(id), tempPrefix+"*")) // the pattern is well formed
		for _, temp := range temps {
			_ = os.Remove(temp) // tolerated: it harms nobody
		}
		r, err := s.Read(id)
		all = append(all, Found{id, r, err})
	}
	return all, nil
}

// Trash takes an environment away in one step: its folder goes into the trash
// under the name that is returned. Kinds: Missing.
func (s *Store) Trash(id string, care Care) (string, error) {
	var b [4]byte
	rand.Read(b[:]) // never fails: see its documentation
	to := filepath.Join(s.trash, id+"-"+hex.EncodeToString(b[:]))
	err := os.Rename(s.Dir(id), to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fault.Missingf("there is no environment %s on disk", id)
	}
	if err == nil && care == Lasting {
		err = syncDir(s.environments)
	}
	return to, err
}

// Trashed returns what lies in the trash.
func (s *Store) Trashed() ([]string, error) {
	entries, err := os.ReadDir(s.trash)
	var paths []string
	for _, entry := range entries {
		paths = append(paths, filepath.Join(s.trash, entry.Name()))
	}
	return paths, err
}

// Delete removes one folder of the trash for good.
func (s *Store) Delete(trashed string) error {
	if filepath.Dir(trashed) != s.trash {
		return fault.Internalf("%s is not in the trash", trashed)
	}
	return os.RemoveAll(trashed)
}

// Lock takes the state folder for this process, until the file is closed.
// about is kept in the lock for whoever is refused.
// Kinds: Conflict, where another process has it; the message says what it kept there.
func Lock(state, about string) (*os.File, error) {
	if err := os.MkdirAll(state, 0o711); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	path := filepath.Join(state, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state folder: %w", err)
	}
	if err := Exclusive(f); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}
		kept, _ := io.ReadAll(io.LimitReader(f, 4096)) // a lock that says nothing is still a lock
		return nil, fault.Conflictf("the state folder %s is used by another daemon (%s)", state, strings.TrimSpace(string(kept))).
			Help("use that daemon, or give this one a root of its own with --root")
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(about+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the lock of the state folder: %w", err), f.Close())
	}
	return f, nil
}

// dying is how long a daemon that was killed may take to let go of its locks:
// the kernel closes its files one after another.
const dying = time.Second

// Exclusive locks f against every other process, until it is closed. It fails
// with EWOULDBLOCK where another one keeps the lock.
func Exclusive(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for late := time.Now().Add(dying); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(late); {
		time.Sleep(10 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	return err
}
