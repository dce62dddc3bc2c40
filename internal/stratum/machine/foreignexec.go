package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/guestagent"
	"github.com/strata-project/strata/internal/stratum"
)

// maxGuestExecs is how many programs may be under way at once by a guest agent.
const maxGuestExecs = 16

// How soon, and how often at last, an agent is asked whether a program has ended.
const (
	pollFirst = 20 * time.Millisecond
	pollMost  = time.Second
)

// execPatience bounds the start of a program whose input came.
const execPatience = 30 * time.Second

// Exec implements stratum.Live, by qemu-guest-agent: the program has no terminal, its
// input is bounded and there before it starts, and what it writes comes when it has ended.
func (f *Foreign) Exec(ctx context.Context, p stratum.Process, conn *os.File) error {
	if f.settled() {
		p.Env = withPath(p.Env)
		return f.Live.Exec(ctx, p, conn)
	}
	if p.Agent {
		return noAgent("no file of it can be read or written")
	}
	agent, err := f.answering(ctx, "no program can be run in it")
	if err != nil {
		return err
	}
	if err := byGuestAgent(p); err != nil {
		return err
	}
	g := f.guest
	g.mu.Lock()
	full := g.execs >= maxGuestExecs
	if !full {
		g.execs++
	}
	g.mu.Unlock()
	if full {
		return fault.Busyf("%d programs run by exec in this environment already", maxGuestExecs)
	}
	x := &guestExec{agent: agent, p: p}
	leave := func() {
		g.mu.Lock()
		g.execs--
		g.mu.Unlock()
	}
	if x.conn, err = again(conn); err != nil {
		leave()
		return err
	}
	if !p.Stdin {
		if err := x.start(ctx, nil); err != nil {
			x.conn.Close()
			leave()
			return err
		}
	}
	// The run bounds what goes on, and not the request.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		<-f.Over()
		cancel()
	}()
	go func() {
		defer leave()
		x.carry(life)
	}()
	return nil
}

// byGuestAgent refuses what qemu-guest-agent has no words for.
func byGuestAgent(p stratum.Process) error {
	var all []error
	refuse := func(given bool, field, why string) {
		if given {
			all = append(all, fault.Unablef("qemu-guest-agent %s", why).At(field).
				Help("strata's own agent does: strata agent install NAME; or leave it out"))
		}
	}
	refuse(len(p.Args) == 0 || p.Args[0] == "", "command", "runs no program without a name")
	refuse(p.TTY, "tty", "gives programs no terminal")
	refuse(p.User != "", "user", "runs programs as its own user")
	refuse(p.WorkDir != "", "workdir", "runs programs in a folder of its own choice")
	return fault.Join(all...)
}

// again returns another descriptor of a connection, with deadlines.
func again(conn *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(conn.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fault.Internalf("duplicate a descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fault.Internalf("share a connection: %w", err)
	}
	return os.NewFile(uintptr(fd), "exec"), nil
}

// guestExec is one program by a guest agent.
type guestExec struct {
	agent *guestagent.Agent
	p     stratum.Process
	conn  *os.File // to the client, in frames of package api/stream
	pid   int64
}

func (x *guestExec) start(ctx context.Context, input []byte) (err error) {
	x.pid, err = x.agent.Start(ctx, guestagent.Program{Path: x.p.Args[0], Args: x.p.Args[1:], Env: x.env(), Input: input})
	var refused *guestagent.Refused
	if !errors.As(err, &refused) {
		return err
	}
	kind := fault.Unable
	// The words are GLib's, of Linux and of Windows.
	if strings.Contains(refused.Words, "No such file") || strings.Contains(refused.Words, "cannot find") {
		kind = fault.Missing
	}
	return fault.New(kind, "%s", refused.Words).At("command")
}

// env is a whole environment where anything is asked for, since that replaces the agent's own.
func (x *guestExec) env() []string {
	if len(x.p.Env) == 0 {
		return nil
	}
	return withPath(x.p.Env)
}

// withPath adds where Linux systems have their programs, where nothing else is said.
func withPath(env []string) []string {
	for _, v := range env {
		if strings.HasPrefix(v, "PATH=") {
			return env
		}
	}
	return append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
}

// carry brings the program to its end, and tells the client.
func (x *guestExec) carry(ctx context.Context) {
	defer x.conn.Close()
	if x.p.Stdin {
		input, err := x.input()
		if err == nil {
			starting, cancel := context.WithTimeout(ctx, execPatience)
			err = x.start(starting, input)
			cancel()
		}
		if err != nil {
			x.fail(err)
			return
		}
	}
	go x.hear(ctx)
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		select {
		case <-ctx.Done():
			x.fail(fault.Conflictf("the environment ended before the program"))
			return
		case <-time.After(wait):
		}
		s, err := x.agent.Status(ctx, x.pid)
		if fault.KindOf(err) == fault.Busy && ctx.Err() == nil {
			continue // paused, or busy: it has a next time
		}
		if err != nil {
			x.fail(fault.Wrap(err, "ask how the program is doing"))
			return
		}
		if s.Ended {
			x.end(s)
			return
		}
	}
}

