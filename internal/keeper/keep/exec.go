package keep

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/enter"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

const (
	maxExecs = 64
	maxJoin  = 32
	// enterWithin bounds the way into the namespaces, which is long only where the
	// processes of the environment are frozen.
	enterWithin = 10 * time.Second
	// startWithin bounds what the agent does there before it executes the program.
	startWithin = 30 * time.Second
)

// execPhase is how far an exec is.
type execPhase uint8

const (
	execEntering execPhase = iota // forked
	execStarting                  // the agent runs inside
	execRunning                   // the program runs, and the daemon knows
)

// execution is one exec'd program.
type execution struct {
	program
	phase    execPhase
	first    int // pid of the process that enters; 0: reaped
	pid      int // the program's, 0: not known
	report   int // reading side of the reports
	sync     int // socket to the program
	said     int
	failure  *wire.Failure // why it did not start
	asker    *conn         // whom to answer; nil: answered
	deadline time.Time
}

// execute starts a program inside, for the daemon at c and with client fd, which
// is taken only where no fault is returned.
func (k *keeper) execute(c *conn, e wire.Exec, fd int) *wire.Failure {
	if k.machine != nil {
		return k.machine.execute(c, e, fd)
	}
	switch {
	case k.agent < 0:
		return &wire.Failure{Kind: "unable", Message: "this keeper cannot start further programs"}
	case len(k.execs) >= maxExecs:
		return busy("64 programs run by exec in this environment already")
	}
	x := &execution{report: -1, sync: -1, asker: c, deadline: time.Now().Add(enterWithin)}
	x.program.init(k)
	x.program.x, x.owned, x.tty, x.pace = x, true, e.Process.TTY, &k.adrift
	if err := x.join(fd, true); err != nil {
		return joinFault(err)
	}
	x.clients[0].fd = -1 // not its own yet
	if err := x.fork(e); err != nil {
		x.clients = nil
		x.release()
		return internal("start a program inside", err)
	}
	x.clients[0].fd = fd
	k.execs = append(k.execs, x)
	k.want(x.report, readable, (*reports)(x))
	k.want(x.sync, readable, (*execSync)(x))
	return nil
}

// fork makes every descriptor and the processes.
func (x *execution) fork(e wire.Exec) (err error) {
	process, err := json.Marshal(e.Process)
	if err != nil {
		return err
	}
	var theirs []int // the program's own ends, in order
	defer func() {
		for _, fd := range theirs {
			unix.Close(fd)
		}
	}()
	if theirs, err = x.stdio(e.Process.Stdin, x.k.spec.Owner); err != nil {
		return err // theirs holds what was made until then
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	x.sync, theirs = pair[0], append(theirs, pair[1])
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	theirs = append(theirs, p[0])
	err = writeWhole(p[1], process)
	unix.Close(p[1])
	if err != nil {
		return err
	}
	files, folder := unified(e.Join)
	join, err := openJoin(files)
	defer closeAll(join)
	if err != nil {
		return err
	}
	group := 0
	if folder != "" {
		if group, err = unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(group)
	}
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	x.report = p[0]
	x.first, err = enter.Start(&enter.Plan{
		Join: join, Group: group, Target: x.k.main.pidfd, Flags: x.k.flags(), Program: x.k.agent,
		Args: wire.ExecArgs, Files: theirs, Report: p[1],
		SetIDs: x.k.flags()&unix.CLONE_NEWUSER != 0,
	})
	unix.Close(p[1])
	return err
}

// writeWhole writes b to a fresh pipe, which has room for a request's worth of it.
func writeWhole(fd int, b []byte) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	n, err := unix.Write(fd, b)
	if err == nil && n != len(b) {
		err = unix.E2BIG
	}
	return err
}

// unified splits the folder of the v2 group, in which a process can be born, from the files of others.
func unified(join []string) (files []string, folder string) {
	for _, name := range join {
		if dir, ok := strings.CutSuffix(name, "/cgroup.procs"); ok {
			folder = dir
		} else {
			files = append(files, name)
		}
	}
	return files, folder
}

