package program

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// newborn is what a child needs before it applies its image.
type newborn struct {
	clone      cloneArgs
	streams    []uintptr
	namespaces []uintptr
	others     [][2]uintptr // ranges of descriptors that are not its own
	agent      uintptr      // program that is executed by descriptor; 0: by path
	expendable bool
	stack      []byte // where it shares memory with its parent
	busy       uint32 // likewise: 0 once it shares it no more
}

// cloneArgs is what clone3 takes.
// Source: linux/sched.h, struct clone_args, CLONE_ARGS_SIZE_VER2.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// What a child needs to be told from its parent by nobody else.
var (
	noText    [1]byte // a path without length
	oomFile   = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'o', 'o', 'm', '_', 's', 'c', 'o', 'r', 'e', '_', 'a', 'd', 'j', 0}
	oomNormal = [...]byte{'0'}
)

// fork starts the image as a child. A failure of its own is written to
// img.report, which is closed by a successful execve.
//
// It must not be inlined: the stack it needs is grown before beforeFork.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(img *Image) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	if img.child.clone.flags != 0 {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&img.child.clone)), unsafe.Sizeof(img.child.clone), 0, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	if img.message[0], img.message[1] = born(&img.child); img.message[0] == 0 {
		img.message[0], img.message[1] = apply(img)
	}
	syscall.RawSyscall6(unix.SYS_WRITE, uintptr(img.report), uintptr(unsafe.Pointer(&img.message)), ReportSize, 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}

// born does what a child has to do for itself before it applies its image.
//
//go:nosplit
//go:norace
//go:nocheckptr
func born(c *newborn) (stage, errno uint32) {
	for i, fd := range c.streams {
		if _, _, e := syscall.RawSyscall6(unix.SYS_DUP3, fd, uintptr(i), 0, 0, 0, 0); e != 0 {
			return stageStreams, uint32(e)
		}
	}
	for _, fd := range c.namespaces {
		if _, _, e := syscall.RawSyscall6(unix.SYS_SETNS, fd, 0, 0, 0, 0, 0); e != 0 {
			return stageNamespace, uint32(e)
		}
	}
	for i := range c.others {
		syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, c.others[i][0], c.others[i][1], 0, 0, 0, 0)
	}
	if !c.expendable {
		return 0, 0
	}
	at := -1 // AT_FDCWD would do as well: the path is absolute
	fd, _, e := syscall.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&oomFile)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e == 0 { // tolerated: it only makes another process the one that is chosen
		syscall.RawSyscall6(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&oomNormal)), 1, 0, 0, 0)
		syscall.RawSyscall6(unix.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
	}
	return 0, 0
}

// apply turns the calling thread into the image's program. It returns only if a
// stage failed. It allocates nothing, grows no stack and makes raw system calls
// only, because it also runs between fork and exec.
//
//go:nosplit
//go:norace
//go:nocheckptr
func apply(img *Image) (stage, errno uint32) {
	for _, sig := range img.signals {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&img.action)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&img.mask)), 0, 8, 0, 0)
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, wire.UsualSlack, 0, 0, 0, 0)
	if img.Session {
		if _, _, e := syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0); e != 0 {
			return stageSession, uint32(e)
		}
	}
	if img.TTY >= 0 {
		if _, _, e := syscall.RawSyscall6(unix.SYS_IOCTL, uintptr(img.TTY), unix.TIOCSCTTY, 0, 0, 0, 0); e != 0 {
			return stageTTY, uint32(e)
		}
		for fd := uintptr(0); fd < 3; fd++ {
			if _, _, e := syscall.RawSyscall6(unix.SYS_DUP3, uintptr(img.TTY), fd, 0, 0, 0, 0); e != 0 {
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
func loadFilter(img *Image) uint32 {
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
func credentials(img *Image) (stage, errno uint32) {
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
func execute(img *Image) uint32 {
	if fd := img.child.agent; fd != 0 {
		_, _, e := syscall.RawSyscall6(unix.SYS_EXECVEAT, fd, uintptr(unsafe.Pointer(&noText)),
			uintptr(unsafe.Pointer(&img.args[0])), uintptr(unsafe.Pointer(&img.env[0])), unix.AT_EMPTY_PATH, 0)
		return uint32(e)
	}
	result := uint32(unix.ENOENT)
	at := -100 // AT_FDCWD
	for _, path := range img.paths {
		// An attempt at what is not there costs the kernel a new, empty memory and a copy of
		// the arguments, which is thrown away.
		if len(img.paths) > 1 {
			_, _, e := syscall.RawSyscall6(unix.SYS_FACCESSAT, uintptr(at), uintptr(unsafe.Pointer(path)), unix.F_OK, 0, 0, 0)
			if e == unix.ENOENT || e == unix.ENOTDIR {
				continue
			}
		}
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

// herald is Herald, in the form that system calls take.
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
