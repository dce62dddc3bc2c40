// Command stratad is strata's daemon: it serves the REST interface of package
// server on a unix socket, on behalf of package engine.
//
// It ends on SIGTERM or SIGINT; environments go on, and the next daemon adopts
// them. `stratad dns` is an entry of its own, for the process that answers names
// and outlives the daemon; users do not call it. `stratad check` prints what the
// host can do as JSON, for `strata host check` where no daemon runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/dns"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/version"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	serve := serve
	if len(args) > 0 && args[0] == "dns" {
		serve, args = answerNames, args[1:]
	}
	if len(args) > 0 && args[0] == "check" {
		serve, args = checkHost, args[1:]
	}
	o, err := parse(args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = serve(ctx, o)
	}
	if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 0
	}
	for _, f := range fault.All(err) {
		fmt.Fprintln(stderr, "stratad:", f)
		if f.Hint != "" {
			fmt.Fprintln(stderr, "  hint:", f.Hint)
		}
	}
	return fault.KindOf(err).Exit()
}

// options are what the command line says.
type options struct {
	places place.Places
	config string         // path of the configuration; "": the usual one
	dir    string         // of `stratad dns`
	host   admission.Host // as the flags say
	log    *slog.Logger
	stdout io.Writer
}

// parse reads the command line; flag.ErrHelp means that all is said.
func parse(args []string, stdout, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("stratad", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // its faults are told as all others are
	root := flags.String("root", "", "`folder` of a private strata (default: $STRATA_ROOT, else the installed one)")
	file := flags.String("config", "", "")
	dir := flags.String("dir", "", "") // of `stratad dns`
	var c capacityFlags
	c.add(flags)
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error")
	asked := flags.Bool("version", false, "print the version")
	flags.Usage = func() {}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			return options{}, err
		}
		return options{}, fault.Invalidf("%w", err).Help("see `stratad --help`")
	}
	if flags.NArg() > 0 {
		return options{}, fault.Invalidf("%q is one argument too many", flags.Arg(0)).Help("see `stratad --help`")
	}
	if *asked {
		fmt.Fprintln(stdout, version.Version)
		return options{}, flag.ErrHelp
	}
	given, err := c.read()
	if err != nil {
		return options{}, err
	}
	places, err := place.Find(*root)
	if err != nil {
		return options{}, err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	return options{places: places, config: *file, dir: *dir, host: given, log: log, stdout: stdout}, nil
}

const usage = `stratad serves strata's interface on a unix socket.

Usage:
  stratad [--root FOLDER] [--config FILE] [--log-level LEVEL] [--reserve-memory SIZE] [--reserve-cpus N]
          [--overcommit-memory N] [--overcommit-cpus N]
  stratad check    print what this host can do, as JSON, and end

Flags:
  --root FOLDER       folder of a private strata (default: $STRATA_ROOT, else the installed one)
  --config FILE       configuration (default: /etc/strata/strata.yaml, but for a private strata)
  --log-level LEVEL   debug, info, warn or error (default info)
  --reserve-memory SIZE, --reserve-cpus N
                      what of the host no environment is guaranteed (default: the memory that the host uses
                      at the daemon's start, the processors that other programs are seen to use, and at
                      least a twentieth of each; strata host capacity says which)
  --overcommit-memory N, --overcommit-cpus N
                      how many times the rest all limits together may be (default: as they like); guarantees
                      never pass it
  --version           print the version
`

// answerNames is `stratad dns`.
func answerNames(ctx context.Context, o options) error {
	if o.dir == "" {
		return fault.Invalidf("--dir is missing")
	}
	return dns.Run(ctx, dns.Config{Dir: o.dir, Ready: os.Stdout, Log: o.log})
}
