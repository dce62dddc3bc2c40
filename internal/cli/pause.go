package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
)

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause NAME...",
		Short: "Hold every process of environments still",
		Long: `Hold every process of running environments still. They keep their memory and
their address and use no processor time.

Examples:
  strata pause web
  strata resume web`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.Pause)
		}),
		ValidArgsFunction: a.completeNames,
	}
}

func (a *app) resumeCommand() *cobra.Command {
	var patience string
	cmd := &cobra.Command{
		Use:   "resume [flags] NAME...",
		Short: "Let paused or suspended environments go on",
		Long: `Let environments go on that were paused or suspended. What is suspended has given its
room back: where its guarantees would break another's, it stays so with exit status 8;
with --queue it waits for room.

Examples:
  strata resume web
  strata resume --queue=10m batch`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, func(ctx context.Context, ref string) error {
				if err := queue(ctx, c, ref, patience); err != nil {
					return err
				}
				return c.Resume(ctx, ref)
			})
		}),
		ValidArgsFunction: a.completeNames,
	}
	queueFlag(cmd.Flags(), &patience)
	return cmd
}
