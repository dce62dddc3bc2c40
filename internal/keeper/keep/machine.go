package keep

import (
	"encoding/binary"
	"encoding/json"
	"runtime"
	"syscall"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// machine is what a keeper has besides where its payload is QEMU.
type machine struct {
	k        *keeper
	streams  int // the port; -1: closed
	events   int // QEMU's monitor
	noise    int // what QEMU itself writes
	console  program
	log      logfile.Writer // of the console
	channels map[uint32]*far
	last     uint32 // channel number given out last
	pids     []int  // processes beside QEMU

	number uint64 // that the agent has to answer
	met    bool
	in     []byte // what has come and is no whole frame yet, from inAt on
	out    queue

	text   []byte // of the monitor: the beginning of a line
	words  tail   // of QEMU's own
	shown  tail   // of the console
	reason string // why the machine stopped, as QEMU says
	panics bool
	oom    bool
	broken string // how the agent broke the protocol
}

// lastWords is how much is kept of what QEMU and the console said last. Unit: bytes.
const lastWords = 4 << 10

func (k *keeper) newMachine() *wire.Failure {
	s := k.spec.Machine
	m := &machine{k: k, streams: s.Streams, events: s.Monitor, noise: -1, channels: map[uint32]*far{}}
	k.machine = m
	for _, fd := range []int{s.Streams, s.Monitor, s.Console} {
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
			return internal("take over the machine's sockets", unix.ENOTSOCK)
		}
	}
	m.log = logfile.Writer{Dir: s.ConsoleLog.Dir, Size: s.ConsoleLog.Size, Files: s.ConsoleLog.Files}
	m.console.init(k)
	m.console.log, m.console.lossy = &m.log, true
	m.console.out[0].fd = s.Console
	m.console.out[0].tail = &m.shown
	var err error
	if m.console.in.fd, err = unix.FcntlInt(uintptr(s.Console), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return internal("take over the machine's console", err)
	}
	for _, fd := range []int{s.Console, s.Streams, s.Monitor} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return internal("take over the machine's sockets", err)
		}
	}
	var b [8]byte
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		return internal("make a number", err)
	}
	m.number = binary.NativeEndian.Uint64(b[:])
	m.open(&k.main, 0, k.spec.Stdin)
	return nil
}

// stdio is QEMU's own: what it writes is kept for when it fails.
func (m *machine) stdio() (theirs []int, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs = []int{null}
	var write int
	if m.noise, write, err = pipeTo(0, 0); err != nil {
		return theirs, err
	}
	again, err := unix.FcntlInt(uintptr(write), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return append(theirs, write), err
	}
	return append(theirs, write, again), nil
}

// beside starts the processes beside QEMU, in its cgroup; words is where they
// write what goes wrong. They end when QEMU closes their sockets, or are ended then.
func (m *machine) beside(words int) error {
	for i := range m.k.spec.Machine.Beside {
		b := &m.k.spec.Machine.Beside[i]
		null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		attr := &syscall.ProcAttr{Dir: "/", Files: []uintptr{uintptr(null), uintptr(null), uintptr(words)}, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: uintptr(b.CloneFlags)}}
		for _, fd := range b.FDs {
			attr.Files = append(attr.Files, uintptr(fd))
		}
		if fd := m.k.spec.Payload.CgroupFD; fd != 0 {
			attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
		}
		pid := 0
		payload := wire.Payload{Path: b.Path, Args: b.Args, Join: m.k.spec.Payload.Join}
		result := make(chan error)
		go func() {
			runtime.LockOSThread() // as the payload's: the thread ends here
			result <- joinAndStart(&payload, attr, &pid)
		}()
		err = <-result
		closeAll(b.FDs)
		unix.Close(null)
		if err != nil {
			return err
		}
		m.pids = append(m.pids, pid)
	}
	return nil
}

// begin starts to listen, once QEMU's process is there.
func (m *machine) begin() {
	m.k.want(m.streams, readable, portSocket{m})
	m.k.want(m.events, readable, eventSocket{m})
	m.k.want(m.noise, readable, noisePipe{m})
	m.console.start()
	m.say(port.Hello, 0, port.HelloPayload(m.number))
	send(m.events, []byte(`{"execute":"qmp_capabilities"}`+"\n"))
}

