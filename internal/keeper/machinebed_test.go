package keeper

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/vmagent/port"
	"github.com/strata-project/strata/internal/vmagent/streams"
	"golang.org/x/sys/unix"
)

// box is a machine without QEMU: the test has the other ends of its sockets.
type box struct {
	*live
	streams, monitor, console net.Conn
	st                        *Starting
	log                       string // the console's
}

// newMachine returns the spec of a machine, with QEMU's last words.
func newMachine(t testing.TB, words ...string) wire.Spec {
	s := newSpec(t, "qemu")
	s.Payload.Args = append(append(s.Payload.Args, filepath.Dir(s.Socket)+"/up"), words...)
	s.Exec = wire.ExecPath{}
	return s
}

// plug starts a machine's keeper up to Go.
func plug(t testing.TB, s wire.Spec, conn *os.File, beside ...Beside) (*box, error) {
	t.Helper()
	return plugAs(t, s, conn, &Machine{Beside: beside})
}

// plugAs is plug for a machine of which m says what is special.
func plugAs(t testing.TB, s wire.Spec, conn *os.File, m *Machine) (*box, error) {
	t.Helper()
	b := &box{log: t.TempDir()}
	m.ConsoleLog = wire.Log{Dir: b.log, Size: 1 << 20, Files: 2}
	for _, s := range []struct {
		ours   *net.Conn
		theirs **os.File
	}{{&b.streams, &m.Streams}, {&b.monitor, &m.Monitor}, {&b.console, &m.Console}} {
		*s.ours, *s.theirs = ends(t)
	}
	self, err := os.Open(s.Payload.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	s.Payload.Path = "/proc/self/fd/" + strconv.Itoa(wire.PayloadSyncFD+1)
	b.st, err = Start(within10(t), Options{Binary: binary, Spec: s, Attach: conn, Files: []*os.File{self}, Machine: m})
	for _, f := range []*os.File{m.Streams, m.Monitor, m.Console} {
		f.Close()
	}
	if err != nil {
		return b, err
	}
	t.Cleanup(func() { unix.Kill(b.st.PID, unix.SIGKILL); wait(t, b.st.gone) })
	b.live = &live{Keeper: b.st.keeper, t: t, dir: filepath.Dir(s.Socket), spec: s, gone: b.st.gone}
	return b, nil
}

// ends returns both ends of a socket.
func ends(t testing.TB) (ours net.Conn, theirs *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[0]), "qemu")
	ours, err = net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	ours.SetDeadline(time.Now().Add(require.Patience(20 * time.Second)))
	theirs = os.NewFile(uintptr(pair[1]), "keeper")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// power starts a machine and has its agent answer; its main program has started.
func power(t testing.TB, s wire.Spec, conn *os.File, beside ...Beside) *box {
	t.Helper()
	b, err := plug(t, s, conn, beside...)
	if err != nil {
		t.Fatal(err)
	}
	started := b.goes()
	b.answer()
	b.say(port.Started, 0, nil)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return b
}

// goes says go; the channel gives what comes of it.
func (b *box) goes() <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := b.st.Go(within10(b.t))
		result <- err
	}()
	return result
}

// answer meets the keeper as an agent does.
func (b *box) answer() {
	b.t.Helper()
	h, p := b.hear()
	_, number, err := port.ParseHello(p)
	if h.Type != port.Hello || err != nil {
		b.t.Fatalf("the keeper opens with %+v, %v", h, err)
	}
	b.say(port.Hello, 0, port.HelloPayload(number))
}

func (b *box) say(t port.Type, channel uint32, payload []byte) {
	b.t.Helper()
	if _, err := b.streams.Write(port.Append(nil, t, channel, payload)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) hear() (port.Header, []byte) {
	b.t.Helper()
	var head [port.HeaderSize]byte
	_, err := io.ReadFull(b.streams, head[:])
	h, perr := port.ParseHeader(head[:])
	payload := make([]byte, h.Length)
	if err = errors.Join(err, perr); err == nil {
		_, err = io.ReadFull(b.streams, payload)
	}
	if err != nil {
		b.t.Fatalf("hear the keeper: %v", err)
	}
	return h, payload
}

// hears expects one frame.
func (b *box) hears(t port.Type, channel uint32, payload string) {
	b.t.Helper()
	if h, p := b.hear(); h.Type != t || h.Channel != channel || string(p) != payload {
		b.t.Fatalf("the keeper says %+v %q, not type %d on %d with %q", h, p, t, channel, payload)
	}
}

// spoke waits until QEMU has said its words and can be told to end.
func (b *box) spoke() {
	b.t.Helper()
	eventually(b.t, "that QEMU waits for signals", func() bool {
		_, err := os.Lstat(b.dir + "/up")
		return err == nil
	})
}

// event is what QEMU says on its monitor.
func (b *box) event(text string) {
	b.t.Helper()
	if _, err := b.monitor.Write([]byte(text + "\r\n")); err != nil {
		b.t.Fatal(err)
	}
}

// off is QEMU's end.
func (b *box) off(sig unix.Signal) {
	b.t.Helper()
	b.spoke()
	if err := unix.Kill(b.st.PID, sig); err != nil {
		b.t.Fatal(err)
	}
}

// inhabit serves the port with the agent's own end of it, whose programs are this
// host's. A program that it starts as the main one is p.
func inhabit(t testing.TB, s wire.Spec, conn *os.File, p *wire.Process) *box {
	t.Helper()
	require.Root(t)
	b, err := plug(t, s, conn)
	if err != nil {
		t.Fatal(err)
	}
	b.spoke()
	b.streams.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(context.Background())
	open := make(chan io.ReadWriteCloser, 1)
	open <- b.streams
	agent := streams.New(func() (io.ReadWriteCloser, error) {
		select {
		case c := <-open:
			return c, nil
		default:
			return nil, io.EOF
		}
	}, starter{})
	served := make(chan struct{})
	go func() { agent.Serve(ctx); close(served) }()
	t.Cleanup(func() { cancel(); <-served })
	started := b.goes()
	if p == nil {
		agent.Idle(idle{})
	} else if err := agent.Start(p); err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	go func() {
		<-agent.Taken()
		unix.Kill(b.st.PID, unix.SIGUSR1)
	}()
	return b
}

// idle stands for the main program where there is none, and never ends.
type idle struct{}

func (idle) PID() int                      { return 1 }
func (idle) Ended() <-chan unix.WaitStatus { return nil }
func (idle) Signal(unix.Signal) error      { return nil }
func (idle) OutOfMemory() bool             { return false }

// starter starts programs on this host.
type starter struct{}

type child struct {
	pid   int
	ended chan unix.WaitStatus
}

func (starter) Start(img *program.Image) (streams.Child, *program.Report, error) {
	pid, report, err := img.Start()
	if err != nil {
		return nil, nil, err
	}
	c := &child{pid, make(chan unix.WaitStatus, 1)}
	go func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
				break
			}
		}
		c.ended <- status
	}()
	return c, report, nil
}

func (c *child) PID() int                      { return c.pid }
func (c *child) Ended() <-chan unix.WaitStatus { return c.ended }
func (c *child) Signal(sig unix.Signal) error  { return unix.Kill(c.pid, sig) }
func (c *child) OutOfMemory() bool             { return false }

// logged reads a log.
func logged(t testing.TB, dir string) (out, errs string) {
	t.Helper()
	err := logfile.Read(within10(t), dir, logfile.Options{}, func(r logfile.Record) error {
		if r.Stream == logfile.Stderr {
			errs += string(r.Data)
		} else {
			out += string(r.Data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, errs
}
