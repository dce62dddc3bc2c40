package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
)

func (a *app) killCommand() *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [flags] NAME...",
		Short: "Send a signal to the main program",
		Long: `Send a signal to the main program of environments. Without one every process is
killed at once.

Examples:
  strata kill web
  strata kill -s HUP web`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			name, err := signalText(signal)
			if err != nil {
				return err
			}
			return a.each(ctx, args, false, func(ctx context.Context, env string) error { return c.Kill(ctx, env, name) })
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "name or number of the `signal` (default KILL)")
	_ = cmd.RegisterFlagCompletionFunc("signal", someSignals)
	return cmd
}