// say sends a frame, or queues what the port does not take now.
func (m *machine) say(t port.Type, channel uint32, payload []byte) {
	if m.streams < 0 {
		return
	}
	var head [port.HeaderSize]byte
	port.PutHeader(head[:], port.Header{Type: t, Channel: channel, Length: len(payload)})
	m.write(head[:])
	m.write(payload)
	m.want()
}

func (m *machine) write(b []byte) {
	for m.out.len() == 0 && len(b) > 0 {
		n, err := send(m.streams, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break // its end is seen by whoever reads
		}
		b = b[n:]
	}
	if !m.out.push(b) {
		m.fault("no memory is left for what it does not take")
	}
}

func (m *machine) want() {
	events := uint32(readable)
	if m.out.len() > 0 {
		events |= writable
	}
	m.k.want(m.streams, events, portSocket{m})
}

// fault ends a machine whose agent broke the protocol.
func (m *machine) fault(how string) {
	if m.broken == "" {
		m.broken = how
		m.k.kill()
	}
}

// portSocket is the port of the streams.
type portSocket struct{ m *machine }

func (s portSocket) ready(events uint32) {
	m := s.m
	if events&writable != 0 && m.out.len() > 0 {
		m.flush()
	}
	if events&^writable != 0 {
		m.read()
	}
	m.want()
}

func (m *machine) flush() {
	for m.out.len() > 0 {
		n, err := send(m.streams, m.out.bytes())
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		m.out.drop(n)
	}
	// There is room for input again.
	for _, f := range m.channels {
		if f.p.in.q.len() > 0 {
			f.p.in.flush()
			f.p.refresh()
		}
	}
}

// maxIn is the longest beginning of a frame that may have to be kept.
const maxIn = 2 * (port.HeaderSize + port.MaxPayload)

// read takes what has come; false means that nothing is there.
func (m *machine) read() bool {
	if m.in == nil {
		if m.in = mapBuffer(maxIn); m.in == nil {
			m.fault("no memory is left to read it")
			return false
		}
		m.in = m.in[:0]
	}
	n, err := receive(m.streams, m.in[len(m.in):cap(m.in)])
	if err == unix.EINTR {
		return true
	}
	if err == unix.EAGAIN {
		return false
	}
	if err != nil || n == 0 {
		m.k.close(&m.streams) // QEMU ends, and tells how by its own end
		return false
	}
	m.in = m.in[:len(m.in)+n]
	m.parse()
	if len(m.in) == 0 {
		unmapBuffer(m.in[:cap(m.in)])
		m.in = nil
	}
	return true
}

// parse takes whole frames off the front of what has come.
func (m *machine) parse() {
	b := m.in
	for m.broken == "" {
		if !m.met {
			skip, found := findHello(b, m.number)
			b = b[skip:]
			if !found {
				break
			}
			if b[port.HeaderSize+len(port.Magic)] != port.Version {
				m.fault("the agent inside is of another version")
				break
			}
			m.met = true
			b = b[port.HeaderSize+port.HelloSize:]
			continue
		}
		if len(b) < port.HeaderSize {
			break
		}
		h, err := port.ParseHeader(b)
		if err != nil {
			m.fault(err.Error())
			break
		}
		if len(b) < port.HeaderSize+h.Length {
			break
		}
		m.hear(h, b[:port.HeaderSize+h.Length])
		b = b[port.HeaderSize+h.Length:]
	}
	m.in = m.in[:copy(m.in, b)]
}

// findHello looks for the agent's answer: how much before it is to be thrown
// away, and whether it is there as a whole.
func findHello(b []byte, number uint64) (skip int, found bool) {
	const whole = port.HeaderSize + port.HelloSize
	for skip = 0; len(b)-skip >= whole; skip++ {
		h, err := port.ParseHeader(b[skip:])
		if err != nil || h.Type != port.Hello {
			continue
		}
		if _, n, err := port.ParseHello(b[skip+port.HeaderSize : skip+whole]); err == nil && n == number {
			return skip, true
		}
	}
	return skip, false
}

