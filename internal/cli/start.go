package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) startCommand() *cobra.Command {
	var attach, interact bool
	var keys, patience string
	cmd := &cobra.Command{
		Use:   "start [flags] NAME...",
		Short: "Start environments",
		Long: `Start environments that were created or have stopped, and print their names.
Disk, name and address are those of before.

A start that would break what the host has guaranteed to others is refused with
status 8; with --queue it waits for room.

With -a the program's output appears here and its exit status is this command's.

Examples:
  strata start web db
  strata start -ai shell
  strata start --queue=10m batch`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if !attach && !interact {
				return a.each(ctx, args, false, func(ctx context.Context, ref string) error {
					if err := queue(ctx, c, ref, patience); err != nil {
						return err
					}
					return c.Start(ctx, ref)
				})
			}
			if len(args) > 1 {
				return fault.Invalidf("only one environment can be attached").At("attach").Help("start the others without -a")
			}
			if err := queue(ctx, c, args[0], patience); err != nil {
				return err
			}
			return a.startAttached(ctx, c, args[0], interact, keys)
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "join its streams")
	cmd.Flags().BoolVarP(&interact, "interactive", "i", false, "join its standard input too")
	queueFlag(cmd.Flags(), &patience)
	cmd.Flags().StringVar(&keys, "detach-keys", "", "`keys` that leave a session (default "+defaultDetachKeys+")")
	return cmd
}

func (a *app) startAttached(ctx context.Context, c *client.Client, name string, interact bool, keys string) error {
	e, err := c.Get(ctx, name)
	if err != nil {
		return err
	}
	end, err := a.join(ctx, session{tty: e.Spec.TTY, input: interact && e.Spec.Stdin, detach: keys},
		func(ctx context.Context, s client.Streams) (api.Exit, error) { return c.Run(ctx, e.ID, s) })
	if errors.Is(err, client.ErrDetached) {
		return nil
	}
	if err != nil {
		return programFault(err)
	}
	return ended(end)
}
