package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/unpack"
)

// temporary starts the name of every file that is not whole yet.
const temporary = ".tmp-"

// isDigest tells whether d is "sha256:" and 64 lower-case hex digits, so that it
// is safe as a file's name.
func isDigest(d string) bool {
	h, ok := strings.CutPrefix(d, "sha256:")
	return ok && len(h) == 64 && strings.Trim(h, "0123456789abcdef") == ""
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hasSize tells whether there is a file of that many bytes at path.
func hasSize(path string, size int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() == size
}

// digestFile hashes a whole file.
func digestFile(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, &stoppable{ctx, f})
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), n, err
}

// stoppable is a reader that ends with its context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// sparing writes to a file and leaves room on its disk, as unpacking does.
type sparing struct {
	file *os.File
	left int64 // until that is looked at again
}

func (s *sparing) Write(p []byte) (int, error) {
	if s.left -= int64(len(p)); s.left < 0 {
		s.left = unpack.SpareEvery
		if err := unpack.Room(int(s.file.Fd())); err != nil {
			return 0, err
		}
	}
	return s.file.Write(p)
}

// writeFile puts data at path, wholly or not at all, and safe from a power cut.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return diskFault(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return diskFault(err)
	}
	return settle(f.Name(), path)
}

// settle moves a finished file to where it stays: synced, renamed, folder synced.
func settle(from, to string) error {
	if err := syncPath(from); err != nil {
		return diskFault(err)
	}
	if err := os.Rename(from, to); err != nil {
		return diskFault(err)
	}
	return diskFault(syncPath(filepath.Dir(to)))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

// isFull tells whether an error says that the disk has no room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskFault gives a full disk its kind and way out.
func diskFault(err error) error {
	if isFull(err) {
		return fault.New(fault.Busy, "the disk is full: %w", err).Help("free some space, for example with `strata template prune`")
	}
	return err
}
