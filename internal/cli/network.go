package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) networkCommand() *cobra.Command {
	return group("network", "Networks that environments meet on", `Make, list and remove networks. Environments on the same network find one another
by name. The network "default" is there from the start.

Examples:
  strata network create --isolated backend
  strata run -d --network backend --name db postgres`,
		a.networkCreateCommand(), a.networkLsCommand(), a.networkShowCommand(), a.networkRmCommand())
}

func (a *app) networkCreateCommand() *cobra.Command {
	var n api.Network
	var asJSON bool
	var subnets []string
	cmd := &cobra.Command{
		Use:   "create [flags] NAME",
		Short: "Make a network",
		Long: `Make a network and print its name. Its subnets are free ones where none are given.

Examples:
  strata network create backend
  strata network create --isolated --ipv4 10.80.0.0/24 lab`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			n.Name = args[0]
			for _, subnet := range subnets {
				of := &n.IPv4
				if strings.Contains(subnet, ":") {
					of = &n.IPv6
				}
				if *of != "" {
					return fault.Invalidf("the subnets %s and %s are of one kind", fault.Printable(*of), fault.Printable(subnet)).At("subnet").
						Help("a network has one IPv4 subnet, such as 10.80.0.0/24, and one of IPv6, such as fd00:80::/64")
				}
				*of = subnet
			}
			made, err := c.CreateNetwork(ctx, n)
			if err != nil {
				return err
			}
			return a.printMade(made, made.Name, asJSON)
		}),
	}
	cmd.Flags().BoolVar(&n.Isolated, "isolated", false, "no way out of it and none in")
	cmd.Flags().BoolVar(&n.Isolated, "internal", false, "the same as --isolated")
	cmd.Flags().StringVar(&n.IPv4, "ipv4", "", "`subnet`, such as 10.80.0.0/24")
	cmd.Flags().StringVar(&n.IPv6, "ipv6", "", "`subnet`, such as fd00:80::/64")
	cmd.Flags().StringArrayVar(&subnets, "subnet", nil, "`subnet` of either kind, as --ipv4 and --ipv6 have it; twice for both")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) networkLsCommand() *cobra.Command {
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List networks",
		Long: `List networks.

Examples:
  strata network ls`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			found, err := c.Networks(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(found)
			}
			if quiet {
				for _, n := range found {
					fmt.Fprintln(a.out, n.Name)
				}
				return nil
			}
			t := newTable(a.out, "NAME", "IPV4", "IPV6", "ISOLATED", "BRIDGE", "ENVIRONMENTS")
			for _, n := range found {
				t.row(n.Name, n.IPv4, n.IPv6, yes(n.Isolated), n.Bridge, fmt.Sprint(len(n.UsedBy)))
			}
			return t.flush()
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) networkShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show [flags] NAME...",
		Aliases: []string{"inspect"},
		Short:   "Show networks",
		Long: `Show networks and who is on them. With --json a list is printed.

Examples:
  strata network show default`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			found, err := gather(ctx, a, args, c.Network)
			if asJSON {
				if perr := a.printJSON(found); perr != nil {
					return perr
				}
				return err
			}
			for _, n := range found {
				f := a.facts()
				f.add("name", n.Name)
				f.add("ipv4", n.IPv4)
				f.add("ipv6", n.IPv6)
				f.add("isolated", yes(n.Isolated))
				f.add("bridge", n.Bridge)
				if !n.Created.IsZero() {
					f.add("created", n.Created.Local().Format(time.RFC3339))
				}
				f.add("environments", strings.Join(n.UsedBy, ", "))
				_ = f.w.Flush()
			}
			return err
		}),
		ValidArgsFunction: a.completeNetworks,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) networkRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove networks that nobody uses",
		Long: `Remove networks. One that environments belong to is refused.

Examples:
  strata network rm backend`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, c.RemoveNetwork)
		}),
		ValidArgsFunction: a.completeNetworks,
	}
}
