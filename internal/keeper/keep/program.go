package keep

import (
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"golang.org/x/sys/unix"
)

const (
	// queueLimit is how much a client may be behind before the program waits.
	queueLimit = 64 << 10
	// lossyLimit is how much a client may be behind that cannot make its program wait.
	lossyLimit = 1 << 20
	// drainLimit bounds what is read of the outputs once a program has ended. A
	// pipe holds at most 1 MiB (/proc/sys/fs/pipe-max-size as the kernel sets it).
	drainLimit = 4 << 20
	// stuckAfter is how long a client that was attached later may take nothing.
	stuckAfter = 60 * time.Second
	// lingerAfter is the same for the client of an attached run or an exec, once
	// the program has ended.
	lingerAfter = 10 * time.Minute
	// maxClients bounds who is attached to one program.
	maxClients = 64
)

// program is something that runs, and who takes part in its standard streams.
type program struct {
	k       *keeper
	pidfd   int // closed by who has seen its end; -1: not known, or over
	inner   int // a zone's main program, pidfd being its process 1; -1: there is no other
	out     [2]source
	in      input
	peer    int // the terminal's other side, held open so that its output never ends early; -1: none
	tty     bool
	owned   bool // the input ends with the last client (exec)
	live    bool // outputs are read
	ended   bool
	clients []*client
	log     *logfile.Writer // nil: output is for clients only
	pace    *pace           // an exec's is that of all of them
	x       *execution      // that this is the program of; nil: the main program
	lossy   bool            // a client that is behind goes, and never holds the program up
	far     *far            // beyond a machine's port; nil: a process of this host
}

func (p *program) init(k *keeper) {
	p.k, p.pidfd, p.inner, p.peer, p.pace = k, -1, -1, -1, new(pace)
	p.out[0] = source{p: p, fd: -1, kind: stream.Stdout, log: logfile.Stdout}
	p.out[1] = source{p: p, fd: -1, kind: stream.Stderr, log: logfile.Stderr}
	p.in = input{p: p, fd: -1}
}

// terminal makes master the program's output and input.
func (p *program) terminal(master int) error {
	peer, err := checkTerminal(master)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(master, true); err != nil {
		unix.Close(peer)
		return err
	}
	// Two descriptors, so that output and input are two entries of the loop.
	second, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		unix.Close(peer)
		return err
	}
	p.peer, p.out[0].fd, p.in.fd, p.in.tty = peer, master, second, true
	return nil
}

// blocked tells whether a client is too far behind to take more, or there was enough that
// nobody takes.
func (p *program) blocked() bool {
	if p.rests() {
		return true
	}
	if p.lossy {
		return false
	}
	for _, c := range p.clients {
		if c.q.len() > queueLimit {
			return true
		}
	}
	return false
}

// deliver passes on n bytes that stand in b after room for a frame's header.
func (s *source) deliver(b []byte, n int) {
	if s.tail != nil {
		s.tail.add(b[stream.HeaderSize : stream.HeaderSize+n])
	}
	now := time.Now()
	if s.p.log != nil {
		s.p.log.Append(s.log, now.UnixNano(), b[stream.HeaderSize:stream.HeaderSize+n])
	}
	if len(s.p.clients) == 0 {
		s.p.pace.spend(n, now)
	}
	stream.PutHeader(b, s.kind, n)
	for _, c := range s.p.clients {
		c.send(b[:stream.HeaderSize+n])
		if s.p.lossy && c.q.len() > lossyLimit {
			c.drop()
		}
	}
}

// refresh brings what the loop waits for in line with the state. Every handler
// of a program ends with it.
func (p *program) refresh() {
	for i := 0; i < len(p.clients); {
		if c := p.clients[i]; c.fd < 0 {
			p.clients = append(p.clients[:i], p.clients[i+1:]...)
			if p.owned && len(p.clients) == 0 {
				p.in.end()
			}
			continue
		}
		i++
	}
	l := p.k.loop
	for i := range p.out {
		if s := &p.out[i]; p.live && !p.blocked() {
			l.want(s.fd, readable, s)
		} else {
			l.want(s.fd, 0, s)
		}
	}
	if p.in.q.len() > 0 {
		l.want(p.in.fd, writable, &p.in)
	} else {
		l.want(p.in.fd, 0, &p.in)
	}
	for _, c := range p.clients {
		var events uint32
		if p.live && p.in.q.len() == 0 && !p.ended {
			events |= readable
		}
		if c.q.len() > 0 {
			events |= writable
		}
		l.want(c.fd, events, c)
	}
	if p.far != nil && (p.live || p.ended) && !p.blocked() {
		p.far.grant()
	}
	if p.x != nil && p.ended {
		p.x.remove()
	}
}

// start lets output and input flow.
func (p *program) start() {
	p.live = true
	p.refresh()
}

// finish takes what is left of the output and sends every client the exit frame.
func (p *program) finish(exit []byte) {
	for left, i := drainLimit, 0; i < len(p.out); i++ {
		for s := &p.out[i]; s.fd >= 0 && left > 0; {
			n := s.take()
			if n <= 0 {
				break
			}
			left -= n
		}
		p.k.loop.close(&p.out[i].fd)
	}
	p.in.close()
	p.ended = true
	p.k.loop.close(&p.peer)
	frame := p.k.buffer()[:stream.HeaderSize+len(exit)]
	stream.PutHeader(frame, stream.Exit, len(exit))
	copy(frame[stream.HeaderSize:], exit)
	for _, c := range p.clients {
		c.last(frame)
	}
	p.refresh()
}

