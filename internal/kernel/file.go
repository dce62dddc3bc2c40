package kernel

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/strata-project/strata/internal/fault"
)

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// writeFile puts data at path, as whole does.
func writeFile(path string, data []byte) error {
	_, err := whole(path, func(f *os.File) (int64, error) {
		n, err := f.Write(data)
		return int64(n), err
	})
	return room(err)
}

// whole makes the file to of what write puts into it, or nothing: safe from a power
// cut, and readable by everybody. It returns what write does.
func whole(to string, write func(*os.File) (int64, error)) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(to), temporary)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close() // where write fails
	if size, err = write(f); err != nil {
		return 0, err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return 0, err
	}
	return size, syncPath(filepath.Dir(to))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// room gives a full disk its kind and way out.
func room(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.Busy, "the disk is full: %w", err).Help("free some space, for example with `strata kernel rm` and `strata template prune`")
	}
	return err
}
