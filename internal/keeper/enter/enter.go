package enter

import (
	"encoding/binary"
	"strconv"
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

// Plan is all that the two processes need. Every descriptor belongs to the
// caller and stays open there; none of Files may be less than len(Files).
type Plan struct {
	Join    []int    // cgroup files, open for writing, into which the first process writes "0"
	Group   int      // cgroup v2: folder of the group in which the first process is born; 0: the caller's
	Target  int      // pidfd of a process in the namespaces
	Flags   int      // CLONE_NEW… of the namespaces to enter
	Program int      // what to execute
	Args    []string // its arguments, the name included
	Env     []string
	Files   []int // become descriptors 0, 1, 2 …; Program and Report must not be among them
	Report  int   // writing side of the pipe, close-on-exec
	SetIDs  bool  // become user and group 0 of the user namespace that was entered
}

// The stages that can fail, in order.
const (
	stageDone = iota // reports the pid of the second process
	stageJoin
	stageNamespaces
	stageClone
	stageSession
	stageFiles
	stageIDs
	stageExec
	stages
)

var stageNames = [stages]string{
	"", "join the cgroup", "enter the namespaces", "start a process in the pid namespace",
	"start a session", "hand over descriptors", "become root of the user namespace", "execute the agent",
}

// ReportSize is the size of one report on the pipe. Unit: bytes.
const ReportSize = 12

// Report is what either process said.
type Report struct {
	PID   int    // of the second process, 0 in a failure
	Stage string // what failed
	Errno syscall.Errno
}

// ParseReport reads a report; ok is false where b is none.
func ParseReport(b []byte) (r Report, ok bool) {
	if len(b) != ReportSize {
		return r, false
	}
	stage := binary.NativeEndian.Uint32(b)
	errno, pid := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	if stage >= stages || (stage == stageDone) != (pid != 0 && errno == 0) {
		return r, false
	}
	return Report{PID: int(pid), Stage: stageNames[stage], Errno: syscall.Errno(errno)}, true
}

// Gone tells whether the target is at its end: it has no namespaces any more. Until it is
// known to have ended it may take long, as the first process of a pid namespace waits for
// all others. Source: Linux, kernel/exit.c, do_exit; kernel/pid_namespace.c, zap_pid_ns_processes.
func (r Report) Gone() bool { return r.Stage == stageNames[stageNamespaces] && r.Errno == unix.ESRCH }

func (r Report) Error() string {
	return r.Stage + ": " + r.Errno.Error() + " (" + strconv.Itoa(int(r.Errno)) + ")"
}

// prepared holds a Plan in the form that system calls take.
type prepared struct {
	join    []int
	clone   cloneArgs
	files   []int
	target  uintptr
	flags   uintptr
	program uintptr
	report  uintptr
	setIDs  bool
	argv    **byte
	envv    **byte
	zero    *byte
	empty   *byte
	action  [64]byte // a struct sigaction of zeros: SIG_DFL
	message [3]uint32
}

// cloneArgs is what clone3(2) reads. Source: linux/sched.h, struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// Start makes the two processes and returns the pid of the first, which the
// caller must wait for once the pipe of reports has ended.
func Start(p *Plan) (pid int, err error) {
	argv, err := syscall.SlicePtrFromStrings(p.Args)
	if err != nil {
		return 0, err
	}
	envv, err := syscall.SlicePtrFromStrings(p.Env)
	if err != nil {
		return 0, err
	}
	s := &prepared{
		join: p.Join, files: p.Files, target: uintptr(p.Target), flags: uintptr(p.Flags),
		program: uintptr(p.Program), report: uintptr(p.Report), setIDs: p.SetIDs,
		argv: &argv[0], envv: &envv[0], zero: unsafe.StringData("0"), empty: unsafe.StringData("\x00"),
	}
	if p.Group != 0 {
		s.clone = cloneArgs{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(p.Group)}
	}
	syscall.ForkLock.Lock()
	n, errno := fork(s)
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// fork must not be inlined: the stack it needs is grown before beforeFork.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(s *prepared) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	if s.clone.flags != 0 {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&s.clone)), unsafe.Sizeof(s.clone), 0, 0, 0, 0)
	} else {
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	first(s)
	return 0, 0 // not reached
}

// fail reports a stage and ends the process.
//
//go:nosplit
//go:norace
func fail(s *prepared, stage uint32, errno syscall.Errno) {
	s.message[0], s.message[1], s.message[2] = stage, uint32(errno), 0
	syscall.RawSyscall6(unix.SYS_WRITE, s.report, uintptr(unsafe.Pointer(&s.message)), ReportSize, 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}

// first runs in the forked child, outside of the pid namespace.
//
//go:nosplit
//go:norace
//go:nocheckptr
func first(s *prepared) {
	for _, fd := range s.join {
		if _, _, errno := syscall.RawSyscall6(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(s.zero)), 1, 0, 0, 0); errno != 0 {
			fail(s, stageJoin, errno)
		}
	}
	if s.flags != 0 {
		if _, _, errno := syscall.RawSyscall6(unix.SYS_SETNS, s.target, s.flags, 0, 0, 0, 0); errno != 0 {
			fail(s, stageNamespaces, errno)
		}
	}
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.CLONE_PARENT|unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		fail(s, stageClone, errno)
	}
	if pid == 0 {
		second(s)
	}
	s.message[0], s.message[1], s.message[2] = stageDone, 0, uint32(pid)
	syscall.RawSyscall6(unix.SYS_WRITE, s.report, uintptr(unsafe.Pointer(&s.message)), ReportSize, 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}

// second runs inside, and ends in the agent.
//
//go:nosplit
//go:norace
//go:nocheckptr
func second(s *prepared) {
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0); errno != 0 {
		fail(s, stageSession, errno)
	}
	for i, fd := range s.files {
		if _, _, errno := syscall.RawSyscall6(unix.SYS_DUP3, uintptr(fd), uintptr(i), 0, 0, 0, 0); errno != 0 {
			fail(s, stageFiles, errno)
		}
	}
	// What the caller ignores, and that its memory has no huge pages, is its own affair.
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&s.action)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_THP_DISABLE, 0, 0, 0, 0, 0)
	if s.setIDs {
		ids(s)
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EXECVEAT, s.program, uintptr(unsafe.Pointer(s.empty)),
		uintptr(unsafe.Pointer(s.argv)), uintptr(unsafe.Pointer(s.envv)), unix.AT_EMPTY_PATH, 0)
	fail(s, stageExec, errno)
}

//go:nosplit
//go:norace
func ids(s *prepared) {
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SETGROUPS, 0, 0, 0, 0, 0, 0); errno != 0 {
		fail(s, stageIDs, errno)
	}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SETRESGID, 0, 0, 0, 0, 0, 0); errno != 0 {
		fail(s, stageIDs, errno)
	}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SETRESUID, 0, 0, 0, 0, 0, 0); errno != 0 {
		fail(s, stageIDs, errno)
	}
}
