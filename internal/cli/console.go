package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) consoleCommand() *cobra.Command {
	var follow, input, tty bool
	var tail, keys string
	cmd := &cobra.Command{
		Use:   "console [flags] NAME",
		Short: "Show or join the console of a guest",
		Long: `Show what was written to the console of a system that has a kernel of its own: by
the kernel, by strata's agent, and by an init. The main program's own output is
apart from it: see strata logs.

With -it this command joins the console, where an init may offer a login. The
detach keys leave it.

Examples:
  strata console db
  strata console -f db
  strata console -it db`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if input || tty {
				if follow {
					return fault.Invalidf("a console is followed or joined, not both").At("follow").Help("leave out -f, or -it")
				}
				return a.joinConsole(ctx, c, args[0], session{tty: tty, input: input, detach: keys, ends: true})
			}
			o, err := logOptions("", "", tail, time.Now())
			if err != nil {
				return err
			}
			o.Follow, o.Source = follow, "console"
			print := printer{out: a.out, err: a.err}
			return c.Logs(ctx, args[0], o, print.line)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the environment ends")
	f.StringVarP(&tail, "tail", "n", "all", "only so many `lines` at the end, or all")
	f.BoolVarP(&input, "interactive", "i", false, "send standard input to the console")
	f.BoolVarP(&tty, "tty", "t", false, "this terminal is the console's")
	f.StringVar(&keys, "detach-keys", "", "`keys` that leave the session (default "+defaultDetachKeys+")")
	return cmd
}

// joinConsole ends with the environment, or by the detach keys; a console has no
// exit status of its own.
func (a *app) joinConsole(ctx context.Context, c *client.Client, ref string, s session) error {
	_, err := a.join(ctx, s, func(ctx context.Context, streams client.Streams) (api.Exit, error) {
		return c.Console(ctx, ref, streams)
	})
	if errors.Is(err, client.ErrDetached) {
		return nil
	}
	return err
}
