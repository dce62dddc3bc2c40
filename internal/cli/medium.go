package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) insertCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "insert NAME FILE",
		Short: "Put a CD into the drive of a foreign system",
		Long: `Put the image of a CD into the drive of a foreign system, instead of what is in it.
The system inside sees that the CD has changed; one that keeps its drive shut is
asked to open it, and the command says so. Later starts find the CD as well.

Examples:
  strata insert win virtio-win.iso`,
		Args: exactly(2, "a name and a file"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			iso, err := filepath.Abs(args[1])
			if err != nil {
				return fault.Invalidf("the folder of %s cannot be found: %w", args[1], err).At("file")
			}
			if err := c.Insert(ctx, args[0], iso); err != nil {
				return err
			}
			fmt.Fprintln(a.out, args[0])
			return nil
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeNames(cmd, args, part)
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
}

func (a *app) ejectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "eject NAME...",
		Short: "Empty the CD drive of foreign systems",
		Long: `Empty the CD drive of foreign systems. One that keeps its drive shut is asked to
open it, and the command says so. Later starts find it empty as well.

Examples:
  strata eject win`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.Eject)
		}),
		ValidArgsFunction: a.completeNames,
	}
}
