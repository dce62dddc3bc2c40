package vmagent

import (
	"os"
	"strings"

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
// the one with the serial number, which is waited for: disks of hardware are found
// some time after their driver was loaded.
func (a *agent) block(path, serial string) (string, error) {
	if name := strings.TrimPrefix(path, "/dev/"); name != "" && !strings.Contains(name, "/") {
		var st unix.Stat_t
		if unix.Fstatat(a.dev, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return name, nil
		}
	}
	news, err := listen()
	if err != nil {
		return "", root.Wrap(err, "listen for devices")
	}
	defer unix.Close(news.sock)
	name := ""
	if news.until(portPatience, func() bool { name = withSerial(serial); return name != "" }) {
		return name, nil
	}
	return "", a.blame(root.Fail(root.Missing, "", "the machine has no block device "+serial))
}

// withSerial returns the name of the block device with a serial number, "" where none
// has it.
func withSerial(serial string) string {
	entries, _ := os.ReadDir(blockClass)
	for _, e := range entries {
		if serialOf(blockClass+"/"+e.Name()) == serial {
			return e.Name()
		}
	}
	return ""
}

// pageHeader is how many bytes are before the number in page 80h of a disk's vital
// product data. Source: SPC-4, 7.8.15.
const pageHeader = 4

// serialOf returns the serial number of a block device: virtio's driver says it by
// itself, NVMe's of the controller, of a SCSI or SATA disk the kernel keeps what the disk
// said.
func serialOf(place string) string {
	for _, file := range []string{"/serial", "/device/serial"} {
		if s := strings.TrimSpace(readLine(place + file)); s != "" {
			return s
		}
	}
	page := readAt(unix.AT_FDCWD, place+"/device/vpd_pg80")
	if len(page) < pageHeader {
		return ""
	}
	return strings.Trim(string(page[pageHeader:]), " \x00")
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
