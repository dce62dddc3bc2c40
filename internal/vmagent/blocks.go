package vmagent

import (
	"encoding/binary"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// The serial numbers of the two block devices, as QEMU's command line has them.
const (
	templateSerial = "strata-template"
	diskSerial     = "strata-disk"
)

const blockClass = "/sys/block"

// block returns the name of a block device: that of its path below /dev, or else
// the one with the serial number.
func (a *agent) block(path, serial string) (string, error) {
	if name := strings.TrimPrefix(path, "/dev/"); name != "" && !strings.Contains(name, "/") {
		if _, err := os.Lstat(blockClass + "/" + name); err == nil {
			return name, nil
		}
	}
	entries, _ := os.ReadDir(blockClass)
	for _, e := range entries {
		if readLine(blockClass+"/"+e.Name()+"/serial") == serial {
			return e.Name(), nil
		}
	}
	return "", a.blame(root.Fail(root.Missing, "", "the machine has no block device "+serial))
}

// What is read of an EROFS super block: its magic, the logarithm of the size of a
// block, and the number of blocks. Source: fs/erofs/erofs_fs.h.
const (
	erofsAt     = 1024
	erofsMagic  = 0xe0f5e1e2
	erofsShift  = 12
	erofsBlocks = 36
	erofsRead   = 64
)

// refresh makes the kernel read the size of a device anew that is smaller than
// what it holds: where this system is a copy of another one's memory, the size is
// that of the other one's template. The host announces the sizes of devices that can
// be written to; others are only read when their driver takes them up.
func (a *agent) refresh(name string) error {
	stale, err := a.stale(name)
	if err != nil || !stale {
		return err
	}
	device, err := os.Readlink(blockClass + "/" + name + "/device")
	if err != nil {
		return err
	}
	device = device[strings.LastIndexByte(device, '/')+1:]
	const driver = "/sys/bus/virtio/drivers/virtio_blk/"
	for _, step := range []string{"unbind", "bind"} {
		if err := writeFile(driver+step, device); err != nil {
			return root.Wrap(err, step+" "+device)
		}
	}
	if stale, err = a.stale(name); err == nil && stale {
		return root.Fail(root.Unable, "template", "the template's device is smaller than the file system on it")
	}
	return err
}

// stale tells whether the device is smaller than the EROFS on it.
func (a *agent) stale(name string) (bool, error) {
	fd, err := unix.Openat(a.dev, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, root.Wrap(err, "open "+name)
	}
	defer unix.Close(fd)
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return false, errno
	}
	b := make([]byte, erofsRead)
	if n, err := unix.Pread(fd, b, erofsAt); err != nil || n < len(b) {
		return true, nil // too small for any file system
	}
	if binary.LittleEndian.Uint32(b) != erofsMagic {
		return false, root.Fail(root.Unable, "template", "the template's device holds no EROFS")
	}
	shift := b[erofsShift]
	if shift < 9 || shift > 16 {
		return false, root.Fail(root.Unable, "template", "the template's EROFS is malformed")
	}
	return uint64(binary.LittleEndian.Uint32(b[erofsBlocks:]))<<shift > size, nil
}

// writeFile writes to a file of the kernel's.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}