func openJoin(files []string) (fds []int, err error) {
	for _, name := range files {
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// flags are the namespaces that a program must enter to be inside.
func (k *keeper) flags() int {
	const all = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS |
		unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
	if !k.spec.Exec.Join {
		return 0
	}
	return int(k.spec.Payload.CloneFlags) & all
}

// reports is an execution's pipe of reports.
type reports execution

func (r *reports) ready(uint32) {
	x := (*execution)(r)
	var b [enter.ReportSize]byte
	n, err := unix.Read(x.report, b[:])
	if err == unix.EINTR || err == unix.EAGAIN {
		return
	}
	if n > 0 {
		report, ok := enter.ParseReport(b[:n])
		switch {
		case !ok:
		case report.Gone():
			x.fail(conflict(endedBefore))
		case report.Errno == unix.ESRCH || report.Errno == unix.ENOMEM: // as in a pid namespace whose first process has ended
			x.fail(x.cut("start a program inside: " + report.Error()))
		case report.PID == 0:
			x.fail(internal("start a program inside", report))
		default:
			x.born(report.PID)
		}
		return
	}
	// Both processes have executed or ended.
	x.k.close(&x.report)
	unix.Wait4(x.first, nil, 0, nil)
	x.first = 0
	if x.pid == 0 {
		x.fail(x.cut("start a program inside: its process died on the way"))
	}
	x.entered()
	x.settle()
	x.remove()
}

// cut is the failure of a program whose process ended on its way: with the environment, or
// of itself, which message tells.
func (x *execution) cut(message string) *wire.Failure {
	if x.k.main.pidfd < 0 || x.k.ending() {
		return conflict(endedBefore)
	}
	return &wire.Failure{Kind: "internal", Message: message}
}

const endedBefore = "the environment ended before the program ran"

// entered notes that the agent was executed inside.
func (x *execution) entered() {
	if x.phase == execEntering {
		x.phase, x.deadline = execStarting, time.Now().Add(startWithin)
	}
}

// born takes the program's process on, which is a child of the keeper.
func (x *execution) born(pid int) {
	x.pid = pid
	x.k.offer(pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		unix.Kill(pid, unix.SIGKILL)
		x.fail(internal("watch the program", err))
		unix.Wait4(pid, nil, 0, nil)
		x.pid = 0
		return
	}
	x.pidfd = fd
	x.k.want(fd, readable, (*execEnd)(x))
}

// execSync is an execution's socket to its program.
type execSync execution

func (s *execSync) ready(uint32) {
	x := (*execution)(s)
	b := x.k.buffer()
	n, fd, err := receivePacket(x.sync, b[:wire.MaxMessage])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	x.said++
	if err != nil || n == 0 || x.said > maxSaid {
		discard(fd)
		x.k.close(&x.sync)
		x.settle()
		return
	}
	m, _ := parseMessage(b[:n])
	switch {
	case m.Type == wire.TTY && fd >= 0 && x.tty && x.peer < 0 && x.phase != execRunning:
		if x.terminal(fd) == nil {
			return
		}
	case m.Type == wire.Failed:
		x.fail(bounded(m.Fault))
	case m.Type == wire.Started:
		x.k.close(&x.sync)
		x.settle()
	}
	discard(fd)
}

// settle notices that the program runs: the agent was executed, and has closed
// its socket without a failure.
func (x *execution) settle() {
	if x.phase != execStarting || x.sync >= 0 || x.failure != nil || x.pid == 0 {
		return
	}
	x.phase = execRunning
	st := x.k.status()
	x.reply(wire.Reply{Status: &st})
	x.start()
}

// fail notes why the program did not start, tells the daemon, and kills what is
// there of it. The execution stays until its processes are gone.
func (x *execution) fail(f *wire.Failure) {
	if x.failure != nil || x.phase == execRunning {
		return
	}
	x.failure = f
	x.reply(wire.Reply{Fault: f})
	x.kill()
	x.abandon()
}

func (x *execution) reply(r wire.Reply) {
	if x.asker != nil && x.asker.fd >= 0 {
		x.asker.answer(r)
	}
	x.asker = nil
}

func (x *execution) kill() {
	if x.far != nil {
		x.far.kill()
		return
	}
	x.signal(int(unix.SIGKILL))
	if x.first != 0 {
		unix.Kill(x.first, unix.SIGKILL)
	}
}

// execEnd is an execution's pidfd.
type execEnd execution

func (e *execEnd) ready(uint32) {
	x := (*execution)(e)
	var ws unix.WaitStatus
	pid, err := unix.Wait4(x.pid, &ws, unix.WNOHANG, nil)
	if err == unix.EINTR || err == nil && pid == 0 {
		return
	}
	x.over(ws)
}

// over is the end of the program's process.
func (x *execution) over(ws unix.WaitStatus) {
	// What it said, and how it was executed, may still wait to be read.
	for range 3 {
		if x.report >= 0 {
			(*reports)(x).ready(0)
		}
	}
	x.entered()
	for before := -1; x.sync >= 0 && x.said != before; {
		before = x.said
		(*execSync)(x).ready(0)
	}
	x.k.close(&x.sync)
	x.settle()
	if x.phase != execRunning {
		x.fail(x.cut("the agent ended before the program ran: " + describe(ws)))
	} else {
		e := statusOf(ws)
		x.finish(stream.ExitPayload(stream.Ended{Status: uint8(e.Status), Signal: uint8(e.Signal)}))
	}
	x.k.close(&x.pidfd)
	x.pid = 0
	x.remove()
}

// remove takes the execution off the list once nothing of it is left.
func (x *execution) remove() {
	if x.first != 0 || x.pid != 0 || len(x.clients) > 0 {
		return
	}
	x.release()
	for i, other := range x.k.execs {
		if other == x {
			x.k.execs = append(x.k.execs[:i], x.k.execs[i+1:]...)
			return
		}
	}
}

func (x *execution) release() {
	x.abandon()
	x.k.close(&x.pidfd)
	x.k.close(&x.report)
	x.k.close(&x.sync)
	if x.far != nil {
		x.far.forget()
	}
}

func (x *execution) tick(now time.Time) {
	if x.phase != execRunning && x.failure == nil && now.After(x.deadline) {
		f := busy("the environment did not let a program in; is it paused?")
		if x.k.machine != nil {
			f = busy("the agent inside did not start it in " + startWithin.String())
			f.Hint = "the system inside may hang: `strata logs --kernel` and `strata console` show what it says, and `strata kill` ends it"
		}
		x.fail(f)
	}
	x.program.tick(now)
	x.remove()
}
