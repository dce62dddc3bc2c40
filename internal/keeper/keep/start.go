package keep

import (
	"cmp"
	"encoding/json"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// maxSpec bounds the Spec's JSON. Unit: bytes.
const maxSpec = 1 << 20

// Run is the whole of cmd/strata-keeper; it returns the exit status. The caller
// has locked the goroutine to the process's main thread.
func Run() int {
	// Programs inside must never see this memory, not even the copy of it that an
	// exec has for a moment.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.CloseRange(wire.SpecFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	unix.Umask(0o022)
	k := &keeper{daemon: -1, payload: -1, notify: -1, control: -1, agent: -1}
	k.main.init(k)
	if fault := k.prepare(); fault != nil {
		if k.daemon >= 0 {
			sendJSON(k.daemon, wire.Message{Type: wire.Failed, Fault: fault})
		}
		if k.pid != 0 {
			unix.Kill(k.pid, unix.SIGKILL)
			unix.Wait4(k.pid, nil, 0, nil)
		}
		if k.machine != nil {
			k.machine.endBeside()
		}
		k.leave()
		return 1
	}
	ignoreSignals()
	k.busy, k.litter = true, true
	k.run()
	return 0
}

// prepare brings the keeper to the point where the payload waits for go.
func (k *keeper) prepare() *wire.Failure {
	var err error
	if k.loop, err = newLoop(); err != nil {
		return internal("make an event loop", err)
	}
	if k.daemon, err = unix.FcntlInt(wire.SyncFD, unix.F_DUPFD_CLOEXEC, wire.PayloadFD); err != nil {
		return internal("take over the daemon's socket", err)
	}
	b, err := readAll(wire.SpecFD, maxSpec)
	if err != nil {
		return internal("read the spec", err)
	}
	if err := json.Unmarshal(b, &k.spec); err != nil {
		return internal("read the spec", err)
	}
	// Descriptors 3 and 4 stay taken: an exec'd program gets its own under these
	// numbers, and would overwrite one of the keeper's.
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return internal("open /dev/null", err)
	}
	unix.Dup3(null, wire.SpecFD, unix.O_CLOEXEC)
	unix.Dup3(null, wire.SyncFD, unix.O_CLOEXEC)
	unix.Close(null)
	k.started = startTime()
	k.log = logfile.Writer{Dir: k.spec.Log.Dir, Size: k.spec.Log.Size, Files: k.spec.Log.Files}
	k.main.log, k.main.tty = &k.log, k.spec.TTY
	k.logged = []*program{&k.main}
	if k.spec.Exec.Agent != "" {
		if k.agent, err = unix.Open(k.spec.Exec.Agent, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return internal("open "+k.spec.Exec.Agent, err)
		}
	}
	if k.spec.Machine != nil {
		if fault := k.newMachine(); fault != nil {
			return fault
		}
	}
	if err := k.listen(); err != nil {
		return internal("listen on "+k.spec.Socket, err)
	}
	if k.spec.Attach != 0 {
		if err := k.main.join(k.spec.Attach, true); err != nil {
			return joinFault(err)
		}
	}
	return k.spawn()
}

// maxSocketPath is what fits into a struct sockaddr_un with its final zero.
const maxSocketPath = 107

func (k *keeper) listen() (err error) {
	path := k.spec.Socket
	k.control, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	// What a keeper that was killed left there; a live one has its own folder.
	unix.Unlink(path)
	mask := unix.Umask(0o177)
	err = bind(k.control, path)
	unix.Umask(mask)
	if err != nil {
		k.close(&k.control)
		return err
	}
	k.want(k.control, readable, controlSocket{k})
	return unix.Listen(k.control, 32)
}

