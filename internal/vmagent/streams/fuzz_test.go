package streams_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/port"
	"github.com/strata-project/strata/internal/vmagent/streams"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

// none starts nothing.
type none struct{}

func (none) Start(*program.Image) (streams.Child, *program.Report, error) {
	return nil, nil, root.Fail(root.Unable, "", "there is nothing here")
}

// nobody stands for the main program, and takes all signals.
type nobody struct{ ended chan unix.WaitStatus }

func (nobody) PID() int                        { return 1 }
func (n nobody) Ended() <-chan unix.WaitStatus { return n.ended }
func (nobody) OutOfMemory() bool               { return false }

func (n nobody) Signal(sig unix.Signal) error {
	if sig == unix.SIGTERM {
		select {
		case n.ended <- 0:
		default:
		}
	}
	return nil
}

// said is a port of which everything is there already.
type said struct {
	io.Reader
	end     func()
	answers bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) { return s.answers.Write(b) }
func (s *said) Close() error                { s.end(); return nil }

func FuzzServer(f *testing.F) {
	hello := port.Append(nil, port.Hello, 0, port.HelloPayload(7))
	frame := func(t port.Type, channel uint32, payload string) []byte {
		return port.Append(bytes.Clone(hello), t, channel, []byte(payload))
	}
	f.Add([]byte("junk"))
	f.Add(append([]byte(port.Magic[:5]), hello...))
	f.Add(frame(port.Exec, 1, `{"args":["/bin/true"],"user":"0:0"}`))
	f.Add(append(frame(port.Exec, 1, `{"args":["x"],"tty":true,"user":"1:1"}`), frame(port.Resize, 1, "\x00\x10\x00\x20")...))
	f.Add(append(frame(port.Stdin, 0, "text"), port.Append(nil, port.Window, 0, []byte{255, 255, 255, 255})...))
	f.Add(append(frame(port.Signal, 0, "\x0f"), port.Append(nil, port.Taken, 0, nil)...))
	f.Add(append(frame(port.CloseStdin, 3, ""), hello...))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		s := streams.New(func() (io.ReadWriteCloser, error) {
			return &said{Reader: bytes.NewReader(b), end: cancel}, nil
		}, none{})
		idle := nobody{make(chan unix.WaitStatus, 1)}
		s.Idle(idle)
		defer idle.Signal(unix.SIGTERM)
		s.Serve(ctx)
		// And it still serves who keeps to the protocol.
		h, a := net.Pipe()
		ctx, cancel = context.WithTimeout(context.Background(), patience)
		defer cancel()
		again := streams.New(func() (io.ReadWriteCloser, error) {
			return &joined{io.MultiReader(bytes.NewReader(junk(b)), a), a}, nil
		}, none{})
		go again.Serve(ctx)
		c, err := streamstest.Meet(ctx, h)
		if err != nil {
			t.Fatalf("after junk nobody is met: %v", err)
		}
		c.Close()
	})
}

// junk is b as it may stand in a port before a host comes: without a whole Hello.
func junk(b []byte) []byte {
	return bytes.ReplaceAll(b, []byte(port.Magic), []byte("other"))
}

type joined struct {
	io.Reader
	io.WriteCloser
}

func FuzzClient(f *testing.F) {
	f.Add(port.Append(nil, port.Started, 1, nil))
	f.Add(port.Append(port.Append(nil, port.Started, 1, nil), port.Stdout, 1, []byte("text")))
	f.Add(port.Append(port.Append(nil, port.Started, 1, nil), port.Exit, 1, []byte{0, 0, 0, 9, 1}))
	f.Add(port.Append(nil, port.Failed, 1, []byte(`{"kind":"missing"}`)))
	f.Add(port.Append(nil, port.Window, 1, []byte{255, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, a := net.Pipe()
		go func() {
			hello := make([]byte, port.HeaderSize+port.HelloSize)
			if _, err := io.ReadFull(a, hello); err != nil {
				return
			}
			go io.Copy(io.Discard, a)
			a.Write(hello)
			a.Write(b)
			a.Close()
		}()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c, err := streamstest.Meet(ctx, h)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Exec(shell("true"))
		if err == nil {
			_, err = x.Collect(ctx)
		}
		if ctx.Err() != nil {
			t.Fatalf("it hangs: %v", err)
		}
		for c.Err() == nil && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	})
}
