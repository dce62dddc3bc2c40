package agent

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// image is a program that is ready to be executed, in the form that system
// calls take. It holds no Go strings, so that a forked child can use it.
type image struct {
	paths []*byte // where the program may be, tried in turn
	args  []*byte
	env   []*byte
	dir   *byte // working folder

	uid, gid uintptr
	groups   []uint32
	bounding []uintptr // capabilities to take out of the bounding set
	caps     [2]unix.CapUserData
	header   unix.CapUserHeader
	filter   unix.SockFprog
	strict   bool // no new privileges
	rlimits  []rlimit

	session bool // start a session
	tty     int  // slave side of the controlling terminal, -1: none
	report  int  // forked: where a stage that failed is written

	action  [64]byte // a struct sigaction of zeros: SIG_DFL
	mask    uint64   // no signal blocked
	message [2]uint32
}

type rlimit struct {
	kind  uintptr
	value unix.Rlimit
}

// usualSlack is the timer slack of every program that nobody gave another. The
// agent itself has a longer one (keeper/wire, Payload.Slack). Unit: nanoseconds.
// Source: linux/init_task.h, init_task's timer_slack_ns.
const usualSlack = 50_000

// The stages of an image's way to its program.
const (
	stageSession uint32 = iota + 1
	stageTTY
	stageRlimit
	stageSeccomp
	stageBounding
	stageWorkDir
	stageUser
	stageCapabilities
	stageFiles
	stageExec
	stages
)

var stageNames = [stages]string{
	"", "start a session", "take the terminal", "set a resource limit", "load the seccomp filter", "drop capabilities",
	"enter the working folder", "become the user", "set capabilities", "close files", "execute",
}

// fork starts the image as a child. A failure of its own is written to
// img.report, which is closed by a successful execve.
//
// It must not be inlined: the stack it needs is grown before beforeFork.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(img *image) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	img.message[0], img.message[1] = apply(img)
	syscall.RawSyscall6(unix.SYS_WRITE, uintptr(img.report), uintptr(unsafe.Pointer(&img.message)), 8, 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}

// apply turns the calling thread into the image's program. It returns only if a
// stage failed. It allocates nothing, grows no stack and makes raw system calls
// only, because it also runs between fork and exec.
//
//go:nosplit
//go:norace
//go:nocheckptr
func apply(img *image) (stage, errno uint32) {
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&img.action)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&img.mask)), 0, 8, 0, 0)
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, usualSlack, 0, 0, 0, 0)
	if img.session {
		if _, _, e := syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0); e != 0 {
			return stageSession, uint32(e)
		}
	}
	if img.tty >= 0 {
		if _, _, e := syscall.RawSyscall6(unix.SYS_IOCTL, uintptr(img.tty), unix.TIOCSCTTY, 0, 0, 0, 0); e != 0 {
			return stageTTY, uint32(e)
		}
		for fd := uintptr(0); fd < 3; fd++ {
			if _, _, e := syscall.RawSyscall6(unix.SYS_DUP3, uintptr(img.tty), fd, 0, 0, 0, 0); e != 0 {
				return stageTTY, uint32(e)
			}
		}
	}
	for i := range img.rlimits {
		l := &img.rlimits[i]
		if _, _, e := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, l.kind, uintptr(unsafe.Pointer(&l.value)), 0, 0, 0); e != 0 {
			return stageRlimit, uint32(e)
		}
	}
	// Without no_new_privs only a thread that still has its capabilities may load a filter.
	if !img.strict {
		if e := loadFilter(img); e != 0 {
			return stageSeccomp, e
		}
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_CHDIR, uintptr(unsafe.Pointer(img.dir)), 0, 0, 0, 0, 0); e != 0 {
		return stageWorkDir, uint32(e)
	}
	if stage, errno = credentials(img); stage != 0 {
		return stage, errno
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, 3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC, 0, 0, 0); e != 0 {
		return stageFiles, uint32(e)
	}
	if img.strict {
		if _, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
			return stageCapabilities, uint32(e)
		}
		if e := loadFilter(img); e != 0 {
			return stageSeccomp, e
		}
	}
	return stageExec, execute(img)
}

//go:nosplit
//go:norace
func loadFilter(img *image) uint32 {
	if img.filter.Len == 0 {
		return 0
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&img.filter)), 0, 0, 0)
	return uint32(e)
}

// credentials drops what the program must not have. Leaving user id 0 drops the
// capabilities by itself; what is set explicitly is for root.
//
//go:nosplit
//go:norace
func credentials(img *image) (stage, errno uint32) {
	for _, c := range img.bounding {
		if _, _, e := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0); e != 0 {
			return stageBounding, uint32(e)
		}
	}
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	var groups uintptr
	if len(img.groups) > 0 {
		groups = uintptr(unsafe.Pointer(&img.groups[0]))
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_SETGROUPS, uintptr(len(img.groups)), groups, 0, 0, 0, 0); e != 0 {
		return stageUser, uint32(e)
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_SETRESGID, img.gid, img.gid, img.gid, 0, 0, 0); e != 0 {
		return stageUser, uint32(e)
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_SETRESUID, img.uid, img.uid, img.uid, 0, 0, 0); e != 0 {
		return stageUser, uint32(e)
	}
	if _, _, e := syscall.RawSyscall6(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&img.header)), uintptr(unsafe.Pointer(&img.caps)), 0, 0, 0, 0); e != 0 {
		return stageCapabilities, uint32(e)
	}
	return 0, 0
}

// execute tries the program's paths as execvp(3) does.
//
//go:nosplit
//go:norace
func execute(img *image) uint32 {
	result := uint32(unix.ENOENT)
	for _, path := range img.paths {
		_, _, e := syscall.RawSyscall6(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)),
			uintptr(unsafe.Pointer(&img.args[0])), uintptr(unsafe.Pointer(&img.env[0])), 0, 0, 0)
		switch e {
		case unix.ENOENT, unix.ENOTDIR:
		case unix.EACCES:
			result = uint32(e)
		default:
			return uint32(e)
		}
	}
	return result
}

// herald starts a child that tells the keeper, by sending text on sock, once
// the caller has been replaced by another program: it waits for the end of the pipe
// that report is the other side of. The new program finds it as a child that has
// ended.
//
//go:noinline
//go:norace
//go:nocheckptr
func herald(wait, report, sock uintptr, text *byte, length uintptr) syscall.Errno {
	var buf [8]byte
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return errno
	}
	afterForkInChild()
	syscall.RawSyscall6(unix.SYS_CLOSE, report, 0, 0, 0, 0, 0)
	n, _, errno := syscall.RawSyscall6(unix.SYS_READ, wait, uintptr(unsafe.Pointer(&buf)), 8, 0, 0, 0)
	if errno == 0 && n == 0 {
		syscall.RawSyscall6(unix.SYS_WRITE, sock, uintptr(unsafe.Pointer(text)), length, 0, 0, 0)
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}
