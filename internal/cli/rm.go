package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
)

func (a *app) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [flags] NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove environments and their disks",
		Long: `Remove environments with their private disks. What runs is refused unless -f is
given. Templates and volumes of the host stay.

Examples:
  strata rm job
  strata rm -f $(strata ls -aq)`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			rm := atOnce(args, func(name string) error { return c.Remove(ctx, name, force) })
			return a.each(ctx, args, false, func(_ context.Context, name string) error { return rm(name) })
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop it first where it runs")
	return cmd
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rename NAME NEW-NAME",
		Short: "Give an environment another name",
		Long: `Give an environment another name. Its DNS name follows at once; its address stays.

Examples:
  strata rename web web-old`,
		Args: exactly(2, "a name and the new name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return c.Rename(ctx, args[0], args[1])
		}),
		ValidArgsFunction: a.completeOneName,
	}
}
