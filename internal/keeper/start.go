package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// Options say what to start.
type Options struct {
	Binary string    // path of strata-keeper
	Spec   wire.Spec // Payload.Files, Payload.CgroupFD, Attach and Machine are set by Start
	Files  []*os.File
	// Cgroup is the cgroup v2 folder in which the payload is born; nil: none.
	Cgroup *os.File
	// Own is the cgroup v2 folder in which the keeper itself is born; nil: the caller's.
	// Within calls start so that what it starts is born in groups of cgroup v1; nil: the
	// caller's.
	Own    *os.File
	Within func(start func() error) error
	// Attach is the first client of the main program's streams; nil: none. The
	// caller keeps its own.
	Attach *os.File
	// Machine is what a keeper has besides whose payload is QEMU; nil: it is not.
	Machine *Machine
}

// Machine are the keeper's ends of the sockets whose other ends are QEMU's, and
// what runs beside QEMU. The caller keeps and closes its own descriptors.
type Machine struct {
	Streams, Monitor, Console *os.File
	ConsoleLog                wire.Log
	Beside                    []Beside
	Alone                     bool // no agent is inside: the run starts with Go
	Serial                    bool // Streams leads to a serial port
}

// Beside is a process beside QEMU, with its files from descriptor 3 on.
type Beside struct {
	Name       string // what it is called where its end is told
	Path       string
	Args       []string
	CloneFlags uint64
	Files      []*os.File
}

// Starting is a payload that waits for Go.
type Starting struct {
	PID       int // the payload's first process
	KeeperPID int
	Began     time.Time // nothing of this start is older: what runs may write before Start has returned

	conn   *net.UnixConn
	runs   bool            // Go has returned a keeper
	gone   <-chan struct{} // closed when the keeper has ended
	keeper *Keeper
}

// environment keeps the keeper's Go runtime small: one processor, a heap that is
// collected early, no huge pages under it, no files of cgroups held open.
var environment = []string{"GOMAXPROCS=1", "GOGC=20", "GODEBUG=disablethp=1,containermaxprocs=0", "GOTRACEBACK=none"}

// slack is the keeper's timer slack. A thread of Go's runtime looks after the others
// every 20 µs while they work: a fifth of the processor time of a start, and of
// no use to a keeper, whose own time limits are of seconds. Unit: nanoseconds.
const slack = 10_000_000

// Start runs a keeper and returns once its payload exists. ctx bounds the start.
// Kinds: those of the payload's failure, Internal, Busy where ctx ended.
func Start(ctx context.Context, o Options) (*Starting, error) {
	began := time.Now()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Internalf("make the keeper's socket: %w", err)
	}
	conn, err := packetConn(pair[0])
	if err != nil {
		unix.Close(pair[1])
		return nil, err
	}
	pid, gone, err := o.spawn(pair[1])
	unix.Close(pair[1])
	if err != nil {
		conn.Close()
		return nil, fault.Wrap(err, "start the keeper %s", o.Binary)
	}
	s := &Starting{
		KeeperPID: pid, Began: began, conn: conn, gone: gone,
		keeper: &Keeper{socket: o.Spec.Socket, KeeperPID: pid},
	}
	m, err := s.hear(ctx)
	if err == nil && m.Type != wire.Cloned {
		err = fault.Internalf("start the keeper: it says %q first", m.Type)
	}
	if err != nil {
		s.Abort(context.WithoutCancel(ctx))
		return nil, err
	}
	s.PID, s.keeper.PID = m.PID, m.PID
	return s, nil
}

// Take makes a machine that was started as a spare t's. attach is the first client
// of the main program's streams, as Options.Attach is; nil: none. The machine must
// stand still until Take has returned, and is of no more use after an error. Kinds:
// those of the keeper's refusal, Internal, Busy where ctx ended.
func (s *Starting) Take(ctx context.Context, t wire.Taken, attach *os.File) error {
	s.Began = time.Now()
	if err := writePacket(ctx, s.conn, wire.Message{Type: wire.Take, Take: &t}, attach); err != nil {
		return err
	}
	m, err := s.hear(ctx)
	if err == nil && m.Type != wire.Took {
		err = fault.Internalf("take a spare machine: the keeper says %q", m.Type)
	}
	if err == nil {
		s.keeper.socket = t.Socket
	}
	return err
}

