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
