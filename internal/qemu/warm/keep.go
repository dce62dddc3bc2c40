package warm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

const (
	recordFile = "record.json"
	memoryFile = "memory"
	stateFile  = "state"
)

// Bounds of what is read. Unit: bytes.
const (
	maxRecord = 1 << 20
	maxState  = 64 << 20
)

// record says what an image is.
type record struct {
	Key       Key       `json:"key"`
	Made      time.Time `json:"made"`
	StateSize int64     `json:"state_size"`
	StateSum  uint32    `json:"state_sum"`  // CRC-32C, as the next
	MemorySum uint32    `json:"memory_sum"` // of all pages that are not zeros, each after its offset
}

// keep writes r's files, and trims its memory. What else is too much goes.
func (s *Store) keep(k Key, r *resident) (err error) {
	work, err := os.MkdirTemp(filepath.Join(s.dir, workDir), "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	info, err := r.state.Stat()
	if err != nil {
		return err
	}
	rec := record{Key: k, Made: r.made, StateSize: info.Size()}
	if rec.MemorySum, err = writeCopy(filepath.Join(work, memoryFile), r.memory, true); err != nil {
		return err
	}
	if rec.StateSum, err = writeCopy(filepath.Join(work, stateFile), r.state, false); err != nil {
		return err
	}
	text, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	if err := write(filepath.Join(work, recordFile), func(f *os.File) error { _, err := f.Write(text); return err }); err != nil {
		return err
	}
	to := filepath.Join(s.dir, k.Digest())
	if err := errors.Join(os.RemoveAll(to), syncDir(work)); err != nil {
		return err
	}
	if err := os.Rename(work, to); err != nil {
		return err
	}
	s.prune(k.Digest())
	return syncDir(s.dir)
}

func writeCopy(path string, from *os.File, trim bool) (sum uint32, err error) {
	info, err := from.Stat()
	if err != nil {
		return 0, err
	}
	err = write(path, func(f *os.File) error {
		if err := f.Truncate(info.Size()); err != nil {
			return err
		}
		sum, err = copySparse(f, from, trim)
		return err
	})
	return sum, err
}

// write makes a file that is on the disk when it returns.
func write(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	forget(f)
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads the image of k into memory. One that is not whole is removed.
func (s *Store) load(k Key) (*resident, error) {
	dir := filepath.Join(s.dir, k.Digest())
	r, err := s.read(dir, k)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			s.o.Log.Debug("remove a saved system", "key", k.Digest(), "err", err)
		}
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // how long it was not used only says what to prune first
	return r, nil
}

func (s *Store) read(dir string, k Key) (_ *resident, err error) {
	rec, err := readRecord(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	age := time.Since(rec.Made)
	switch {
	case rec.Key.Digest() != k.Digest():
		return nil, fault.Internalf("it is of another key")
	case !k.near(rec.Key.TSC):
		return nil, fault.Internalf("it is of a processor with another clock")
	case age > s.o.MaxAge || age < 0:
		return nil, fault.Internalf("it is too old")
	case rec.StateSize <= 0 || rec.StateSize > maxState:
		return nil, fault.Internalf("its record is not one")
	}
	r := &resident{made: rec.Made, used: time.Now(), tsc: rec.Key.TSC}
	if r.memory, err = readCopy(filepath.Join(dir, memoryFile), int64(k.Memory), rec.MemorySum); err != nil {
		return nil, err
	}
	if r.state, err = readCopy(filepath.Join(dir, stateFile), rec.StateSize, rec.StateSum); err != nil {
		r.memory.Close()
		return nil, err
	}
	return r, nil
}

func readRecord(path string) (rec record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return rec, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return rec, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return rec, d.Decode(&rec)
}

// readCopy reads a file into sealed memory.
func readCopy(path string, size int64, want uint32) (_ *os.File, err error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	if info, err := from.Stat(); err != nil || info.Size() != size {
		return nil, fault.Internalf("%s has %d bytes, not %d", filepath.Base(path), info.Size(), size)
	}
	f, err := allocate(filepath.Base(path), size)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	sum, err := copySparse(f, from, false)
	if err != nil {
		return nil, err
	}
	if sum != want {
		return nil, fault.Internalf("%s is not what was written", filepath.Base(path))
	}
	forget(from)
	return f, seal(f)
}

// forget lets go of what the page cache has of f: an image is in memory twice otherwise.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) } // it only takes room

// prune removes the images that were not used for longest, where there are too many.
// What fails is tried again the next time.
func (s *Store) prune(but string) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	type kept struct {
		name string
		used time.Time
		size int64
	}
	var all []kept
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.Name() == workDir {
			continue
		}
		k := kept{e.Name(), info.ModTime(), held(filepath.Join(s.dir, e.Name()))}
		if k.name == but {
			k.used = time.Now().Add(time.Hour)
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.name, b.name)) })
	var size int64
	for n, k := range all {
		size += k.size
		if k.name != but && (n >= s.o.Kept || size > int64(s.o.Size)) {
			_ = os.RemoveAll(filepath.Join(s.dir, k.name))
			size -= k.size
		}
	}
}

// held is how much of the disk a folder's files take. Unit: bytes.
func held(dir string) (size int64) {
	for _, name := range []string{recordFile, memoryFile, stateFile} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, name), &st) == nil {
			size += st.Blocks * 512 // stat(2)
		}
	}
	return size
}
