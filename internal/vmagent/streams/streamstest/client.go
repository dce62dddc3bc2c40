// Package streamstest is the host's end of package port, for tests of an agent.
// It keeps to the protocol, and fails where the agent does not.
package streamstest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
)

// ErrProtocol is wrapped by what the agent must not do.
var ErrProtocol = errors.New("the agent breaks the protocol")

// maxJunk bounds what is thrown away before the agent's answer. Unit: bytes.
const maxJunk = 4 << 20

// Client is a host that has met the agent.
type Client struct {
	conn io.ReadWriteCloser
	wmu  sync.Mutex // one frame is written at a time

	mu       sync.Mutex
	changed  sync.Cond // anything below, and of the programs
	programs map[uint32]*Program
	next     uint32
	err      error // why nothing comes any more
}

// Meet says Hello on conn and waits for the agent's answer; the end of ctx closes conn.
func Meet(ctx context.Context, conn io.ReadWriteCloser) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	c := &Client{conn: conn, programs: map[uint32]*Program{}}
	c.changed.L = &c.mu
	c.programs[0] = newProgram(c, 0)
	number := rand.Uint64()
	if err := c.send(port.Hello, 0, port.HelloPayload(number)); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, port.MaxPayload)
	want := port.HelloPayload(number)
	for at, all := 0, 0; at < len(want); all++ {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case all > maxJunk:
			return nil, fmt.Errorf("%w: no answer in %d bytes", ErrProtocol, all)
		case b == want[at]:
			at++
		case b == want[0]:
			at = 1
		default:
			at = 0
		}
	}
	go c.read(r)
	return c, nil
}

// Main is the main program, whether it runs or not.
func (c *Client) Main() *Program { return c.programs[0] }

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Err tells why the connection has ended; nil: it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Exec asks for a program.
func (c *Client) Exec(p wire.Process) (*Program, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.next++
	x := newProgram(c, c.next)
	c.programs[x.number] = x
	c.mu.Unlock()
	return x, c.send(port.Exec, x.number, text)
}

// Result is what Run got.
type Result struct {
	Stdout, Stderr []byte
	Exit           Exit
}

// Run runs a program to its end. Where p has standard input, it is stdin.
func (c *Client) Run(ctx context.Context, p wire.Process, stdin []byte) (Result, error) {
	x, err := c.Exec(p)
	if err != nil {
		return Result{}, err
	}
	if p.Stdin {
		go func() {
			x.Write(stdin)
			x.CloseStdin()
		}()
	}
	return x.Collect(ctx)
}

// Taken says that the main program's Exit has come.
func (c *Client) Taken() error { return c.send(port.Taken, 0, nil) }

// Raw sends bytes that need not be frames.
func (c *Client) Raw(b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, err := c.conn.Write(b)
	return err
}

func (c *Client) send(t port.Type, channel uint32, payload []byte) error {
	return c.Raw(port.Append(nil, t, channel, payload))
}

func (c *Client) read(r io.Reader) {
	err := c.frames(r)
	c.conn.Close()
	c.mu.Lock()
	c.err = err
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *Client) frames(r io.Reader) error {
	var head [port.HeaderSize]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		h, err := port.ParseHeader(head[:])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		b := make([]byte, h.Length)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		c.mu.Lock()
		err = c.take(h, b)
		c.changed.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%w: frame of type %d on channel %d: %w", ErrProtocol, h.Type, h.Channel, err)
		}
	}
}

// take does what a frame says. c.mu is held.
func (c *Client) take(h port.Header, b []byte) error {
	x := c.programs[h.Channel]
	if x == nil {
		return errors.New("there is no such channel")
	}
	if x.exit != nil || x.failure != nil {
		return errors.New("it comes after the channel's last")
	}
	if !x.started && h.Type != port.Started && h.Type != port.Failed && h.Type != port.Window {
		return errors.New("the program has not started")
	}
	switch h.Type {
	case port.Started:
		if x.started {
			return errors.New("it comes twice")
		}
		x.started = true
	case port.Failed:
		x.failure = &wire.Failure{}
		return json.Unmarshal(b, x.failure)
	case port.Stdout, port.Stderr:
		if x.granted -= len(b); x.granted < 0 {
			return errors.New("it was not granted")
		}
		x.out[h.Type-port.Stdout].Write(b)
	case port.Window:
		n := int(binary.BigEndian.Uint32(b))
		if x.window+n > port.InitialWindow {
			return errors.New("it grants more than was sent")
		}
		x.window += n
	case port.Ready:
		x.ready = true
	case port.Exit:
		x.exit = &Exit{Status: unix.WaitStatus(binary.BigEndian.Uint32(b)), OutOfMemory: b[4] != 0}
	default:
		return errors.New("agents do not send it")
	}
	return nil
}

