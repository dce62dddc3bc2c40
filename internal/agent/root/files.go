package root

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
)

// sources makes a place for the files that are shown over the template's. They live in a
// small tmpfs, so that the private disk never holds what belongs to one run, and a
// read-only root has them as well. The kernel copies parts of attached mounts
// only, so it is attached where the zone's own /dev/shm covers it next: to take
// it away again would cost more than all the rest.
func (h *house) sources() (err error) {
	h.source, err = Tree("tmpfs", plain, "mode=755", "size=1m", "nr_inodes=64")
	return err
}

// show writes those files and puts them where they belong.
func (h *house) show() error {
	for i, f := range h.Files {
		if !f.Bind {
			continue
		}
		if err := put(h.source, strconv.Itoa(i), f.Data); err != nil {
			return Wrap(err, f.Path)
		}
		// An image whose /etc is a link that leads nowhere, or that has a folder in the
		// file's place, goes without.
		if err := h.bind(strconv.Itoa(i), f); err != nil && err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EISDIR {
			return Wrap(err, f.Path)
		}
	}
	return nil
}

func (h *house) bind(name string, f spec.File) error {
	fd, err := Clone(h.source, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	place, err := Target(h.Root, f.Path, false, InRoot)
	if err == unix.ELOOP || err == unix.EEXIST { // a link that leads nowhere
		if err = h.unlink(f.Path); err == nil {
			place, err = Target(h.Root, f.Path, false, InRoot)
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(place)
	if folder(place) {
		return unix.EISDIR
	}
	return Attach(fd, place)
}

func (h *house) unlink(path string) error {
	dir, name := split(path)
	parent, err := OpenIn(h.Root, dir, unix.O_PATH|unix.O_DIRECTORY, InRoot)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return unix.Unlinkat(parent, name, 0)
}

// write puts files into the root itself, for a system that manages them: it may
// replace them while it runs.
func (h *house) write() error {
	for _, f := range h.Files {
		if f.Bind {
			continue
		}
		dir, name := split(f.Path)
		parent, err := Target(h.Root, dir, true, InRoot)
		if err == unix.EEXIST || err == unix.ENOTDIR { // a link that leads nowhere
			continue
		}
		if err != nil {
			return Wrap(err, f.Path)
		}
		err = replace(parent, name, f.Data)
		unix.Close(parent)
		if err != nil && err != unix.EROFS && err != unix.EISDIR { // a volume that is read-only has its own, a folder stays
			return Wrap(err, f.Path)
		}
	}
	return nil
}

// replace writes a file beside and renames it over, so that a link is replaced
// and not followed.
func replace(parent int, name string, data []byte) error {
	fresh := ".strata-" + name
	_ = unix.Unlinkat(parent, fresh, 0) // left from a start that was cut short
	if err := put(parent, fresh, data); err != nil {
		return err
	}
	if err := unix.Renameat(parent, fresh, parent, name); err != nil {
		_ = unix.Unlinkat(parent, fresh, 0)
		return err
	}
	return nil
}

func put(parent int, name string, data []byte) error {
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return unix.Fchmod(fd, 0o644)
}
