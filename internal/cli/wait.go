package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) waitCommand() *cobra.Command {
	var condition string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "wait [flags] NAME...",
		Short: "Wait until environments end, and print their exit statuses",
		Long: `Wait until each of the environments has ended and print its exit status, one per
line, in the order of the names. One that is stopped already answers at once.

Examples:
  strata wait job
  strata wait --for removed job`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: how each one ended, by name")
	return cmd
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