// hear acts on one frame. Its payload stands behind room for the header of a
// client's frame.
func (m *machine) hear(h port.Header, frame []byte) {
	f := m.channels[h.Channel]
	payload := frame[port.HeaderSize:]
	switch h.Type {
	case port.Stdout, port.Stderr:
		if f == nil || f.p.ended {
			return
		}
		if f.granted -= h.Length; f.granted < 0 {
			m.fault("it sends more than it was granted")
			return
		}
		f.consumed += h.Length
		s := &f.p.out[0]
		if h.Type == port.Stderr {
			s = &f.p.out[1]
		}
		if h.Length > 0 {
			s.deliver(frame[port.HeaderSize-stream.HeaderSize:], h.Length)
		}
		f.p.refresh()
	case port.Window:
		if f == nil {
			return
		}
		if f.room += int(binary.BigEndian.Uint32(payload)); f.room > port.InitialWindow {
			m.fault("it grants more than it was sent")
			return
		}
		f.p.in.flush()
		f.p.refresh()
	case port.Started:
		m.started(f)
	case port.Failed:
		m.failed(f, payload)
	case port.Exit:
		m.exited(f, unix.WaitStatus(binary.BigEndian.Uint32(payload)), payload[4] == 1)
	case port.Ready:
		if m.k.phase == running && h.Channel == 0 && !m.k.ready {
			m.k.ready = true
			m.k.tell()
		}
	default:
		m.fault("it says what only a host says")
	}
}

func (m *machine) started(f *far) {
	switch {
	case f == nil:
	case f.p.x != nil:
		f.p.x.runs()
	case m.k.phase == starting:
		m.k.begin()
	}
}

func (m *machine) failed(f *far, payload []byte) {
	var failure wire.Failure
	if json.Unmarshal(payload, &failure) != nil {
		failure = wire.Failure{Kind: "internal", Message: "the agent inside does not say why it failed"}
	}
	m.k.litter = true
	switch {
	case f == nil:
	case f.p.x != nil:
		f.p.x.fail(bounded(&failure))
		f.p.x.pid = 0
		f.p.x.remove()
	case m.k.phase == starting:
		m.say(port.Taken, 0, nil)
		m.k.fail(bounded(&failure))
	}
}

func (m *machine) exited(f *far, ws unix.WaitStatus, oom bool) {
	switch {
	case f == nil:
	case f.p.x != nil:
		f.p.x.ended(ws, oom)
	case m.k.phase == running && m.k.told == nil:
		status := int(ws)
		m.k.told, m.oom = &status, oom
		m.k.deadline = time.Now().Add(endGrace)
		m.say(port.Taken, 0, nil)
	}
}

// drain reads what QEMU left in its sockets when it ended.
func (m *machine) drain() {
	for left := drainLimit / port.MaxPayload; left > 0 && m.streams >= 0 && m.read(); left-- {
	}
	for left := drainLimit; left > 0 && m.console.out[0].fd >= 0; {
		n := m.console.out[0].take()
		if n <= 0 {
			break
		}
		left -= n
	}
	eventSocket{m}.ready(0)
	noisePipe{m}.ready(0)
}

// close ends what is beside QEMU, and the console.
func (m *machine) close() {
	for _, pid := range m.pids {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	m.k.close(&m.streams)
	m.k.close(&m.events)
	m.k.close(&m.noise)
	m.console.finish(stream.ExitPayload(stream.Ended{}))
	m.log.Close()
}

// noisePipe is what QEMU itself writes.
type noisePipe struct{ m *machine }

func (n noisePipe) ready(uint32) {
	m := n.m
	if m.noise < 0 {
		return
	}
	b := m.k.buffer()
	got, err := unix.Read(m.noise, b)
	if got > 0 {
		m.words.add(b[:got])
	} else if err != unix.EAGAIN && err != unix.EINTR {
		m.k.close(&m.noise)
	}
}
