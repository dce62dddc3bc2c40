package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) planCommand() *cobra.Command {
	var s specFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan [flags] [TEMPLATE [COMMAND [ARG...]]]",
		Short: "Say what run would do, and do nothing",
		Long: `Say at which stratum an environment would run and why, what it would have, what
would be started and mounted, and what other strata lack or add. Nothing is made,
fetched or started. The flags are those of ` + "`strata run`" + `.

Examples:
  strata plan busybox
  strata plan --need untrusted-code --memory 512M busybox sh
  strata plan --json --need density busybox`,
		Args: s.template,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			spec, err := s.build(args)
			if err != nil {
				return err
			}
			p, err := c.Plan(ctx, spec)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(p)
			}
			return a.printPlan(p)
		}),
		ValidArgsFunction: a.completeTemplate,
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.completeSpecFlags(cmd)
	return cmd
}

func (a *app) whyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why [flags] NAME",
		Short: "Say why an environment is at its stratum",
		Long: `Say which need decided on an environment's stratum when it was made, what shallower
strata lack for it, and what deeper ones would add.

Examples:
  strata why web
  strata why --json web`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			w, err := c.Why(ctx, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(w)
			}
			f := a.facts()
			f.choice(w)
			return f.w.Flush()
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) needsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "needs",
		Short: "List the needs that --need takes",
		Long: `List every need: what it means, the shallowest stratum that serves it, and what it
also takes of the host. A template names its needs in its label strata.need.

Examples:
  strata needs
  strata needs --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			all, err := c.Needs(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(all)
			}
			rows := newTable(a.out, "NEED", "STRATUM", "TAKES", "MEANS")
			for _, n := range all {
				at := n.Stratum
				if n.Later {
					at = "(none yet)"
				}
				rows.row(n.Name, at, strings.Trim(n.Takes+"; "+n.Without, "; "), n.Means)
			}
			return rows.flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// choice writes a stratum, why, and what the others would mean.
func (f facts) choice(c api.Choice) {
	f.add("stratum", c.Stratum+reason(c.Reason))
	for _, w := range c.Needs {
		f.add("need", fmt.Sprintf("%s (%s; %s serves it)", w.Need, w.From, w.Stratum))
	}
	for _, n := range c.Unmet {
		f.add("not served", n)
	}
	f.add("price", c.Price)
	for _, o := range c.Others {
		text := "lacks " + o.Lacks
		if o.Deeper {
			text = "would add " + o.Adds
		}
		if !o.Served {
			text += "; not to be had here"
		}
		f.add(o.Stratum, text+"; price: "+o.Price)
	}
}

func (a *app) printPlan(p api.Plan) error {
	f := a.facts()
	f.choice(p.Choice)
	f.add("template", p.Template)
	f.add("kind", p.Kind)
	f.add("command", words(p.Command))
	f.add("kernel", p.Kernel)
	f.add("memory", p.Memory)
	f.add("cpus", p.CPUs)
	f.add("processes", p.PIDs)
	f.add("disk", p.Disk)
	f.add("network", p.Network)
	for _, line := range p.Devices {
		f.add("device", line)
	}
	for _, line := range p.Starts {
		f.add("starts", line)
	}
	for _, line := range p.Mounts {
		f.add("mounts", line)
	}
	for _, d := range p.Differences {
		f.add("differs", d.Row+": "+d.Differs)
	}
	for _, line := range p.Notes {
		f.add("note", line)
	}
	return f.w.Flush()
}