// bind binds to path however long it is: by way of its folder's descriptor.
func bind(sock int, path string) error {
	if len(path) > maxSocketPath {
		cut := len(path) - 1
		for cut > 0 && path[cut] != '/' {
			cut--
		}
		dir, err := unix.Open(path[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		path = "/proc/self/fd/" + strconv.Itoa(dir) + path[cut:]
	}
	return unix.Bind(sock, &unix.SockaddrUnix{Name: path})
}

// spawn makes the payload and tells the daemon.
func (k *keeper) spawn() *wire.Failure {
	var theirs []int
	var err error
	if k.machine != nil {
		theirs, err = k.machine.stdio()
	} else {
		theirs, err = k.main.stdio(k.spec.Stdin, k.spec.Owner)
	}
	if err != nil {
		closeAll(theirs)
		return internal("make the payload's standard streams", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		closeAll(theirs)
		return internal("make the payload's socket", err)
	}
	k.payload, theirs = pair[0], append(theirs, pair[1])
	for i := range k.spec.Payload.Files {
		theirs = append(theirs, wire.PayloadFD+i)
	}
	if k.machine != nil {
		err = k.machine.startBeside(theirs[2])
	}
	if err == nil {
		err = k.clone(theirs)
	}
	closeAll(theirs)
	if k.spec.Payload.CgroupFD != 0 {
		unix.Close(k.spec.Payload.CgroupFD)
	}
	if err != nil {
		return &wire.Failure{Kind: "internal", Message: "start the payload: " + err.Error()}
	}
	if k.main.pidfd < 0 {
		if k.main.pidfd, err = unix.PidfdOpen(k.pid, 0); err != nil {
			return internal("watch the payload", err)
		}
	}
	k.oomBase, _ = readCounter(k.spec.OOM)
	k.want(k.main.pidfd, readable, payloadEnd{k})
	k.want(k.payload, readable, payloadSocket{k})
	k.want(k.daemon, readable, daemonSocket{k})
	if k.machine != nil {
		k.machine.begin()
	}
	if err := sendJSON(k.daemon, wire.Message{Type: wire.Cloned, PID: k.pid}); err != nil {
		return internal("tell the daemon", err)
	}
	return nil
}

// clone starts the payload's process.
func (k *keeper) clone(files []int) error {
	p := &k.spec.Payload
	attr := &syscall.ProcAttr{Dir: "/", Env: p.Env, Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &k.main.pidfd}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	sys := attr.Sys
	// The root of a new cgroup namespace is the group of whoever makes it, and a
	// process born into a group by clone3 is there only after clone3 made its
	// namespaces: so that one is made by the child.
	sys.Cloneflags = uintptr(p.CloneFlags &^ unix.CLONE_NEWCGROUP)
	sys.Unshareflags = uintptr(p.CloneFlags & unix.CLONE_NEWCGROUP)
	if p.CloneFlags&unix.CLONE_NEWUSER != 0 && p.IDCount > 0 {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(p.IDBase), Size: int(p.IDCount)}}
		sys.UidMappings, sys.GidMappings, sys.GidMappingsEnableSetgroups = ids, ids, true
		sys.Credential = &syscall.Credential{}
	}
	if p.CgroupFD != 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, p.CgroupFD
	}
	result := make(chan error)
	go func() {
		// A thread of its own, which ends here: it joins the payload's groups, the
		// keeper's other threads stay where they are.
		runtime.LockOSThread()
		result <- joinAndStart(p, attr, &k.pid)
	}()
	err := <-result
	if err == nil {
		k.offer(k.pid)
	}
	return err
}

// offer tells the kernel how readily it is to choose pid, and what pid starts from here
// on, when the host is short of memory. Where the kernel refuses, it stays as the
// keeper's is, with the host's own programs.
func (k *keeper) offer(pid int) {
	if v := k.spec.Payload.Victim; v != 0 {
		offerAs(pid, []byte(strconv.Itoa(v)))
	}
}

// offerAgain is offer of a payload that was somebody else's until now, and so was offered.
func (k *keeper) offerAgain() {
	if k.spec.Payload.Victim != 0 {
		k.offer(k.pid)
		return
	}
	fd, err := unix.Open("/proc/self/oom_score_adj", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	var own [8]byte
	n, err := unix.Read(fd, own[:])
	unix.Close(fd)
	if err == nil {
		offerAs(k.pid, own[:n])
	}
}

func offerAs(pid int, score []byte) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Write(fd, score)
	unix.Close(fd)
}

