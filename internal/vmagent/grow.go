package vmagent

import (
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64). Source: linux/ext4.h.
const resizeFS = 0x40086610

// growDisk has the private disk's file system become as large as its device, of which the
// kernel is told that it has that many bytes.
func (a *agent) growDisk(size int64) error {
	a.mu.Lock()
	disk := a.disk
	a.mu.Unlock()
	var dev unix.Stat_t
	var st unix.Statfs_t
	if disk < 0 || unix.Fstat(disk, &dev) != nil || unix.Fstatfs(disk, &st) != nil || st.Bsize <= 0 {
		return root.Fail("conflict", "disk", "no private disk is mounted inside")
	}
	place := "dev/block/" + strconv.Itoa(int(unix.Major(dev.Dev))) + ":" + strconv.Itoa(int(unix.Minor(dev.Dev))) + "/size"
	err := untilUsed("disk", func(sys int) (bool, error) {
		sectors, err := strconv.ParseInt(strings.TrimSpace(string(readAt(sys, place))), 10, 64)
		return err == nil && sectors >= size/512, root.Fail(root.Unable, "disk", "the kernel inside does not see that its disk is larger")
	})
	if err != nil {
		return err
	}
	if err := unix.Syncfs(disk); err != nil { // who cuts the growth short does not wait for what was written before it
		return root.In(root.Wrap(err, "write out the disk"), "disk")
	}
	blocks := uint64(size) / uint64(st.Bsize)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(disk), resizeFS, uintptr(unsafe.Pointer(&blocks)))
	switch errno {
	case 0:
		return nil
	case unix.EBUSY:
		return root.Fail("busy", "disk", "it is growing already: ask again when it has grown")
	case unix.EPERM, unix.EROFS, unix.ENOSPC, unix.EUCLEAN, unix.EIO, unix.EINVAL: // it has met an error; what is set aside cannot be had
		return root.Fail(root.Unable, "disk", "the kernel inside does not let the file system grow: "+root.Words(errno))
	}
	return root.In(root.Wrap(errno, "have the file system grow"), "disk")
}
