package streams

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/vmagent/port"
)

// maxCredit bounds what a host may have granted at once. Unit: bytes.
const maxCredit = 1 << 30

// maxEarly bounds how many signals wait for a program that is being started.
const maxEarly = 8

// What is said of a channel's program, in this order.
const (
	sayStarted = 1 << iota
	sayFailed
	sayReady
	sayExit
)

// channel is one program and its streams. A nil channel takes everything and
// does nothing.
type channel struct {
	s       *Server
	number  uint32
	telling sync.Mutex

	mu       sync.Mutex
	changed  sync.Cond // credit, input, orphaned, ended
	host     *host     // nil: nobody is met
	orphaned bool      // the host that wanted the program has gone: output is thrown away
	say      uint8     // what there is to say
	said     uint8     // what was said of it to this host
	failure  []byte    // of sayFailed
	exit     [5]byte   // of sayExit

	credit int // bytes of output that may be sent

	in    []byte // input that the program did not take yet
	held  int    // bytes of input that this host was not granted anew
	older int    // bytes of earlier hosts that the program did not take
	owed  int    // bytes of input that it took, of held
	eof   bool   // input ends after what is there
	mute  bool   // the program has no input

	child      Child // nil: not started
	early      []unix.Signal
	master     *os.File // of its terminal; nil: it has none
	rows, cols uint16   // asked for before there was one
	ended      bool     // the program has, or never started
}

func newChannel(s *Server, number uint32) *channel {
	c := &channel{s: s, number: number}
	c.changed.L = &c.mu
	return c
}

// adopt gives the main program's channel to another host; nil: to none.
func (c *channel) adopt(h *host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host, c.said, c.credit = h, 0, 0
	c.older, c.held, c.owed = c.older+c.held-c.owed, 0, 0
	c.changed.Broadcast()
}

// orphan lets the program go on for nobody.
func (c *channel) orphan() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host, c.orphaned, c.eof = nil, true, true
	c.changed.Broadcast()
}

// announce adds what there is to say, and says it.
func (c *channel) announce(what uint8) {
	c.mu.Lock()
	c.say |= what
	c.mu.Unlock()
	c.tell()
}

// tell says to the host what it was not told yet. Output may follow Started, so
// only then is there a window for it.
func (c *channel) tell() {
	c.telling.Lock()
	defer c.telling.Unlock()
	for {
		c.mu.Lock()
		what, frame := c.next()
		h := c.host
		c.said |= what
		c.mu.Unlock()
		if what == 0 || h.write(frame) != nil {
			return
		}
		if what != sayStarted {
			continue
		}
		c.mu.Lock()
		if c.host == h {
			c.credit += port.InitialWindow
			c.changed.Broadcast()
		}
		c.mu.Unlock()
	}
}

// next returns what is to be said next; 0: nothing. c.mu is held.
func (c *channel) next() (what uint8, frame []byte) {
	if c.host == nil {
		return 0, nil
	}
	switch left := c.say &^ c.said; {
	case left&sayStarted != 0:
		return sayStarted, port.Append(nil, port.Started, c.number, nil)
	case left&sayFailed != 0:
		return sayFailed, port.Append(nil, port.Failed, c.number, c.failure)
	case left&sayReady != 0:
		return sayReady, port.Append(nil, port.Ready, c.number, nil)
	case left&sayExit != 0:
		return sayExit, port.Append(nil, port.Exit, c.number, c.exit[:])
	}
	return 0, nil
}

// fail ends a channel whose program did not start.
func (c *channel) fail(err error) {
	c.mu.Lock()
	c.failure, c.ended, c.in = failureText(err), true, nil
	c.mu.Unlock()
	c.announce(sayFailed)
	c.s.forget(c)
}

// over tells whether the channel's last frame was said.
func (c *channel) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said&(sayFailed|sayExit) != 0
}

// grant lets so many more bytes of output be sent.
func (c *channel) grant(n int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit = min(c.credit+n, maxCredit)
	c.changed.Broadcast()
}

// take takes a right to send at most most bytes of output to h. It is 0 where
// there is none now; h is nil for what is to be thrown away.
func (c *channel) take(most int) (n int, h *host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.orphaned {
		return most, nil
	}
	n = min(most, c.credit)
	c.credit -= n
	return n, c.host
}

// giveBack returns what was not needed of a take.
func (c *channel) giveBack(n int, h *host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == 0 || c.host != h {
		return
	}
	if c.credit == 0 {
		c.changed.Broadcast()
	}
	c.credit += n
}

// starve waits until take would give something.
func (c *channel) starve() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.credit == 0 && !c.orphaned {
		c.changed.Wait()
	}
}

// feed queues input.
func (c *channel) feed(b []byte) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.eof && c.master == nil {
		return nil
	}
	if c.held+len(b) > port.InitialWindow {
		return errProtocol
	}
	c.held += len(b)
	if !c.mute {
		c.in = append(c.in, b...)
		c.changed.Broadcast()
	}
	return nil
}

// end ends the input after what is queued.
func (c *channel) end() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eof = true
	c.changed.Broadcast()
}

// fetch waits for input; nil: it has ended.
func (c *channel) fetch() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 && !c.ended && (!c.eof || c.master != nil) {
		c.changed.Wait()
	}
	if c.ended {
		return nil
	}
	b := c.in
	c.in = nil
	return b
}

// consumed grants the host as much input again as was taken, a lump at a time.
func (c *channel) consumed(n int) {
	c.mu.Lock()
	old := min(n, c.older)
	c.older -= old
	n -= old
	h := c.host
	if c.owed += n; c.owed < port.Lump {
		n = 0
	} else {
		n, c.owed = c.owed, 0
		c.held -= n
	}
	c.mu.Unlock()
	if n > 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n))
		_ = h.write(port.Append(nil, port.Window, c.number, b[:])) // a host that has gone sends no more
	}
}

func (c *channel) resize(rows, cols uint16) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows, c.cols = rows, cols
	c.setSize()
}

// setSize gives the terminal the size that was asked for. c.mu is held.
func (c *channel) setSize() {
	if c.master == nil || c.rows == 0 && c.cols == 0 {
		return
	}
	if raw, err := c.master.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // a size is never worth an error
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: c.rows, Col: c.cols})
		})
	}
}

func (c *channel) signal(sig unix.Signal) {
	if c == nil || sig < 1 || sig > 64 {
		return
	}
	c.mu.Lock()
	child := c.child
	if child == nil && !c.ended && len(c.early) < maxEarly {
		c.early = append(c.early, sig)
	}
	c.mu.Unlock()
	if child != nil {
		_ = child.Signal(sig) // it may be over
	}
}

// runs notes that the program runs, and has master for a terminal, if any.
func (c *channel) runs(child Child, master *os.File, input bool) {
	c.mu.Lock()
	c.child, c.master = child, master
	if !input {
		c.mute, c.in = true, nil
	}
	c.setSize()
	early := c.early
	c.early = nil
	c.mu.Unlock()
	for _, sig := range early {
		_ = child.Signal(sig) // it may be over
	}
}
