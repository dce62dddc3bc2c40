package vmagent

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// FIFREEZE and FITHAW make a file system whole and hold up who writes to it.
// Source: linux/fs.h.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// freeze makes the private disk whole, so that it could be used elsewhere. That it
// is frozen already is not an error.
func (a *agent) freeze() error {
	if a.disk < 0 {
		return root.Fail("conflict", "", "nothing is mounted yet")
	}
	err := ioctl(a.disk, fiFreeze)
	if err == unix.EBUSY {
		return nil
	}
	return root.Wrap(err, "freeze the private disk")
}

// thaw lets go on who writes to the disk; it need not be frozen.
func (a *agent) thaw() error {
	if a.disk < 0 {
		return nil
	}
	err := ioctl(a.disk, fiThaw)
	if err == unix.EINVAL {
		return nil
	}
	return root.Wrap(err, "thaw the private disk")
}

// freezePatience is how long the disk may take to become whole at the end.
const freezePatience = 20 * time.Second

// settle freezes the disk for the end, which writes everything out and leaves the
// file system as an unmount would; who still runs is held up meanwhile. What it
// returns waits for that, and tells whether it came about in time.
func (a *agent) settle() (settled func() bool) {
	done := make(chan struct{})
	go func() {
		_ = a.freeze() // what cannot be frozen was never mounted, or is beyond help
		close(done)
	}()
	return func() bool {
		select {
		case <-done:
			return true
		case <-time.After(freezePatience):
			return false
		}
	}
}

// off switches the machine off once the disk is whole. It does not return.
func (a *agent) off() { a.end(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// end is off for any command of reboot(2).
func (a *agent) end(how int) {
	a.settle()() // if not in time, then never
	reboot(how)
}

// reboot does not return.
func reboot(how int) {
	for {
		_ = unix.Reboot(how)
		_ = unix.Pause()
	}
}

func ioctl(fd int, request uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, 0); errno != 0 {
		return errno
	}
	return nil
}

// maxKernelLog bounds what is read of the kernel's log. Unit: bytes.
const maxKernelLog = 1 << 20

// Actions of syslog(2).
const (
	syslogReadAll = 3
	syslogSize    = 10
)

// kernelLog returns the end of the kernel's log.
func kernelLog() ([]byte, error) {
	size, err := unix.Klogctl(syslogSize, nil)
	if err != nil {
		return nil, root.Wrap(err, "ask for the kernel's log")
	}
	b := make([]byte, min(size, maxKernelLog))
	n, err := unix.Klogctl(syslogReadAll, b)
	return b[:max(n, 0)], root.Wrap(err, "read the kernel's log")
}