// abandon drops everything without an exit frame: the program did not start.
func (p *program) abandon() {
	for i := range p.out {
		p.k.loop.close(&p.out[i].fd)
	}
	p.in.close()
	p.k.loop.close(&p.peer)
	for _, c := range p.clients {
		c.drop()
	}
	p.clients, p.ended = nil, true
}

// lastWords returns what a program that never ran has written to its error
// output, such as a panic of the agent, without what a terminal would act on.
func (p *program) lastWords() string {
	if p.live || p.out[1].fd < 0 {
		return ""
	}
	b := p.k.buffer()[:2048]
	n, err := unix.Read(p.out[1].fd, b)
	if err != nil || n <= 0 {
		return ""
	}
	return "; it wrote: " + printable(string(b[:n]))
}

// tick drops clients that have taken nothing for too long.
func (p *program) tick(now time.Time) {
	for _, c := range p.clients {
		most := stuckAfter
		if c.foreground {
			if !p.ended {
				continue
			}
			most = lingerAfter
		}
		if c.q.len() > 0 && now.Sub(c.progress) > most {
			c.drop()
		}
	}
	p.refresh()
}

// waits tells whether tick has anything to watch over.
func (p *program) waits() bool {
	for _, c := range p.clients {
		if c.q.len() > 0 {
			return true
		}
	}
	return false
}

// signal sends the program a signal. SIGKILL is for process 1, whose end is that of all.
// EOPNOTSUPP is that of SIGSTOP for process 1: a stopped one would never see an end.
func (p *program) signal(sig int) error {
	first := p.x == nil && (p.k.spec.System || p.far == nil && p.inner < 0)
	if first && sig == int(unix.SIGSTOP) {
		return unix.EOPNOTSUPP
	}
	if p.far != nil {
		return p.far.signal(sig)
	}
	if p.pidfd < 0 {
		return unix.ESRCH
	}
	if p.inner < 0 || sig == int(unix.SIGKILL) {
		return unix.PidfdSendSignal(p.pidfd, unix.Signal(sig), nil, 0)
	}
	err := unix.PidfdSendSignal(p.inner, unix.Signal(sig), nil, 0)
	if err == unix.ESRCH { // it is over, and process 1 about to say so
		return nil
	}
	return err
}

func (p *program) resize(rows, cols uint16) {
	if p.far != nil {
		p.far.resize(rows, cols)
		return
	}
	if p.tty && p.out[0].fd >= 0 {
		unix.IoctlSetWinsize(p.out[0].fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
}

// source is one output of a program.
type source struct {
	p    *program
	fd   int
	kind stream.Type
	log  logfile.Stream
	tail *tail // keeps the last of it; nil: nobody does
}

func (s *source) ready(uint32) {
	if s.take() < 0 {
		s.p.k.loop.close(&s.fd)
	}
	s.p.refresh()
}

// take reads once and passes on what there was: its length, 0 where there is
// nothing now, less than 0 where nothing will come any more.
func (s *source) take() int {
	b := s.p.k.buffer()
	n, err := unix.Read(s.fd, b[stream.HeaderSize:])
	if n <= 0 {
		if err == unix.EAGAIN || err == unix.EINTR {
			return 0
		}
		return -1
	}
	s.deliver(b, n)
	return n
}

// input is a program's standard input.
type input struct {
	p   *program
	fd  int // -1: there is none, or it has ended
	tty bool
	q   queue
	eof bool // ends once the queue is empty
}

func (in *input) ready(uint32) {
	in.flush()
	in.p.refresh()
}

// feed writes b, and keeps what the program does not take now.
func (in *input) feed(b []byte) {
	if !in.open() || in.eof {
		return
	}
	if in.q.len() == 0 {
		b = b[in.write(b):]
	}
	if in.open() && !in.q.push(b) {
		in.close()
	}
}

func (in *input) open() bool { return in.fd >= 0 || in.p.far != nil && !in.p.far.inputOver }

func (in *input) flush() {
	if in.q.len() > 0 {
		in.q.drop(in.write(in.q.bytes()))
	}
	if in.q.len() == 0 && in.eof {
		in.close()
	}
}

// write returns how much of b was taken; where the reader is gone it closes the
// input and takes everything.
func (in *input) write(b []byte) (done int) {
	if in.p.far != nil {
		return in.p.far.input(b)
	}
	for done < len(b) {
		n, err := unix.Write(in.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return done
		}
		if err != nil {
			in.gone()
			return len(b)
		}
		done += n
	}
	return done
}

// end ends the input after what is queued; a terminal has no end.
func (in *input) end() {
	if in.tty {
		return
	}
	in.eof = true
	if in.q.len() == 0 {
		in.close()
	}
}

// gone closes the descriptor and leaves the queue to the caller.
func (in *input) gone() {
	in.p.k.loop.close(&in.fd)
	if in.p.far != nil {
		in.p.far.endInput()
	}
}

func (in *input) close() {
	in.gone()
	in.q.free()
}
