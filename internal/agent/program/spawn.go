package program

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// childStack is what born and apply need of stack, many times over: they are
// functions whose stack the linker bounds (nosplit). Unit: bytes.
const childStack = 16 << 10

// allSignals are the kernel's. Source: signal(7), SIGRTMAX.
var allSignals = func() (all []uintptr) {
	for sig := uintptr(1); sig <= 64; sig++ {
		all = append(all, sig)
	}
	return all
}()

// ignored are the signals that this process ignores, which it began with or never will:
// a child whose handlers the kernel clears goes on ignoring them.
var ignored = sync.OnceValue(func() (found []uintptr) {
	for _, sig := range allSignals {
		var action [64]byte // a struct sigaction, of which the handler is the first word
		_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
		if errno == 0 && *(*uintptr)(unsafe.Pointer(&action)) == 1 { // asm-generic/signal-defs.h, SIG_IGN
			found = append(found, sig)
		}
	}
	return found
})

// unfinished are the images that a child may still read or write, with its stack. One
// whose program is never executed, because its file system hangs, stays here.
var unfinished sync.Map // of *Image

// cloneShared makes a child that begins as child(img), a function's first
// instruction, on the stack of args.
//
//go:noescape
func cloneShared(args *cloneArgs, size uintptr, img *Image, child uintptr) (pid, errno uintptr)

// inChild returns the first instruction of shared. A function's value is a pointer
// to where that is kept. Source: Go 1.1 Function Calls, "Function values".
func inChild() uintptr {
	f := shared
	return **(**uintptr)(unsafe.Pointer(&f))
}

// spawn is Fork with a child that shares the parent's memory until it executes,
// on a stack of its own: nothing is copied for it, and the parent does not wait.
// Under emulation that is half of what an exec takes (fork copies page tables, and
// each page that either writes to). What the child reads must not change and not be
// collected: the image is kept until done says so.
//
// Credentials, descriptors, working folder, signals and limits are the child's own.
// The score by which the kernel chooses whom to kill is not (proc(5): it is of
// all who share memory), so who is Expendable is forked.
func (img *Image) spawn() (pid int, err error) {
	if err := img.bear(-1); err != nil {
		return 0, err
	}
	c := &img.child
	c.busy = 1
	c.stack = make([]byte, childStack)
	top := (uintptr(unsafe.Pointer(&c.stack[0])) + childStack) &^ 15
	c.clone.flags |= unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_CHILD_CLEARTID
	c.clone.childTID = uint64(uintptr(unsafe.Pointer(&c.busy)))
	img.signals = ignored()
	c.clone.exitSignal = uint64(unix.SIGCHLD)
	c.clone.stack = uint64(uintptr(unsafe.Pointer(&c.stack[0])))
	c.clone.stackSize = uint64(top) - c.clone.stack
	unfinished.Store(img, nil)
	child, errno := fromShared(img)
	if errno != 0 {
		unfinished.Delete(img)
		return 0, root.Wrap(errno, "start a process")
	}
	return int(child), nil
}

// done waits until a child of spawn shares the memory no more, since it has executed its
// program or ended; false: that took longer. The kernel says so in the memory itself and
// wakes who waits there (set_tid_address(2)): for a child that is as quick as most are,
// nothing at all needs to be asked.
func (img *Image) done(most time.Duration) bool {
	end := time.Now().Add(most)
	for atomic.LoadUint32(&img.child.busy) != 0 {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		wait := unix.NsecToTimespec(int64(left))
		// Not of the kind that is private to a process: the kernel's own call is not.
		_, _, _ = syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&img.child.busy)), futexWait, 1, uintptr(unsafe.Pointer(&wait)), 0, 0)
	}
	return true
}

const futexWait = 0 // linux/futex.h, FUTEX_WAIT

// fromShared clones with all signals blocked, so that none is handled by a child
// that has handlers still and no Go to run them in.
//
//go:noinline
//go:norace
//go:nocheckptr
func fromShared(img *Image) (pid uintptr, errno syscall.Errno) {
	child := inChild()
	beforeFork()
	pid, e := cloneShared(&img.child.clone, unsafe.Sizeof(img.child.clone), img, child)
	afterFork()
	runtime.KeepAlive(img)
	return pid, syscall.Errno(e)
}

// shared is all of such a child. The runtime's thread-local state that it sees is
// its parent's: it must not even look at it.
//
//go:nosplit
//go:norace
//go:nocheckptr
func shared(img *Image) {
	if img.message[0], img.message[1] = born(&img.child); img.message[0] == 0 {
		img.message[0], img.message[1] = apply(img)
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}