func joinAndStart(p *wire.Payload, attr *syscall.ProcAttr, pid *int) error {
	fds, err := openJoin(p.Join)
	defer closeAll(fds)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return err
		}
	}
	// The payload inherits it, and would have the keeper's; without, it only costs more.
	unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(cmp.Or(p.Slack, wire.UsualSlack)), 0, 0, 0)
	if p.CloneFlags&unix.CLONE_NEWUSER != 0 && p.IDCount > 0 {
		ownedBy(p.IDBase)
	}
	*pid, _, err = syscall.StartProcess(p.Path, p.Args, attr)
	return err
}

// keepCapabilities keeps a change of user ids from changing capabilities. A new
// user namespace starts without it.
// Source: linux/securebits.h, SECBIT_NO_SETUID_FIXUP.
const keepCapabilities = 1 << 2

// ownedBy makes the user namespaces that the calling thread makes belong to id,
// the payload's own root. What the kernel counts by user (inotify instances,
// namespaces, keys) it counts against the owner as well, and that would be the
// host's root: one payload could take all that the host and all others have.
// Where the kernel refuses, it stays so. The thread must end with its work.
func ownedBy(id uint32) {
	const as = ^uintptr(0) // -1: as it is
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, keepCapabilities, 0, 0, 0, 0); errno == 0 {
		unix.RawSyscall(unix.SYS_SETRESUID, as, uintptr(id), as)
	}
}

// stdio makes the keeper's and the program's ends of the standard streams, and
// returns the latter; the caller closes them, after an error as well.
func (p *program) stdio(stdin bool, owner uint32) (theirs []int, err error) {
	for i := range 3 {
		var other int
		switch {
		case p.tty || i == 0 && !stdin:
			other, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		case i == 0:
			p.in.fd, other, err = pipeTo(owner, 1)
		default:
			p.out[i-1].fd, other, err = pipeTo(owner, 0)
		}
		if err != nil {
			return theirs, err
		}
		theirs = append(theirs, other)
	}
	return theirs, nil
}

// pipeTo makes a pipe of which side ours (0 reads, 1 writes) stays here. Any user
// inside may open it anew (/dev/stderr): whoever sees it under /proc has it open.
func pipeTo(owner uint32, side int) (ours, theirs int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
	ours, theirs = p[side], p[1-side]
	err = unix.SetNonblock(ours, true)
	if err == nil {
		err = unix.Fchmod(theirs, 0o666)
	}
	if err == nil && int(owner) != unix.Geteuid() {
		err = unix.Fchown(theirs, int(owner), int(owner))
	}
	if err != nil {
		unix.Close(ours)
		unix.Close(theirs)
		return -1, -1, err
	}
	return ours, theirs, nil
}

// ignoreSignals keeps a signal that was meant for another from ending the
// keeper. It comes after the payload's start, which would inherit it; an exec
// undoes it in its child.
func ignoreSignals() {
	action := [8]uint64{1} // SIG_IGN, no flags, no mask, in the kernel's struct sigaction of amd64 and arm64
	for _, sig := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
	} {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	// The runtime's mappings are large and hardly touched: huge pages would fill them.
	unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
}

// startTime returns field 22 of /proc/self/stat. Source: proc(5).
func startTime() uint64 {
	b, err := readFile("/proc/self/stat", 4096)
	if err != nil {
		return 0
	}
	return StartTime(b)
}

// StartTime returns field 22, the start time, of the content of a /proc/PID/stat;
// 0 where it is none.
func StartTime(b []byte) uint64 {
	// The second field is the name in brackets, and may hold anything.
	i := len(b) - 1
	for i >= 0 && b[i] != ')' {
		i--
	}
	field := 2
	for i++; i < len(b); i++ {
		if b[i] != ' ' {
			continue
		}
		if field++; field == 22 {
			end := i + 1
			for end < len(b) && b[end] >= '0' && b[end] <= '9' {
				end++
			}
			n, err := strconv.ParseUint(string(b[i+1:end]), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
