package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) diskCommand() *cobra.Command {
	return group("disk", "Attach disks to machines", `Attach disks to machines while they run or not, take them away, and list them.
What is attached is there again at every start.

Examples:
  strata disk attach win data.qcow2
  strata disk ls win
  strata disk detach win disk1`,
		a.diskAttachCommand(), a.diskLsCommand(), a.detachCommand("disk", "disk1", func(e api.Environment) (names []string) {
			for _, d := range e.Disks {
				names = append(names, d.Name)
			}
			return names
		}))
}

func (a *app) cardCommand() *cobra.Command {
	cmd := group("card", "Attach network cards to machines", `Attach network cards to machines while they run or not, take them away, and list
them. What is attached is there again at every start, with its address and MAC.

Examples:
  strata card attach win backend
  strata card ls win
  strata card detach win card1`,
		a.cardAttachCommand(), a.cardLsCommand(), a.detachCommand("card", "card1", func(e api.Environment) (names []string) {
			for _, c := range e.Cards {
				names = append(names, c.Name)
			}
			return names
		}))
	cmd.Aliases = []string{"nic"}
	return cmd
}

func (a *app) diskAttachCommand() *cobra.Command {
	var d api.Disk
	cmd := a.pluggingCommand(attaching{
		use: "attach [flags] NAME FILE", kind: "disk",
		long: `Attach a disk to a machine, a template's or a foreign system's, and print the name that
it has there. Its image, raw or qcow2, is written to, and has no other user until it
is detached. It may lead to others (backing files) only in its own folder; those are
only read. Nothing is mounted inside.

A USB disk needs no driver that a foreign system does not have; a template's machine
has virtio's. Disks of the board's own controllers (AHCI, IDE) cannot be attached, and
to an old board (--board pc) nothing can.`,
		examples: []string{"strata disk attach win data.qcow2", "strata disk attach --bus virtio --format raw deb scratch.img"},
		args:     exactly(2, "a name and a file"),
		do: func(ctx context.Context, c *client.Client, args []string) (any, string, error) {
			if err := errors.Join(oneOf("format", d.Format, "raw", "qcow2"), oneOf("bus", d.Bus, "usb", "virtio", "nvme", "ahci", "ide", "scsi")); err != nil {
				return nil, "", err
			}
			file, err := filepath.Abs(args[1])
			if err != nil {
				return nil, "", fault.Invalidf("the folder of %s cannot be found: %w", args[1], err).At("file")
			}
			d.File = file
			made, err := c.AttachDisk(ctx, args[0], d)
			return made, made.Name, err
		},
	})
	cmd.Flags().StringVar(&d.Bus, "bus", "", "what it is plugged into: usb, virtio or nvme (default: usb; virtio in a template's machine)")
	cmd.Flags().StringVar(&d.Format, "format", "", "`format` of the image: raw or qcow2 (default: by its content)")
	return cmd
}

func (a *app) cardAttachCommand() *cobra.Command {
	var card api.Card
	cmd := a.pluggingCommand(attaching{
		use: "attach [flags] NAME [NETWORK]", kind: "network card",
		long: `Attach a network card to a machine, a template's or a foreign system's, and print the
name that it has there. It joins the network "default" where none is named. Address and
MAC are the card's until it is detached, and whoever asks inside is told the address by
DHCP.`,
		examples: []string{"strata card attach win", "strata card attach --model virtio deb backend"},
		args:     between(1, 2, "a name, and a network"),
		do: func(ctx context.Context, c *client.Client, args []string) (any, string, error) {
			if err := oneOf("model", card.Model, "e1000", "e1000e", "rtl8139", "virtio"); err != nil {
				return nil, "", err
			}
			if card.Address.Network = "default"; len(args) == 2 {
				card.Address.Network = args[1]
			}
			made, err := c.AttachCard(ctx, args[0], card)
			return made, made.Name, err
		},
		then: func(ctx context.Context, c *client.Client, _ string) (names []string, err error) {
			found, err := c.Networks(ctx)
			for _, n := range found {
				names = append(names, n.Name)
			}
			return names, err
		},
	})
	cmd.Flags().StringVar(&card.Model, "model", "", "what card it is: e1000e or virtio (default: e1000e)")
	return cmd
}

