package streams

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/vmagent/port"
)

// maxPrograms bounds how many programs run at once that a host has asked for,
// those of earlier hosts included.
const maxPrograms = 512

// How long to wait before a port that could not be opened, or brought nobody, is
// opened again.
const (
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// Starter starts programs, and is where they are reaped.
type Starter interface {
	// Start starts img, whose streams are set, with img.Start or img.Fork, and
	// returns at once. It may set the rest of img.Birth.
	Start(img *program.Image) (Child, *program.Report, error)
}

// Child is a program that was started.
type Child interface {
	PID() int
	// Ended gives one wait status, once the program has ended and is reaped.
	Ended() <-chan unix.WaitStatus
	// Signal sends a signal to the program, and to nobody else if it is over.
	Signal(unix.Signal) error
	// OutOfMemory tells of a program that has ended by SIGKILL whether memory ran out.
	OutOfMemory() bool
}

// Server is the agent's end. Make it with New.
type Server struct {
	open    func() (io.ReadWriteCloser, error)
	starter Starter
	main    *channel
	filter  atomic.Pointer[unix.SockFprog] // the main program's; nil: it has none, or was not started

	mu       sync.Mutex
	host     *host // nil: none was met
	channels map[uint32]*channel
	programs int // that hosts have asked for, and that run

	once  sync.Once
	taken chan struct{}
}

// New returns a server that meets hosts on the port that open opens; there is one
// open at a time.
func New(open func() (io.ReadWriteCloser, error), starter Starter) *Server {
	s := &Server{open: open, starter: starter, channels: map[uint32]*channel{}, taken: make(chan struct{})}
	s.main = newChannel(s, 0)
	s.channels[0] = s.main
	return s
}

// Taken is closed once the host has said that it has the main program's Exit, or
// that it failed.
func (s *Server) Taken() <-chan struct{} { return s.taken }

// Over tells the host that it may end this system. It may be lost.
func (s *Server) Over() {
	s.main.mu.Lock()
	h := s.main.host
	s.main.mu.Unlock()
	_ = h.write(port.Append(nil, port.Over, 0, nil)) // the system switches itself off
}

// Serve meets hosts, one after the other, until ctx ends. Programs go on then.
func (s *Server) Serve(ctx context.Context) error {
	for wait := retryFirst; ; {
		p, err := s.open()
		if err == nil {
			met := s.attend(ctx, p)
			if met {
				wait = retryFirst
				if ctx.Err() == nil {
					continue
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

// attend serves whoever is at the port until that ends, and tells whether anybody was.
func (s *Server) attend(ctx context.Context, p io.ReadWriteCloser) (met bool) {
	stop := context.AfterFunc(ctx, func() { p.Close() })
	defer stop()
	// First of all the port, so that nobody waits any longer to write to it.
	defer s.meet(nil)
	defer p.Close()
	l := &link{port: p}
	r := bufio.NewReaderSize(p, port.MaxPayload)
	number, err := await(l, r)
	if err != nil {
		return false
	}
	h := s.greet(l, number)
	payload := make([]byte, port.MaxPayload)
	var head [port.HeaderSize]byte
	for h != nil {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			break
		}
		f, err := port.ParseHeader(head[:])
		if err != nil {
			break
		}
		b := payload[:f.Length]
		if _, err := io.ReadFull(r, b); err != nil {
			break
		}
		if f.Type == port.Hello {
			if _, number, err = port.ParseHello(b); err != nil {
				break
			}
			h = s.greet(l, number)
			continue
		}
		if s.dispatch(h, f, b) != nil {
			break
		}
	}
	return true
}

// await throws away everything up to a Hello of this version.
func await(l *link, r *bufio.Reader) (number uint64, err error) {
	const tail = port.HelloSize - len(port.Magic)
	for at := 0; ; {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch {
		case b == port.Magic[at]:
			at++
		case b == port.Magic[0]: // which is in it only once
			at = 1
		default:
			at = 0
		}
		if at < len(port.Magic) {
			continue
		}
		at = 0
		rest, err := r.Peek(tail)
		if err != nil {
			return 0, err
		}
		version, number := rest[0], binary.BigEndian.Uint64(rest[1:])
		if version != port.Version {
			if err := l.hello(number); err != nil {
				return 0, err
			}
			continue
		}
		_, _ = r.Discard(tail) // it was peeked at
		return number, nil
	}
}

// greet answers a Hello: from now on there is a new host, which is returned. It
// is nil if it has gone already.
func (s *Server) greet(l *link, number uint64) *host {
	s.meet(nil)
	if l.hello(number) != nil {
		return nil
	}
	h := &host{link: l}
	s.meet(h)
	return h
}

// meet replaces the host; nil: there is none.
func (s *Server) meet(h *host) {
	s.mu.Lock()
	old := s.host
	s.host = h
	var orphans []*channel
	if old != nil {
		for n, c := range s.channels {
			if n != 0 {
				orphans = append(orphans, c)
				delete(s.channels, n)
			}
		}
	}
	s.mu.Unlock()
	if old != nil {
		old.leave()
	}
	for _, c := range orphans {
		c.orphan()
	}
	s.main.adopt(h)
	if h != nil {
		go s.main.tell() // writes, and so must not hold up the reader
	}
}

var errProtocol = errors.New("streams: the host does not keep to the protocol")

// dispatch does what a frame of h's asks for, without waiting. An error means that
// the host has lost its way.
func (s *Server) dispatch(h *host, f port.Header, b []byte) error {
	if f.Type == port.Exec {
		return s.exec(h, f.Channel, b)
	}
	s.mu.Lock()
	c := s.channels[f.Channel]
	s.mu.Unlock()
	switch f.Type {
	case port.Stdin:
		return c.feed(b)
	case port.CloseStdin:
		c.end()
	case port.Resize:
		c.resize(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	case port.Signal:
		c.signal(unix.Signal(b[0]))
	case port.Window:
		c.grant(int(binary.BigEndian.Uint32(b)))
	case port.Taken:
		if c == s.main && c.over() {
			s.once.Do(func() { close(s.taken) })
		}
	default:
		return errProtocol
	}
	return nil
}

// exec starts a program on a channel of its own.
func (s *Server) exec(h *host, number uint32, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[number] != nil || number == 0 {
		return errProtocol
	}
	c := newChannel(s, number)
	c.host = h
	s.channels[number] = c
	if s.programs >= maxPrograms {
		go c.refuse(busy())
		return nil
	}
	s.programs++
	text := append([]byte(nil), b...)
	go func() {
		c.execute(text)
		s.mu.Lock()
		s.programs--
		s.mu.Unlock()
	}()
	return nil
}

// forget ends a channel, of which everything was said.
func (s *Server) forget(c *channel) {
	s.mu.Lock()
	if s.channels[c.number] == c && c != s.main {
		delete(s.channels, c.number)
	}
	s.mu.Unlock()
}
