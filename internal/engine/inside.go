package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Attach lets conn take part in the main program's streams, in frames of package
// api/stream. It returns once that is so; the caller closes its own copy of conn.
// Kinds: Missing, Conflict (it does not run).
func (e *Engine) Attach(ctx context.Context, ref string, conn *os.File) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.hasAgent("has no main program whose streams could be joined"); err != nil {
		return err
	}
	r, err := en.current("attached to")
	if err != nil {
		return err
	}
	if err := r.live.Attach(ctx, conn); err != nil {
		return fault.Wrap(err, "attach to %s", en.name())
	}
	e.tell(ctx, en, "attach")
	return nil
}

// Console lets conn take part in the console, as Attach does in the main
// program's streams. Kinds: Missing, Conflict, Unable where the stratum has none.
func (e *Engine) Console(ctx context.Context, ref string, conn *os.File) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := e.able(en, stratum.CanConsole, "has no console"); err != nil {
		return err
	}
	r, err := en.current("attached to")
	if err != nil {
		return err
	}
	if err := r.live.(stratum.Consoler).Console(ctx, conn); err != nil {
		return fault.Wrap(err, "join the console of %s", en.name())
	}
	e.tell(ctx, en, "console")
	return nil
}

// able refuses what the entry's stratum cannot do.
func (e *Engine) able(en *entry, c stratum.Capability, lacks string) error {
	d, err := e.driver(en)
	if err != nil {
		return err
	}
	if d.Capabilities()&c == 0 {
		return fault.Unablef("environment %s %s: it is a %s", en.name(), lacks, d.Stratum()).Help("its main program's output: strata logs %s", en.name())
	}
	return nil
}

// Exec starts a further program inside, with conn as its streams, and returns once
// it runs; its exit status is the last frame on conn. The caller closes its own
// copy of conn. Kinds: Invalid, Missing, Conflict (it does not run); a fault at
// field "command" is as Start's.
func (e *Engine) Exec(ctx context.Context, ref string, p api.Process, conn *os.File) error {
	if err := environment.CheckProcess(p); err != nil {
		return err
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	r, err := en.current("run in it")
	if err != nil {
		return err
	}
	if err := r.live.Exec(ctx, process(en.snapshot(), p), conn); err != nil {
		return fault.Wrap(err, "run %s in %s", p.Command[0], en.name())
	}
	e.tell(ctx, en, "exec_start", "command", p.Command[0])
	return nil
}

// socketpair returns both ends of a socket: one for us, with deadlines, and one
// to give away.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "inside"), os.NewFile(uintptr(fds[1]), "inside")
	conn, err := net.FileConn(ours) // a duplicate
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// tidying is how long the agent has to take away what it made of a copy that broke off.
const tidying = 2 * time.Second

// inside runs a program inside a run to its end, with in as its standard input
// (nil: none). When ctx ends the program is killed; the agent has a moment before that, as
// its input ends with who asked.
func inside(ctx context.Context, live stratum.Live, p stratum.Process, in io.Reader, out, errs io.Writer) (stream.Ended, error) {
	conn, theirs, err := socketpair()
	if err != nil {
		return stream.Ended{}, err
	}
	defer conn.Close()
	p.Stdin = in != nil
	err = live.Exec(ctx, p, theirs)
	theirs.Close()
	if err != nil {
		return stream.Ended{}, err
	}
	over := make(chan struct{})
	defer close(over)
	stop := context.AfterFunc(ctx, func() {
		if p.Agent && in != nil {
			select {
			case <-over:
				return
			case <-time.After(tidying):
			}
		}
		// Where the kill cannot be sent the closed connection must do.
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(killFrame)
		_ = conn.SetReadDeadline(time.Now())
	})
	defer stop()
	broken := make(chan error, 1)
	if in != nil {
		go feedStdin(conn, in, broken)
	}
	ended, err := collect(conn, out, errs)
	if ctx.Err() != nil {
		return ended, ctx.Err()
	}
	if err != nil {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(killFrame) // nobody listens to it any more
		return ended, err
	}
	select {
	case err := <-broken: // what was to be sent broke off: the program cannot know
		return ended, err
	default:
		return ended, nil
	}
}

// feedStdin sends in as frames, and its end. Where in broke off, broken is told
// before the peer can end. A peer that does not listen any more is no error: how
// the program ended says more.
func feedStdin(conn net.Conn, in io.Reader, broken chan<- error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if stream.Write(conn, stream.Stdin, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				broken <- err
			}
			_ = stream.Write(conn, stream.CloseStdin, nil)
			return
		}
	}
}

// collect reads frames until the program has ended.
func collect(conn io.Reader, out, errs io.Writer) (stream.Ended, error) {
	frames := stream.NewReader(conn)
	for {
		kind, payload, err := frames.Next()
		if err != nil {
			return stream.Ended{}, fault.Conflictf("what runs it has gone meanwhile: %w", err).Help("see with `strata ls -a` what the environment does, and try again")
		}
		switch kind {
		case stream.Stdout:
			_, err = out.Write(payload)
		case stream.Stderr:
			_, err = errs.Write(payload)
		case stream.Exit:
			return stream.ParseExit(payload)
		case stream.Failure:
			return stream.Ended{}, failure(payload)
		}
		if err != nil {
			return stream.Ended{}, err
		}
	}
}

// failure is the fault that a failure frame carries.
func failure(payload []byte) error {
	var wire api.Error
	if err := json.Unmarshal(payload, &wire); err != nil {
		return fault.Internalf("the program did not start, and why cannot be read: %w", err)
	}
	kind, _ := fault.ParseKind(wire.Kind) // an unknown kind is Internal
	f := fault.New(kind, "%s", wire.Message).At(wire.Field)
	f.Hint = wire.Hint
	return f
}
