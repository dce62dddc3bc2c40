package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) waitCommand() *cobra.Command {
	var condition, screen string
	var timeout time.Duration
	var asJSON, ready bool
	var cmd *cobra.Command
	cmd = &cobra.Command{
		Use:   "wait [flags] NAME...",
		Short: "Wait until environments end, and print their exit statuses",
		Long: `Wait until each of the environments has ended and print its exit status, one per
line, in the order of the names. One that is stopped already answers at once.

With --screen, wait until what is written on a machine's screen matches a regular
expression, and print what of it matched: its first group, if it has one.

With --ready, wait until each one is ready, and print nothing: its program runs, its
init has booted, its health check is well where it has one. A foreign system is ready
when a guest agent answers inside, or when somebody listens on one of its published TCP
ports; where it can have neither, as soon as it runs.

Examples:
  strata wait job
  strata wait --for removed job
  strata wait --screen 'login:' --timeout 5m debian
  strata wait --ready --timeout 2m debian`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if timeout <= 0 && cmd.Flags().Changed("timeout") {
				return fault.Invalidf("a time limit of %s is none", timeout).At("timeout").Help("write a time such as 5m, or leave it out to wait for ever")
			}
			if ready {
				if screen != "" || condition != "stopped" {
					return fault.Invalidf("only one thing is waited for").At("ready").Help("leave out --for and --screen, or --ready")
				}
				return a.waitReady(ctx, c, args, timeout)
			}
			if screen != "" && condition != "stopped" {
				return fault.Invalidf("a screen and an end are not waited for at once").At("screen").Help("leave out --for, or --screen")
			}
			if screen != "" {
				return a.waitScreens(ctx, args, func(ctx context.Context, name string) (api.ScreenMatch, error) {
					return c.WaitScreen(ctx, name, screen, timeout)
				}, asJSON)
			}
			if timeout != 0 {
				return fault.Invalidf("a time limit is for waiting for a screen, or until it is ready").At("timeout").Help("add --screen REGEX or --ready, or use timeout(1)")
			}
			if err := oneOf("for", condition, "stopped", "next-exit", "removed"); err != nil {
				return err
			}
			ends := make(map[string]api.Exit, len(args))
			waits := map[string]func() (api.Exit, error){}
			for _, name := range args {
				waits[name] = began(func() (api.Exit, error) { return c.Wait(ctx, name, condition) })
			}
			err := a.each(ctx, args, true, func(_ context.Context, name string) error {
				end, err := waits[name]()
				if err == nil && !asJSON {
					fmt.Fprintln(a.out, end.Status)
				}
				if err == nil {
					ends[name] = end
				}
				return err
			})
			if asJSON {
				if perr := a.printJSON(ends); perr != nil {
					return perr
				}
			}
			return err
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().StringVar(&condition, "for", "stopped", "what to wait for: stopped, next-exit or removed")
	_ = cmd.RegisterFlagCompletionFunc("for", few("stopped", "next-exit", "removed"))
	cmd.Flags().StringVar(&screen, "screen", "", "wait for text on a machine's screen: a `regex`, in which ^ and $ are those of a line")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long to wait for a screen, or with --ready, at most, such as 5m (default: for ever)")
	cmd.Flags().BoolVar(&ready, "ready", false, "wait until it is ready")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: how each one ended, or what its screen has, by name")
	return cmd
}

// waitScreens waits for what is on the screens of several machines.
func (a *app) waitScreens(ctx context.Context, names []string, wait func(context.Context, string) (api.ScreenMatch, error), asJSON bool) error {
	found := make(map[string]api.ScreenMatch, len(names))
	err := a.each(ctx, names, true, func(ctx context.Context, name string) error {
		m, err := wait(ctx, name)
		if err != nil {
			return err
		}
		found[name] = m
		if !asJSON {
			fmt.Fprintln(a.out, m.Match[min(1, len(m.Match)-1)])
		}
		return nil
	})
	if asJSON {
		if perr := a.printJSON(found); perr != nil {
			return perr
		}
	}
	return err
}

// began runs do at once and returns a function that waits for its result.
func began[T any](do func() (T, error)) func() (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	return func() (T, error) {
		r := <-done
		done <- r // a name may be asked for twice
		return r.v, r.err
	}
}