// Exit is how a program ended.
type Exit struct {
	Status      unix.WaitStatus
	OutOfMemory bool
}

// Program is one program of an agent's.
type Program struct {
	Stdout, Stderr io.Reader // what is read is granted anew; they end with the program

	c      *Client
	number uint32
	// Guarded by c.mu:
	started, ready bool
	failure        *wire.Failure
	exit           *Exit
	out            [2]bytes.Buffer
	granted        int // bytes of output that may come
	owed           int // bytes of output that were read and not granted anew
	window         int // bytes of input that may be sent
}

func newProgram(c *Client, number uint32) *Program {
	x := &Program{c: c, number: number, granted: port.InitialWindow, window: port.InitialWindow}
	x.Stdout, x.Stderr = &reader{x, &x.out[0]}, &reader{x, &x.out[1]}
	return x
}

// reader reads one output.
type reader struct {
	x   *Program
	buf *bytes.Buffer
}

func (r *reader) Read(b []byte) (int, error) {
	x := r.x
	x.c.mu.Lock()
	for r.buf.Len() == 0 {
		if x.exit != nil || x.failure != nil {
			x.c.mu.Unlock()
			return 0, io.EOF
		}
		if err := x.c.err; err != nil {
			x.c.mu.Unlock()
			return 0, err
		}
		x.c.changed.Wait()
	}
	n, _ := r.buf.Read(b)
	x.owed += n
	grant := 0
	if x.exit == nil && x.owed >= port.Lump {
		grant, x.owed = x.owed, 0
		x.granted += grant
	}
	x.c.mu.Unlock()
	if grant > 0 {
		_ = x.c.send(port.Window, x.number, binary.BigEndian.AppendUint32(nil, uint32(grant))) // the next read says why not
	}
	return n, nil
}

// until waits for ready, which is called with c.mu held.
func (x *Program) until(ctx context.Context, ready func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		x.c.mu.Lock()
		x.c.changed.Broadcast()
		x.c.mu.Unlock()
	})
	defer stop()
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	for !ready() {
		if x.c.err != nil {
			return x.c.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		x.c.changed.Wait()
	}
	return nil
}

// FailedError is a program that did not start.
type FailedError struct{ wire.Failure }

func (e *FailedError) Error() string { return e.Kind + ": " + e.Message }

// Started waits until the program is executed.
func (x *Program) Started(ctx context.Context) error {
	if err := x.until(ctx, func() bool { return x.started || x.failure != nil }); err != nil {
		return err
	}
	if x.failure != nil {
		return &FailedError{*x.failure}
	}
	return nil
}

// Ready waits until the system is up.
func (x *Program) Ready(ctx context.Context) error {
	return x.until(ctx, func() bool { return x.ready })
}

// Wait waits for the program's end. Somebody has to read its outputs.
func (x *Program) Wait(ctx context.Context) (Exit, error) {
	if err := x.until(ctx, func() bool { return x.exit != nil || x.failure != nil }); err != nil {
		return Exit{}, err
	}
	if x.failure != nil {
		return Exit{}, &FailedError{*x.failure}
	}
	return *x.exit, nil
}

// Collect reads the outputs and waits for the program's end.
func (x *Program) Collect(ctx context.Context) (Result, error) {
	var r Result
	var both sync.WaitGroup
	both.Go(func() { r.Stdout, _ = io.ReadAll(x.Stdout) }) // Wait says what went wrong
	both.Go(func() { r.Stderr, _ = io.ReadAll(x.Stderr) })
	exit, err := x.Wait(ctx)
	if err != nil {
		return Result{}, err
	}
	both.Wait() // outputs end with the program
	r.Exit = exit
	return r, nil
}

// Write sends standard input, as the agent grants it.
func (x *Program) Write(b []byte) (done int, err error) {
	for done < len(b) {
		n := 0
		err := x.until(context.Background(), func() bool {
			n = min(len(b)-done, x.window, port.MaxPayload)
			x.window -= n
			return n > 0 || x.exit != nil || x.failure != nil
		})
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrClosedPipe
		}
		if err := x.c.send(port.Stdin, x.number, b[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// CloseStdin ends standard input.
func (x *Program) CloseStdin() error { return x.c.send(port.CloseStdin, x.number, nil) }

// Signal sends a signal to the program.
func (x *Program) Signal(sig unix.Signal) error {
	return x.c.send(port.Signal, x.number, []byte{byte(sig)})
}

// Resize gives its terminal another size.
func (x *Program) Resize(rows, cols uint16) error {
	b := binary.BigEndian.AppendUint16(nil, rows)
	return x.c.send(port.Resize, x.number, binary.BigEndian.AppendUint16(b, cols))
}

// Unread is how much output has come that nobody has read. Unit: bytes.
func (x *Program) Unread() int {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	return x.out[0].Len() + x.out[1].Len()
}
