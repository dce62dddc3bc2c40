package agent

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
)

// settle takes from PID 1, once the main program runs, what it needs no more: the
// standard streams, which are the program's alone, and nearly all capabilities.
// null is a descriptor of /dev/null, opened before the program could replace it.
func settle(s *spec.Init, null int) error {
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return wrap(err, "leave the standard streams")
		}
	}
	unix.Close(null)
	var caps [2]unix.CapUserData
	for _, c := range s.Keep {
		if c >= 0 && c < 64 {
			caps[c/32].Effective |= 1 << (c % 32)
			caps[c/32].Permitted |= 1 << (c % 32)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps)), 0); errno != 0 {
		return wrap(errno, "drop capabilities")
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return wrap(errno, "set no_new_privs")
	}
	filter := s.Seccomp
	if s.Main != nil {
		filter = s.Main.Seccomp
	}
	if len(filter) < 8 || len(filter)/8 > maxFilter {
		return nil
	}
	code := filterCode(filter)
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return wrap(errno, "load the seccomp filter")
	}
	return nil
}

// idle gives back the memory that only the start needed.
func idle() {}
