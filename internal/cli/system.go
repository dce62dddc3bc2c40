package cli

import (
	"bufio"
	"context"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) systemCommand() *cobra.Command {
	return group("system", "Care for the whole of strata", `Care for the whole of strata.

Examples:
  strata system reset --force`, a.resetCommand())
}

func (a *app) resetCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "reset [flags]",
		Short: "Stop and remove every environment",
		Long: `Stop and remove every environment with its disk, and whatever is left of them on
the host. Templates stay. On a terminal it asks first; --force does not.

Examples:
  strata system reset --force`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			if !force {
				if !term.IsTerminal(int(a.in.Fd())) {
					return fault.Invalidf("this removes every environment").At("force").Help("say --force if that is meant")
				}
				a.say("this removes every environment and its disk; go on? [y/N]")
				line, _ := bufio.NewReader(a.in).ReadString('\n')
				if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
					return exit{status: 1}
				}
			}
			return c.Reset(ctx)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}
