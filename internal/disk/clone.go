package disk

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/unit"
)

// CloneCost returns how much Clone would copy of the disk at path to its own folder, or
// another of the same file system: nothing where that can share blocks (reflink), else
// what the disk really takes. Kinds: Missing.
func (p *Pool) CloneCost(path string) (unit.Size, error) {
	used, _, err := Usage(path)
	if err != nil || shares(filepath.Dir(path)) {
		return 0, err
	}
	return unit.Size(used), nil
}

// shares tells whether two files of the folder's file system can have the same blocks.
// Source: ioctl_ficlone(2), which an empty file asks as well as any.
func shares(dir string) bool {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	return unix.IoctlFileClone(fds[0], fds[1]) == nil
}
