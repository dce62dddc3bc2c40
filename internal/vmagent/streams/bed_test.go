package streams_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/vmagent/streams"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

// patience is for slow machines; nothing is expected to take as long.
const patience = 60 * time.Second

// starter starts programs on this host, and waits for each.
type starter struct {
	birth func(*program.Birth)
	oom   bool
	alive atomic.Int32
}

type child struct {
	pid   int
	ended chan unix.WaitStatus
	oom   bool
}

func (s *starter) Start(img *program.Image) (streams.Child, *program.Report, error) {
	if s.birth != nil {
		s.birth(&img.Birth)
	}
	pid, report, err := img.Start()
	if err != nil {
		return nil, nil, err
	}
	c := &child{pid, make(chan unix.WaitStatus, 1), s.oom}
	s.alive.Add(1)
	go func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		s.alive.Add(-1)
		c.ended <- status
	}()
	return c, report, nil
}

func (c *child) PID() int                      { return c.pid }
func (c *child) Ended() <-chan unix.WaitStatus { return c.ended }
func (c *child) Signal(sig unix.Signal) error  { return unix.Kill(c.pid, sig) }
func (c *child) OutOfMemory() bool             { return c.oom }

// bed is an agent and the ports on which hosts may come.
type bed struct {
	t       testing.TB
	server  *streams.Server
	starter *starter
	ports   chan io.ReadWriteCloser
}

func newBed(t testing.TB) *bed {
	b := &bed{t: t, starter: &starter{}, ports: make(chan io.ReadWriteCloser)}
	ctx, cancel := context.WithCancel(context.Background())
	b.server = streams.New(func() (io.ReadWriteCloser, error) {
		select {
		case p := <-b.ports:
			return p, nil
		case <-ctx.Done():
			return nil, errors.New("the test is over")
		}
	}, b.starter)
	done := make(chan struct{})
	go func() { b.server.Serve(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return b
}

// pair returns the two ends of a socket.
func pair(t testing.TB) (host, agent net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "port")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// host brings a new host to a new port.
func (b *bed) host() *streamstest.Client {
	b.t.Helper()
	h, a := pair(b.t)
	b.ports <- a
	return b.meet(h)
}

func (b *bed) meet(conn io.ReadWriteCloser) *streamstest.Client {
	b.t.Helper()
	c, err := streamstest.Meet(within(b.t), conn)
	if err != nil {
		b.t.Fatalf("meet: %v", err)
	}
	return c
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// rooted is a bed and a host, for tests with real programs.
func rooted(t testing.TB) (*bed, *streamstest.Client) {
	require.Root(t)
	b := newBed(t)
	return b, b.host()
}

func shell(script string) wire.Process {
	return wire.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, WorkDir: "/", NoNewPrivs: true}
}

func with(p wire.Process, change func(*wire.Process)) wire.Process {
	change(&p)
	return p
}
