package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
)

func (a *app) suspendCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "suspend NAME...",
		Short: "Write guests and machines down with their memory, and end them",
		Long: `Write running guests and machines down with all that is in their memory, and end
them: they take neither memory nor processor then, and outlive a reboot of the
host. 'strata resume' or 'strata start' lets them go on where they were, with the
same address and ports and with the clock set. Who is attached to them is
disconnected. 'strata kill' gives up what was in the memory.

What is written takes as much of the disk as the memory in use. An environment with
volumes cannot be suspended, nor can a zone.

Examples:
  strata suspend web
  strata resume web`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.Suspend)
		}),
		ValidArgsFunction: a.completeNames,
	}
}

func (a *app) pressResetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset NAME...",
		Short: "Press the reset button of machines",
		Long: `Press the reset button of running machines: they boot again at once, and what
they had not written to their disk is lost. 'strata restart' asks them to end first.

Examples:
  strata reset old`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.PressReset)
		}),
		ValidArgsFunction: a.completeNames,
	}
}

func (a *app) nmiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "nmi NAME...",
		Short: "Send machines an interrupt that they cannot mask",
		Long: `Send running machines an interrupt that they cannot mask. What that does is their
system's to say: Linux writes a line into its log, or panics where
kernel.unknown_nmi_panic is set; Windows writes a dump of its memory.

Examples:
  strata nmi old`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.Interrupt)
		}),
		ValidArgsFunction: a.completeNames,
	}
}
