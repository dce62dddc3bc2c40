package mount

import (
	"syscall"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"
)

// The runtime offers these three to code that forks by itself.
//
//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// forkPaused clones a child in a new user namespace that does nothing but wait
// to be killed; it ends by itself when the calling thread does. The caller
// holds its thread locked, and reaps the child with __WALL (it has no exit
// signal, so nobody else's wait takes it).
//
// The child shares the table of open files, so it holds none open on its own.
//
//go:noinline
//go:norace
func forkPaused(self int) (pid int, err error) {
	runtimeBeforeFork() // blocks all signals, in the child too
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FILES, 0, 0, 0, 0, 0)
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
