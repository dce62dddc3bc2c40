package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) cloneCommand() *cobra.Command {
	var o api.Clone
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "clone [flags] NAME [NEW-NAME]",
		Short: "Make another environment with the disk of one that stands still",
		Long: `Make another environment like one that was created or has stopped, and print its
name. It has what was written to the other's disk, and an id, an address and a MAC
of its own; with kind system a machine id, too. Other secrets on the disk, such as
host keys of SSH, are the same in both.

The two share what neither has changed where the host's file system can (btrfs, xfs
with reflink). Elsewhere the disk is copied, which has to be asked for with --copy.

Examples:
  strata clone web web-test
  strata clone --copy build`,
		Args: between(1, 2, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 2 {
				o.Name = args[1]
			}
			made, err := c.Clone(ctx, args[0], o)
			if err != nil {
				return err
			}
			return a.printMade(made, made.Name, asJSON)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().BoolVar(&o.Copy, "copy", false, "copy the disk where its blocks cannot be shared")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the new environment as JSON")
	return cmd
}
