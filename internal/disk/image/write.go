package image

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Writable has the chain's own image written to, by one user: what it lies over is only
// read. The lock is the open file's, and so QEMU's for as long as that has it. Kinds:
// Unable where strata writes no images of its format, Conflict where it is in use, Denied.
func (c *Chain) Writable() error {
	if c.Format != Raw && c.Format != QCOW2 {
		return fault.Unablef("an image of format %s is only read, and a disk is written to", c.Format).At("image").Help("make a raw or qcow2 image of it: qemu-img convert -O qcow2")
	}
	if err := c.Busy(); err != nil {
		return err
	}
	p := &c.Layers[0].Parts[0]
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(p.File.Fd())), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fault.Deniedf("the image %s cannot be written to: %w", c.Path, err).At("image")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fault.Conflictf("the image %s is in use", c.Path).At("image").Help("detach it there, or use a copy of the image")
		}
		return fault.Internalf("lock the image: %w", err)
	}
	p.File.Close()
	p.File = f
	return nil
}