// Gone is closed when the keeper has ended.
func (s *Starting) Gone() <-chan struct{} { return s.gone }

// Go lets the payload run its main program and returns once it does. After an
// error nothing is left. Kinds: those of the payload's failure, Internal, Busy
// where ctx ended.
func (s *Starting) Go(ctx context.Context) (*Keeper, error) {
	said := s.say(wire.Go)
	// A keeper that has gone already said why before.
	m, err := s.hear(ctx)
	if err != nil && said != nil && m.Type != wire.Failed && !errors.Is(err, ErrLost) {
		err = said
	}
	if err == nil && m.Type != wire.Started {
		err = fault.Internalf("start the payload: the keeper says %q", m.Type)
	}
	if err != nil {
		s.Abort(context.WithoutCancel(ctx))
		return nil, err
	}
	s.conn.Close()
	s.runs = true
	return s.keeper, nil
}

// Abort ends the payload and the keeper, and returns when both are gone or ctx
// has ended. Calling it after Go has returned does nothing.
func (s *Starting) Abort(ctx context.Context) error {
	if s.runs {
		return nil
	}
	s.say(wire.Abort) // an error means that the keeper goes already
	s.conn.Close()
	late := time.NewTimer(abortWithin)
	defer late.Stop()
	for {
		select {
		case <-s.gone:
			return nil
		case <-late.C:
			// Its pid is its own until gone is closed. The payload ends with its cgroup.
			unix.Kill(s.KeeperPID, unix.SIGKILL)
		case <-ctx.Done():
			return fault.Busyf("end the keeper %d: %w", s.KeeperPID, ctx.Err())
		}
	}
}

// abortWithin is how long a keeper may take to end its payload, before it is
// killed and the payload left to whoever owns its cgroup.
const abortWithin = 10 * time.Second

func (s *Starting) say(what string) error {
	b, err := json.Marshal(wire.Message{Type: what})
	if err == nil {
		_, err = s.conn.Write(b)
	}
	if err != nil {
		return fault.Internalf("tell the keeper %q: %w", what, err)
	}
	return nil
}

// hear waits for the keeper's next message; a failed one is an error.
func (s *Starting) hear(ctx context.Context) (m wire.Message, err error) {
	b, err := readPacket(ctx, s.conn)
	if errors.Is(err, unix.ECONNRESET) {
		// It went without having read all that it was told. The kernel says so first,
		// and once, and what the keeper said before it went is still there.
		b, err = readPacket(ctx, s.conn)
	}
	if errors.Is(err, io.EOF) {
		return m, fault.Internalf("%w before it told how the start went", ErrLost)
	}
	if err != nil {
		return m, fault.Wrap(err, "hear from the keeper at its start")
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fault.Internalf("read the keeper's message: %w", err)
	}
	if m.Type == wire.Failed {
		return m, failure(m.Fault)
	}
	return m, nil
}

