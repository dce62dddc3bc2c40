package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) logsCommand() *cobra.Command {
	var since, until, tail string
	var follow, times, asJSON, kernel bool
	cmd := &cobra.Command{
		Use:   "logs [flags] NAME",
		Short: "Print what an environment wrote",
		Long: `Print the output of an environment's main program: its standard output here on
standard output, its standard error on standard error. Of old output only so much
is kept as the log's limits allow.

With --kernel it is the log of the kernel inside a guest or machine. A zone has none
of its own: there it is what the host's kernel did to it, a line for each process
that was killed for want of memory, with the limit that was reached.

Examples:
  strata logs web
  strata logs -f --tail 20 web
  strata logs -t --since 10m web
  strata logs --kernel db`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			o, err := logOptions(since, until, tail, time.Now())
			if err != nil {
				return err
			}
			o.Follow = follow
			if kernel {
				o.Source = "kernel"
			}
			print := printer{out: a.out, err: a.err, times: times}
			return c.Logs(ctx, args[0], o, func(l api.LogLine) error {
				if asJSON {
					return a.printLine(l)
				}
				return print.line(l)
			})
		}),
		ValidArgsFunction: a.completeOneName,
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the environment ends")
	f.StringVar(&since, "since", "", "only from this `time` on: 2026-01-31T12:00:00Z, or how long ago, such as 10m")
	f.StringVar(&until, "until", "", "only before this `time`")
	f.StringVarP(&tail, "tail", "n", "all", "only so many `lines` at the end, or all")
	f.BoolVar(&kernel, "kernel", false, "the log of the kernel inside, as dmesg prints it; of a zone, what was killed in it")
	f.BoolVarP(&times, "timestamps", "t", false, "put the time before every line")
	f.BoolVar(&asJSON, "json", false, "print JSON: one object per piece of output, its data in base64")
	return cmd
}

func logOptions(since, until, tail string, now time.Time) (o client.LogOptions, err error) {
	var errs [3]error
	o.Since, errs[0] = parseMoment("since", since, now)
	o.Until, errs[1] = parseMoment("until", until, now)
	o.Tail = -1
	if tail != "all" && tail != "" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			errs[2] = fault.Invalidf("%q is not a number of lines", tail).At("tail").Help("write a number, or all")
		}
		o.Tail = n
	}
	return o, fault.Join(errs[:]...)
}

// printer writes pieces of output; a time stands only at the start of a line.
type printer struct {
	out, err io.Writer
	times    bool
	inside   [2]bool // a line of stdout, stderr is not at its end yet
}

func (p *printer) line(l api.LogLine) error {
	w, i := p.out, 0
	if l.Stream == "stderr" {
		w, i = p.err, 1
	}
	if !p.times {
		_, err := w.Write(l.Data)
		return err
	}
	var b bytes.Buffer
	stamp := l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z")
	for part := range bytes.Lines(l.Data) {
		if !p.inside[i] {
			fmt.Fprintf(&b, "%s ", stamp)
		}
		b.Write(part)
		p.inside[i] = !bytes.HasSuffix(part, []byte("\n"))
	}
	_, err := w.Write(b.Bytes())
	return err
}
