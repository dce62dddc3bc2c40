package streams

import (
	"encoding/binary"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
)

// startWithin bounds the way from fork to the program.
const startWithin = 30 * time.Second

// Start starts the main program, once. It returns when that is executed; the
// host is told, of a failure also. Whether a host is there does not matter.
func (s *Server) Start(p *wire.Process) error {
	e, child, err := s.main.start(p)
	if err != nil {
		s.main.fail(err)
		return err
	}
	s.main.announce(sayStarted)
	go s.main.finish(e, child)
	return nil
}

// Attach makes a program that runs already the main one. Its terminal, of which
// the server takes both sides, is channel 0's streams.
func (s *Server) Attach(t program.Terminal, child Child) {
	e := newEnds()
	e.terminal(t)
	s.main.runs(child, e.in, true)
	s.main.announce(sayStarted)
	go s.main.finish(e, child)
}

// Idle says that there is no main program, and that the system runs. child gets the
// signals that come for one, and says when it has ended.
func (s *Server) Idle(child Child) {
	s.main.runs(child, nil, false)
	s.main.announce(sayStarted)
	go s.main.finish(newEnds(), child)
}

// Fail says that the main program was not started, because of err.
func (s *Server) Fail(err error) { s.main.fail(err) }

// Ready says that the template's init is up.
func (s *Server) Ready() { s.main.announce(sayReady) }

// execute runs a program that the host has asked for, to its end.
func (c *channel) execute(text []byte) {
	p, err := spec.ReadProcess(text)
	if err != nil {
		c.fail(root.Wrap(err, "read the process"))
		return
	}
	e, child, err := c.start(p)
	if err != nil {
		c.fail(err)
		return
	}
	c.announce(sayStarted)
	c.finish(e, child)
	c.s.forget(c)
}

func (c *channel) refuse(err error) { c.fail(err) }

// start returns once p is executed.
func (c *channel) start(p *wire.Process) (_ *ends, _ Child, err error) {
	img, err := c.prepare(p)
	if err != nil {
		return nil, nil, err
	}
	e := newEnds()
	defer func() {
		e.closeTheirs()
		if err != nil {
			e.close()
		}
	}()
	if err := e.connect(p, img); err != nil {
		return nil, nil, err
	}
	child, report, err := c.s.starter.Start(img)
	if err != nil {
		return nil, nil, err
	}
	e.closeTheirs()
	if err := report.Wait(startWithin); err != nil {
		_ = child.Signal(unix.SIGKILL) // it has ended, but where it took too long
		return nil, nil, err
	}
	var master *os.File
	if p.TTY {
		master = e.in
	}
	c.runs(child, master, e.in != nil)
	return e, child, nil
}

// prepare makes an image of p, with the main program's filter where p asks for that.
func (c *channel) prepare(p *wire.Process) (*program.Image, error) {
	same := string(p.Seccomp) == wire.MainFilter
	kept := c.s.filter.Load()
	if same {
		if kept == nil {
			return nil, root.Fail(root.Invalid, "seccomp", "there is no main program whose filter it could have")
		}
		p.Seccomp = nil
	}
	img, err := program.Prepare(p)
	if err != nil {
		return nil, err
	}
	if same {
		img.SetFilter(*kept)
	}
	if f := img.Filter(); c == c.s.main && f.Len > 0 {
		c.s.filter.Store(&f)
	}
	return img, nil
}

// finish carries the streams until the program has ended, and says how.
func (c *channel) finish(e *ends, child Child) {
	var outputs sync.WaitGroup
	for i, t := range []port.Type{port.Stdout, port.Stderr} {
		if f := e.out[i]; f != nil {
			outputs.Go(func() { c.output(f, t) })
		}
	}
	if e.in != nil {
		go c.input(e.in)
	}
	status := <-child.Ended()
	e.interrupt()
	c.mu.Lock()
	c.ended, c.in = true, nil
	c.changed.Broadcast()
	c.mu.Unlock()
	outputs.Wait()
	c.mu.Lock()
	c.master = nil
	binary.BigEndian.PutUint32(c.exit[:], uint32(status))
	if status.Signaled() && status.Signal() == unix.SIGKILL && child.OutOfMemory() {
		c.exit[4] = 1
	}
	c.mu.Unlock()
	c.announce(sayExit)
	e.close()
}

// ends are a program's standard streams.
type ends struct {
	out    [2]*os.File // reading sides of its outputs; a terminal is the first
	in     *os.File    // writing side of its input, or its terminal; nil: it has none
	theirs []int       // the program's own sides
	peer   int         // the terminal's other side, so that its output never ends early; -1: none
}

func newEnds() *ends { return &ends{peer: -1} }

// null is what a program without input reads. It is opened before a program
// could put something else in its place.
var null = sync.OnceValue(func() int {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

// connect makes the streams that p asks for, and gives img its own sides.
func (e *ends) connect(p *wire.Process, img *program.Image) error {
	img.Session = true
	if p.TTY {
		t, err := program.OpenTerminal(p, img.UID())
		if err != nil {
			return err
		}
		e.terminal(t)
		img.TTY = t.Slave
		img.Birth.Streams = &[3]int{t.Slave, t.Slave, t.Slave}
		return nil
	}
	streams := [3]int{null(), -1, -1}
	for i := range streams {
		if i == 0 && !p.Stdin {
			continue
		}
		ours, theirs, err := pipe(i == 0)
		if err != nil {
			return root.Wrap(err, "make a pipe")
		}
		e.theirs = append(e.theirs, theirs)
		if streams[i] = theirs; i == 0 {
			e.in = ours
		} else {
			e.out[i-1] = ours
		}
	}
	if img.UID() != 0 { // whose they are already
		program.GiveStreams(img.UID(), streams[:]...)
	}
	img.Birth.Streams = &streams
	return nil
}

func (e *ends) terminal(t program.Terminal) {
	f := os.NewFile(uintptr(t.Master), "terminal")
	e.out[0], e.in, e.peer = f, f, t.Slave
}

// pipe makes a pipe of which we write (or else read) one side in the poller.
func pipe(write bool) (ours *os.File, theirs int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	own := p[0]
	if theirs = p[1]; write {
		own, theirs = p[1], p[0]
	}
	// A pipe's end has no other flags that could be set, so they need not be read.
	if _, err := unix.FcntlInt(uintptr(own), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, -1, err
	}
	return os.NewFile(uintptr(own), "pipe"), theirs, nil
}

// interrupt makes whoever waits for the streams look up.
func (e *ends) interrupt() {
	past := time.Unix(1, 0)
	for _, f := range e.out {
		if f != nil {
			_ = f.SetReadDeadline(past) // it may be closed
		}
	}
	if e.in != nil {
		_ = e.in.SetWriteDeadline(past) // it may be closed
	}
}

func (e *ends) closeTheirs() {
	for _, fd := range e.theirs {
		unix.Close(fd)
	}
	e.theirs = nil
}

func (e *ends) close() {
	for _, f := range []*os.File{e.out[0], e.out[1], e.in} {
		if f != nil {
			f.Close()
		}
	}
	if e.peer >= 0 {
		unix.Close(e.peer)
		e.peer = -1
	}
}
