package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) agentCommand() *cobra.Command {
	return group("agent", "Put strata's agent into foreign systems", `Put strata's own agent into foreign systems.

Examples:
  strata agent install deb`, a.agentInstallCommand())
}

func (a *app) agentInstallCommand() *cobra.Command {
	var byCD, asJSON bool
	cmd := &cobra.Command{
		Use:   "install [flags] NAME",
		Short: "Install strata's agent in a foreign Linux system",
		Long: `Install strata's own agent in a foreign Linux system that runs (--os linux), so that
exec, cp, ps, stats and logs --kernel work in it as in a template's machine.

Where qemu-guest-agent answers inside, that installs it, and nothing need be typed: a
service of systemd, or, without systemd, a program that runs until the system ends.
Where nobody answers, a CD with the agent is put into the drive, and the command to be
typed inside, as root, is printed.

Examples:
  strata agent install deb
  strata agent install --cd deb`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			done, err := c.InstallAgent(ctx, args[0], byCD)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return a.printJSON(done)
			case done.By == "cd":
				fmt.Fprintln(a.err, "a CD with the agent is in the drive; type inside, as root:")
				fmt.Fprintln(a.out, done.Command)
			default:
				if done.Said != "" {
					fmt.Fprintln(a.err, fault.Printable(done.Said))
				}
				fmt.Fprintln(a.out, args[0])
			}
			return nil
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&byCD, "cd", false, "by a CD, whoever answers inside")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: how it was installed")
	return cmd
}