// spawn runs the keeper's process with sync as its socket.
func (o Options) spawn(sync int) (pid int, gone <-chan struct{}, err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fault.Internalf("open /dev/null: %w", err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		unix.Close(null)
		return 0, nil, fault.Internalf("make a pipe: %w", err)
	}
	fds = append(fds, null, p[0])
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(p[0]), uintptr(sync)}
	hand := func(f *os.File) (number int, err error) {
		fd, err := duplicate(f)
		if err == nil {
			fds, files = append(fds, fd), append(files, uintptr(fd))
		}
		return len(files) - 1, err
	}
	spec := o.Spec
	spec.Payload.Files, spec.Payload.CgroupFD, spec.Attach = len(o.Files), 0, 0
	for _, f := range o.Files {
		if _, err = hand(f); err != nil {
			break
		}
	}
	if err == nil && o.Cgroup != nil {
		spec.Payload.CgroupFD, err = hand(o.Cgroup)
	}
	if err == nil && o.Attach != nil {
		spec.Attach, err = hand(o.Attach)
	}
	if err == nil && o.Machine != nil {
		spec.Machine, err = o.Machine.hand(hand)
	}
	var body []byte
	if err == nil {
		body, err = json.Marshal(spec)
	}
	if err == nil {
		pid, gone, err = o.run(files)
	}
	w := os.NewFile(uintptr(p[1]), "spec")
	go func() {
		w.Write(body) // a keeper that does not read says so on its socket
		w.Close()
	}()
	return pid, gone, err
}

// hand hands the machine's files over.
func (m *Machine) hand(hand func(*os.File) (int, error)) (_ *wire.Machine, err error) {
	w := &wire.Machine{ConsoleLog: m.ConsoleLog, Alone: m.Alone, Serial: m.Serial}
	for _, f := range []struct {
		file   *os.File
		number *int
	}{{m.Streams, &w.Streams}, {m.Monitor, &w.Monitor}, {m.Console, &w.Console}} {
		if *f.number, err = hand(f.file); err != nil {
			return nil, err
		}
	}
	for _, b := range m.Beside {
		to := wire.Beside{Name: b.Name, Path: b.Path, Args: b.Args, CloneFlags: b.CloneFlags}
		for _, f := range b.Files {
			fd, err := hand(f)
			if err != nil {
				return nil, err
			}
			to.FDs = append(to.FDs, fd)
		}
		w.Beside = append(w.Beside, to)
	}
	return w, nil
}

// run starts the process and has it waited for.
func (o Options) run(files []uintptr) (pid int, gone <-chan struct{}, err error) {
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if o.Own != nil {
		fd, err := duplicate(o.Own)
		if err != nil {
			return 0, nil, err
		}
		defer unix.Close(fd)
		sys.UseCgroupFD, sys.CgroupFD = true, fd
	}
	start := func() error {
		// The keeper inherits it. 0 is the thread's own again.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0)
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
		pid, _, err = syscall.StartProcess(o.Binary, []string{"strata-keeper"}, &syscall.ProcAttr{Dir: "/", Env: environment, Files: files, Sys: sys})
		return err
	}
	if o.Within == nil {
		o.Within = func(start func() error) error { return start() }
	}
	if err := o.Within(start); err != nil {
		return 0, nil, err
	}
	return pid, reap(pid, pidfd), nil
}

// reap waits for a child without a thread; the channel closes when it is gone.
func reap(pid, pidfd int) <-chan struct{} {
	gone := make(chan struct{})
	wait := func(flags int) bool {
		var ws unix.WaitStatus
		for {
			got, err := unix.Wait4(pid, &ws, flags, nil)
			if err != unix.EINTR {
				return err != nil || got == pid
			}
		}
	}
	go func() {
		defer close(gone)
		if pidfd >= 0 {
			unix.SetNonblock(pidfd, true)
			f := os.NewFile(uintptr(pidfd), "keeper")
			defer f.Close()
			if raw, err := f.SyscallConn(); err == nil {
				if raw.Read(func(uintptr) bool { return wait(unix.WNOHANG) }) == nil {
					return
				}
			}
		}
		wait(0)
	}()
	return gone
}

// duplicate returns a descriptor of f's file, without changing its mode as Fd would.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	if cerr := raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}

// failure turns what a keeper says into a fault.
func failure(f *wire.Failure) error {
	if f == nil {
		return fault.Internalf("the keeper failed and did not say why")
	}
	kind, _ := fault.ParseKind(f.Kind)
	e := fault.New(kind, "%s", strings.ToValidUTF8(f.Message, "?"))
	e.Field, e.Hint = f.Field, f.Hint
	return e
}