// attaching is a command that attaches devices of a kind. do returns what was made, and its
// name; then completes what follows the environment's name, nil: a file does.
type attaching struct {
	use, kind, long string
	examples        []string
	args            cobra.PositionalArgs
	do              func(ctx context.Context, c *client.Client, args []string) (any, string, error)
	then            func(ctx context.Context, c *client.Client, name string) ([]string, error)
}

func (a *app) pluggingCommand(w attaching) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: w.use, Short: "Attach a " + w.kind + " to a machine",
		Long: w.long + "\n\nExamples:\n  " + strings.Join(w.examples, "\n  "),
		Args: w.args,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			made, name, err := w.do(ctx, c, args)
			if err != nil {
				return err
			}
			return a.printMade(made, name, asJSON)
		}),
		ValidArgsFunction: a.nameThen(w.then),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// detachCommand takes devices of a kind away, of which names lists those there are.
func (a *app) detachCommand(kind, example string, names func(api.Environment) []string) *cobra.Command {
	return &cobra.Command{
		Use:   "detach NAME " + strings.ToUpper(kind),
		Short: "Take an attached " + kind + " away",
		Long: fmt.Sprintf(`Take an attached %s away from a machine. One that runs is asked to let go of
it, and the command says so where it does not.

Examples:
  strata %s detach win %s`, kind, kind, example),
		Args: exactly(2, "a name, and the name of what is attached"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			// Disks and cards are devices to the daemon, and share their names.
			if e, err := c.Get(ctx, args[0]); err != nil {
				return err
			} else if !slices.Contains(names(e), args[1]) {
				return fault.Missingf("%s has no %s %s that was attached", e.Name, kind, fault.Printable(args[1])).At("name").
					Help("see strata %s ls %s", kind, e.Name)
			}
			if err := c.Detach(ctx, args[0], args[1]); err != nil {
				return err
			}
			fmt.Fprintln(a.out, args[1])
			return nil
		}),
		ValidArgsFunction: a.nameThen(func(ctx context.Context, c *client.Client, name string) ([]string, error) {
			e, err := c.Get(ctx, name)
			return names(e), err
		}),
	}
}

func (a *app) diskLsCommand() *cobra.Command {
	return a.attachedCommand("disk", func(e api.Environment, asJSON bool) error {
		if asJSON {
			return a.printJSON(append([]api.Disk{}, e.Disks...))
		}
		t := newTable(a.out, "NAME", "BUS", "FORMAT", "FILE")
		for _, d := range e.Disks {
			t.row(d.Name, d.Bus, d.Format, fault.Printable(d.File))
		}
		return t.flush()
	})
}

func (a *app) cardLsCommand() *cobra.Command {
	return a.attachedCommand("card", func(e api.Environment, asJSON bool) error {
		if asJSON {
			return a.printJSON(append([]api.Card{}, e.Cards...))
		}
		t := newTable(a.out, "NAME", "MODEL", "NETWORK", "ADDRESS", "MAC")
		for _, c := range e.Cards {
			t.row(c.Name, c.Model, c.Address.Network, join(c.Address.IPv4, c.Address.IPv6), c.Address.MAC)
		}
		return t.flush()
	})
}

// attachedCommand lists what is attached, by print.
func (a *app) attachedCommand(kind string, print func(e api.Environment, asJSON bool) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [flags] NAME",
		Short: "List attached " + kind + "s",
		Long: fmt.Sprintf(`List the %ss that are attached to a machine, besides its own.

Examples:
  strata %s ls win`, kind, kind),
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.Get(ctx, args[0])
			if err != nil {
				return err
			}
			return print(e, asJSON)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// nameThen completes an environment, and by then what follows it; then is told the name.
func (a *app) nameThen(then func(ctx context.Context, c *client.Client, name string) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return a.completeNames(cmd, args, part)
		case len(args) > 1:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case then == nil:
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.offer(nil, func(ctx context.Context, c *client.Client) ([]string, error) { return then(ctx, c, args[0]) })
	}
}
