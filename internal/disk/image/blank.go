package image

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Blank makes an empty qcow2 image at path, which must not be there, of a disk of size
// bytes. Kinds: Invalid, Conflict, Unable.
func (t Tool) Blank(ctx context.Context, path string, size unit.Size) error {
	if size <= 0 || size%sector != 0 || size > maxSize {
		return fault.Invalidf("a disk cannot have %d bytes", size).At("disk").Help("a multiple of %d, such as 20G", sector)
	}
	options := map[string]any{"driver": "qcow2", "file": "file", "size": int64(size)}
	return t.fill(ctx, path, nil, nil, func(s *session) error {
		return s.run(ctx, "blockdev-create", map[string]any{"options": options}, none)
	})
}

// writers is the byte of a file that every program of QEMU's that writes to the image has
// a lock on. Source: QEMU, block/file-posix.c, RAW_LOCK_PERM_BASE, and BLK_PERM_WRITE.
const writers = 100 + 1

// Busy tells whether some QEMU on this host writes to one of the chain's files: what is
// read then is no disk of any moment. Kinds: Conflict where one does.
func (c *Chain) Busy() error {
	for _, l := range c.Layers {
		for _, p := range l.Parts {
			lock := unix.Flock_t{Type: unix.F_WRLCK, Start: writers, Len: 1}
			if err := unix.FcntlFlock(p.File.Fd(), unix.F_OFD_GETLK, &lock); err == nil && lock.Type != unix.F_UNLCK {
				return fault.Conflictf("the image %s is in use: a virtual machine writes to it", l.Path).At("image").Help("stop that first, or use a copy of the image")
			}
		}
	}
	return nil
}

// SizeOf returns the size of the disk in an image of strata's own, by its header alone.
// Kinds: Missing, Invalid.
func SizeOf(path string) (unit.Size, error) {
	f, err := open(path, func(path string) (*os.File, error) { return os.Open(path) })
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := sizeOf(f)
	if err != nil {
		return 0, err
	}
	i, err := Detect(f, size)
	return i.Size, err
}
