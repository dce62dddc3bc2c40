package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"text/template"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
)

// app is what every command has at hand.
type app struct {
	in       *os.File
	out, err io.Writer
	outTTY   bool
	errTTY   bool
	root     string             // --root
	format   *template.Template // --format; nil: not given
	client   *client.Client
	places   place.Places
}

// gcPercent lets the collector begin late: most commands end before it is worth
// the time. Sessions and copies use little memory however long they last.
const gcPercent = 400

// Main runs the CLI with the arguments of the process and returns its exit status.
func Main() int {
	debug.SetGCPercent(gcPercent)
	out := &product{file: os.Stdout}
	a := &app{in: os.Stdin, out: out, err: os.Stderr}
	a.outTTY, a.errTTY = term.IsTerminal(int(os.Stdout.Fd())), term.IsTerminal(int(os.Stderr.Fd()))
	return a.run(os.Args[1:], out)
}

// product is standard output. It keeps the first error, so that no command has to look at
// that of each write.
type product struct {
	file *os.File
	err  error
}

func (p *product) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	if p.err == nil {
		p.err = err
	}
	return n, err
}

func (p *product) Fd() uintptr { return p.file.Fd() }

// described is what has a descriptor, and with it perhaps the size of a terminal.
type described interface{ Fd() uintptr }

func (a *app) run(args []string, out *product) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := a.command()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.err
	}
	if err == nil {
		return 0
	}
	var end exit
	if errors.As(err, &end) {
		if end.cause != nil {
			a.complain(end.cause)
		}
		return int(end.status)
	}
	if interrupted(ctx, err) {
		return 130 // as a shell has it for a program that SIGINT ended
	}
	a.complain(err)
	if startsPrograms(ran) {
		return statusFailed
	}
	return fault.KindOf(err).Exit()
}

// Exit statuses of run and exec where it is not the program that ended.
// Source: what docker's and podman's users expect.
const (
	statusFailed        = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// exit ends the CLI with a status; cause, where it is set, is told before.
type exit struct {
	status int
	cause  error
}

func (e exit) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return "exit status"
}

func (e exit) Unwrap() error { return e.cause }

// startsPrograms tells whether a command's exit status is a program's own.
func startsPrograms(cmd *cobra.Command) bool {
	return cmd != nil && cmd.Annotations["status"] == "program"
}

var programStatus = map[string]string{"status": "program"}

// programFault gives the fault of a program that did not start its exit status.
func programFault(err error) error {
	if err == nil {
		return nil
	}
	for _, f := range fault.All(err) {
		if f.Field != "command" {
			continue
		}
		switch f.Kind {
		case fault.Missing:
			return exit{statusNotFound, err}
		case fault.Unable, fault.Denied:
			return exit{statusNotExecutable, err}
		}
	}
	return exit{statusFailed, err}
}

// connect returns the client of the daemon that --root means; it connects, and
// starts a daemon where it may, with the first request.
func (a *app) connect() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	places, err := place.Find(a.root)
	if err != nil {
		return nil, err
	}
	a.places = places
	a.client = client.NewDial(a.dialStarting(places))
	return a.client, nil
}

// connected is a command's body that needs a daemon.
func (a *app) connected(do func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, args)
	}
}
