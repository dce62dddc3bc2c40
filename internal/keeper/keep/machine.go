package keep

import (
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
	channels []*far         // those that are not over
	last     uint32         // channel number given out last
	others   []*beside

	number  uint64 // that the agent has to answer
	met     bool
	calling calling
	stale   int    // bytes that came before that
	in      []byte // what has come and is no whole frame yet
	out     queue
	strays  int // frames that meant nothing, since strayed
	strayed time.Time

	text   []byte // of the monitor: the beginning of a line
	long   bool   // that line is too long, its rest is skipped
	words  tail   // of QEMU's own, and of what runs beside it
	shown  tail   // of the console
	reason string // why the machine stopped, as QEMU says
	panics bool
	room   room
	oom    bool   // the agent said so of the main program
	broken string // why the keeper has ended the machine
}

func (k *keeper) newMachine() *wire.Failure {
	s := k.spec.Machine
	m := &machine{k: k, streams: s.Streams, events: s.Monitor, noise: -1}
	k.machine = m
	for _, fd := range []int{s.Streams, s.Monitor, s.Console} {
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
			return internal("take over the machine's sockets", unix.ENOTSOCK)
		}
	}
	m.log = logfile.Writer{Dir: s.ConsoleLog.Dir, Size: s.ConsoleLog.Size, Files: s.ConsoleLog.Files}
	m.console.init(k)
	m.console.log, m.console.lossy = &m.log, true
	k.logged = append(k.logged, &m.console)
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
	// It has only to be another than that of a keeper before this one.
	m.number = uint64(time.Now().UnixNano())<<16 | uint64(unix.Getpid()&0xffff)
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

// begin starts to listen, once QEMU's process is there.
func (m *machine) begin() {
	m.k.want(m.streams, readable, portSocket{m})
	m.k.want(m.events, readable, eventSocket{m})
	m.k.want(m.noise, readable, noisePipe{m})
	for _, b := range m.others {
		m.k.want(b.pidfd, readable, b)
	}
	m.console.start()
	if !m.alone() { // where an agent may come later, see turned
		m.say(port.Hello, 0, port.HelloPayload(m.number))
		m.calling.next = time.Now().Add(callFirst)
	}
	send(m.events, []byte(`{"execute":"qmp_capabilities"}`+"\n"))
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
	m.endBeside()
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
