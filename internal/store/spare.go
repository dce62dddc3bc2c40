package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Spare folders are made ahead, with an empty file for the record in each: making
// an inode takes up to a millisecond on a well-filled ext4 (measured, see
// docs/adr/0002-durability.md), renaming one a fiftieth of that.
const (
	spares    = 16
	spareFile = tempPrefix + "spare"
	spareLog  = "log"
)

// stock are the names of spare folders.
type stock struct {
	dir    string
	making sync.Mutex // one Prepare at a time
	mu     sync.Mutex // a leaf
	names  []string
}

// adopt takes over what an earlier process made.
func (s *stock) adopt() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
		if _, err := os.Lstat(filepath.Join(path, spareFile)); err != nil || len(s.names) == spares {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			continue
		}
		s.names = append(s.names, entry.Name())
	}
	return nil
}

// take moves a spare folder to path; false where there is none.
func (s *stock) take(path string) (bool, error) {
	s.mu.Lock()
	if len(s.names) == 0 {
		s.mu.Unlock()
		return false, nil
	}
	name := s.names[len(s.names)-1]
	s.names = s.names[:len(s.names)-1]
	s.mu.Unlock()
	err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(s.dir, name), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return false, fault.Conflictf("there is a folder %s already", path)
	}
	return err == nil, nil
}

// Prepare makes spare folders, up to a small number, where some were taken. It is
// called in the background; where another call is at it, it returns at once.
func (s *Store) Prepare() error {
	if !s.stock.making.TryLock() {
		return nil
	}
	defer s.stock.making.Unlock()
	for {
		s.stock.mu.Lock()
		enough := len(s.stock.names) >= spares
		s.stock.mu.Unlock()
		if enough {
			return nil
		}
		// A name of its own: what an earlier process made, which may have had this one's pid, is in use.
		path, err := os.MkdirTemp(s.stock.dir, "")
		if err != nil {
			return fmt.Errorf("make a spare folder: %w", err)
		}
		err = os.Mkdir(filepath.Join(path, spareLog), 0o700)
		if err == nil {
			err = os.WriteFile(filepath.Join(path, spareFile), nil, 0o600)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("make a spare folder: %w", err), os.RemoveAll(path))
		}
		s.stock.mu.Lock()
		s.stock.names = append(s.stock.names, filepath.Base(path))
		s.stock.mu.Unlock()
	}
}

// Prepared tells whether there are spare folders for a while.
func (s *Store) Prepared() bool {
	s.stock.mu.Lock()
	defer s.stock.mu.Unlock()
	return len(s.stock.names) >= spares/2
}

// create opens the file for a new record: the spare one where it is still there.
func create(dir, temp string) (*os.File, error) {
	err := os.Rename(filepath.Join(dir, spareFile), temp)
	switch {
	case err == nil:
		return os.OpenFile(temp, os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW, 0)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}
