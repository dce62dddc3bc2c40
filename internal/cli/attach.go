package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) attachCommand() *cobra.Command {
	var noInput bool
	var keys string
	cmd := &cobra.Command{
		Use:   "attach [flags] NAME",
		Short: "Join the streams of the main program",
		Long: `Join the streams of a running environment's main program, from now on. This command
ends with the program's exit status, or with 0 after the detach keys.

Examples:
  strata attach shell
  strata attach --no-stdin web`,
		Args:        exactly(1, "a name"),
		Annotations: programStatus,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.Get(ctx, args[0])
			if err != nil {
				return err
			}
			s := session{tty: e.Spec.TTY, input: e.Spec.Stdin && !noInput, detach: keys}
			end, err := a.join(ctx, s, func(ctx context.Context, streams client.Streams) (api.Exit, error) {
				return c.Attach(ctx, e.ID, streams)
			})
			if errors.Is(err, client.ErrDetached) {
				return nil
			}
			if err != nil {
				return programFault(err)
			}
			return ended(end)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().BoolVar(&noInput, "no-stdin", false, "leave standard input alone")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "`keys` that leave the session (default "+defaultDetachKeys+")")
	return cmd
}
