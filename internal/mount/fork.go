package mount

import (
	"errors"
	"fmt"
	"syscall"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// The runtime offers these three to code that forks by itself.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// forkPaused clones a child in the new namespaces that flags name. It does
// nothing but wait for reap, and ends by itself when the calling thread does;
// self is this process's id. The caller holds its thread locked.
//
// The child shares the table of open files, so it holds none open on its own.
//
//go:noinline
//go:norace
func forkPaused(self int, flags uintptr) (pid int, err error) {
	runtimeBeforeFork() // blocks all signals, in the child too
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if errno != 0 || r != 0 {
		runtimeAfterFork()
		if errno != 0 {
			return -1, errno
		}
		return int(r), nil
	}
	// In the child: system calls only, no memory, no stack growth.
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	if parent, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); int(parent) == self {
		for {
			// Nothing is polled and no time limit given: this waits for ever.
			syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// reap ends a child of forkPaused. It has no exit signal, so that nobody else's
// wait takes it, and asks for __WALL.
func reap(pid int) error {
	killed := unix.Kill(pid, unix.SIGKILL)
	_, waited := unix.Wait4(pid, nil, unix.WALL, nil)
	for errors.Is(waited, unix.EINTR) {
		_, waited = unix.Wait4(pid, nil, unix.WALL, nil)
	}
	return errors.Join(killed, waited)
}

// namespaceFault gives a kind to the kernel's refusal of a user namespace.
func namespaceFault(err error) error {
	for _, refusal := range []error{unix.EPERM, unix.ENOSPC, unix.EINVAL, unix.EUSERS} {
		if errors.Is(err, refusal) {
			return fault.Unablef("this host gives no user namespace: %w", err).Help("raise the sysctl user.max_user_namespaces, or use a kernel with CONFIG_USER_NS")
		}
	}
	return fmt.Errorf("start a process in a user namespace: %w", err)
}