// input is all that the client has for the program.
func (x *guestExec) input() ([]byte, error) {
	var all []byte
	for frames := stream.NewReader(x.conn); ; {
		kind, payload, err := frames.Next()
		switch {
		case errors.Is(err, io.EOF), err == nil && kind == stream.CloseStdin:
			return all, nil
		case err != nil:
			return nil, fault.Internalf("the program's input broke off: %w", err)
		case kind != stream.Stdin:
		case len(all)+len(payload) > guestagent.MaxInput:
			return nil, fault.Unablef("qemu-guest-agent takes no more than %d MiB of input, all of it before the program starts", guestagent.MaxInput>>20).
				At("stdin").Help("strata's own agent has no such bound: strata agent install NAME")
		default:
			all = append(all, payload...)
		}
	}
}

// hear passes signals on, until the client goes.
func (x *guestExec) hear(ctx context.Context) {
	for frames := stream.NewReader(x.conn); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			return
		}
		if kind != stream.Signal || len(payload) != 1 {
			continue
		}
		// The agent knows no signals; a system that does has a shell that sends them.
		_, _ = x.agent.Start(ctx, guestagent.Program{
			Path: "/bin/sh", Args: []string{"-c", `kill -"$0" "$1"`, strconv.Itoa(int(payload[0])), strconv.FormatInt(x.pid, 10)},
		})
	}
}

// clientPatience is how long a client may take to read what a program wrote.
const clientPatience = 5 * time.Minute

func (x *guestExec) end(s guestagent.Status) {
	_ = x.conn.SetWriteDeadline(time.Now().Add(clientPatience))
	ended := stream.Ended{Status: s.Code, Signal: s.Signal}
	if s.Signal != 0 {
		ended.Status = 128 + s.Signal
	}
	if s.Truncated {
		s.Err = append(s.Err, "strata: the guest agent has left out some of the output\n"...)
	}
	for _, f := range []struct {
		kind stream.Type
		data []byte
	}{{stream.Stdout, s.Out}, {stream.Stderr, s.Err}, {stream.Exit, stream.ExitPayload(ended)}} {
		if len(f.data) == 0 {
			continue
		}
		if stream.Write(x.conn, f.kind, f.data) != nil {
			return // the client has gone, and the program has ended as well
		}
	}
}

// fail tells the client why there is no exit status.
func (x *guestExec) fail(err error) {
	first := fault.All(err)[0]
	text, _ := json.Marshal(api.Error{Kind: first.Kind.String(), Message: first.Message, Field: first.Field, Hint: first.Hint})
	_ = x.conn.SetWriteDeadline(time.Now().Add(execPatience))
	_ = stream.Write(x.conn, stream.Failure, text)
}
