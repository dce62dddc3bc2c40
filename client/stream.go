package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
)

// Size is that of a terminal, in characters.
type Size struct{ Rows, Cols uint16 }

// Streams are the caller's ends of a program's streams. Every field may be nil.
// With a terminal everything comes by Out.
type Streams struct {
	In      io.Reader             // its end ends the program's standard input; ErrDetached ends the session
	Out     io.Writer             //
	Err     io.Writer             //
	Size    Size                  // the caller's terminal at the start; zero: not known
	Resize  <-chan Size           // new sizes of it
	Signals <-chan syscall.Signal // signals to hand on to the program
	// Joined, where it is set, is called once the daemon has taken the session,
	// before anything is read or written.
	Joined func()
}

// ErrDetached is what In returns, and then Run, Attach and Exec, where the user
// leaves a session while its program goes on.
var ErrDetached = errors.New("detached")

// copySize is how much is read at once. Unit: bytes.
const copySize = 32 << 10

// Run starts an environment that was created, with s as its main program's
// streams, and returns how it ended. A fault at the field "command" of kind
// Missing or Unable means that the program was not found or cannot be executed.
func (c *Client) Run(ctx context.Context, ref string, s Streams) (api.Exit, error) {
	return c.session(ctx, post(environments, ref, "attach").with("start", "true", "rows", number(s.Size.Rows), "cols", number(s.Size.Cols)), s)
}

// Attach joins the streams of a running environment's main program.
func (c *Client) Attach(ctx context.Context, ref string, s Streams) (api.Exit, error) {
	return c.session(ctx, post(environments, ref, "attach"), s)
}

// Console joins the console of a system with a kernel of its own.
func (c *Client) Console(ctx context.Context, ref string, s Streams) (api.Exit, error) {
	return c.session(ctx, post(environments, ref, "console"), s)
}

// Exec runs a further program in a running environment. Faults are as Run's.
func (c *Client) Exec(ctx context.Context, ref string, p api.Process, s Streams) (api.Exit, error) {
	q := post(environments, ref, "exec")
	q.body = p
	return c.session(ctx, q, s)
}

// ExecDetached runs a further program in a running environment and leaves it alone: it
// returns once the program runs. Faults are as Run's.
func (c *Client) ExecDetached(ctx context.Context, ref string, p api.Process) error {
	q := post(environments, ref, "exec").with("detach", "true")
	q.body = p
	return c.call(ctx, q, nil)
}

// session sends q as an upgrade and speaks frames until the program's end.
func (c *Client) session(ctx context.Context, q request, s Streams) (api.Exit, error) {
	conn, in, err := c.upgrade(ctx, q, stream.Protocol)
	if err != nil {
		return api.Exit{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if s.Joined != nil {
		s.Joined()
	}
	done := make(chan struct{})
	defer close(done)
	out := &sender{conn: conn}
	left := make(chan error, 1)
	if s.In != nil {
		go func() {
			if err := out.copy(s.In); errors.Is(err, ErrDetached) {
				left <- err
				_ = conn.Close()
			}
		}()
	}
	go out.control(s, done)
	exit, err := receive(in, s)
	select {
	case gone := <-left:
		return api.Exit{}, gone
	default:
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return exit, err
}

// upgrade returns a connection on which a protocol is spoken, and what to read it by.
func (c *Client) upgrade(ctx context.Context, q request, protocol string) (net.Conn, *bufio.Reader, error) {
	r, err := c.build(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, connectFault(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := bufio.NewReaderSize(conn, copySize)
	answer, err := exchange(conn, in, r)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, connectFault(err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		return nil, nil, faultIn(answer)
	}
	return conn, in, nil
}

func exchange(conn net.Conn, in *bufio.Reader, r *http.Request) (*http.Response, error) {
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(in, r)
}

// sender writes frames from several goroutines.
type sender struct {
	mu   sync.Mutex
	conn net.Conn
}

func (s *sender) send(t stream.Type, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return stream.Write(s.conn, t, p)
}

// copy sends everything of in, and its end.
func (s *sender) copy(in io.Reader) error {
	buf := make([]byte, copySize)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if err := s.send(stream.Stdin, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, ErrDetached) {
			return err
		}
		if err != nil {
			return s.send(stream.CloseStdin, nil)
		}
	}
}

// control sends sizes and signals until done.
func (s *sender) control(from Streams, done <-chan struct{}) {
	for {
		var err error
		select {
		case <-done:
			return
		case size, ok := <-from.Resize:
			if !ok {
				from.Resize = nil
				continue
			}
			err = s.send(stream.Resize, stream.ResizePayload(size.Rows, size.Cols))
		case sig, ok := <-from.Signals:
			if !ok {
				from.Signals = nil
				continue
			}
			err = s.send(stream.Signal, []byte{byte(sig)})
		}
		if err != nil {
			return
		}
	}
}

// receive hands out what comes in until the last frame.
func receive(in io.Reader, s Streams) (api.Exit, error) {
	frames := stream.NewReader(in)
	for {
		t, p, err := frames.Next()
		if err != nil {
			return api.Exit{}, fault.Internalf("the session ended without an exit status: %w", err).Help("see how the environment does with `strata show`")
		}
		switch t {
		case stream.Stdout:
			err = write(s.Out, p)
		case stream.Stderr:
			err = write(s.Err, p)
		case stream.Exit:
			end, err := stream.ParseExit(p)
			if err != nil {
				return api.Exit{}, fault.Internalf("the exit status cannot be read: %w", err)
			}
			return api.Exit{Status: int(end.Status), Signal: int(end.Signal), OOM: end.OOM, At: time.Now()}, nil
		case stream.Failure:
			var e api.Error
			if err := json.Unmarshal(p, &e); err != nil {
				return api.Exit{}, fault.Internalf("the failure cannot be read: %w", err)
			}
			return api.Exit{}, Fault(e)
		default:
			return api.Exit{}, fault.Internalf("a frame of type %d came the wrong way", t)
		}
		if err != nil {
			return api.Exit{}, err
		}
	}
}

func write(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}
