package checkpoint_test

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccomp has all threads of the process have a filter.
func seccomp(p *unix.SockFprog) {
	const set, all = 1, 1 // SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, set, all, uintptr(unsafe.Pointer(p))); errno != 0 {
		panic(errno)
	}
}

// wait waits with other signals blocked than usual.
func wait(on *unix.PollFd, blocked *unix.Sigset_t) {
	if _, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(on)), 1, 0, uintptr(unsafe.Pointer(blocked)), 8, 0); errno != 0 {
		panic(errno)
	}
}
