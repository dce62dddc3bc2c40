package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
	"github.com/strata-project/strata/internal/shortform"
)

func (a *app) setCommand() *cobra.Command {
	var patience string
	cmd := &cobra.Command{
		Use:   "set [flags] NAME KEY=VALUE...",
		Short: "Change limits, guarantees, labels or the restart policy",
		Long: "Change an environment that exists. Keys are " + wrapped(append(settingKeys(), "restart", "label.NAME"), 43) + `;
an empty value takes a label away, 0 takes a limit, a guarantee or a weight away.
What changes while it runs and what at its next start, at each stratum, is in
docs/reference/resources.md. A guarantee that the host cannot keep is refused, with
status 8; with --queue the change waits until it can. A disk only grows: that of a zone
or guest while it is in use too, as far as it was made for it.

Examples:
  strata set web memory=1G cpu.guarantee=0.5
  strata set web cpus=2 cpu.weight=300
  strata set --queue=10m web cpu.guarantee=1
  strata set db disk=40G
  strata set web restart=always label.team=web`,
		Args: atLeast(2, "a name and KEY=VALUE"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			u, err := parseUpdate(args[1:])
			if err != nil {
				return err
			}
			if err := queueFor(ctx, c, args[0], api.Next{Update: &u}, patience); err != nil {
				return err
			}
			e, err := c.Update(ctx, args[0], u)
			if err == nil {
				fmt.Fprintln(a.out, e.Name)
			}
			return err
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeNames(cmd, args, part)
			}
			return append(settingPairs(), "restart=", "label."), cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
	}
	queueFlag(cmd.Flags(), &patience)
	return cmd
}

// parseUpdate reads KEY=VALUE pairs; every fault is reported. Kinds: Invalid.
func parseUpdate(pairs []string) (api.Update, error) {
	var u api.Update
	var all []error
	for _, pair := range pairs {
		key, value, given := strings.Cut(pair, "=")
		if !given {
			all = append(all, fault.Invalidf("%q is not a change", pair).Help("write KEY=VALUE, such as memory=1G"))
			continue
		}
		all = append(all, setOne(&u, key, value))
	}
	return u, fault.Join(all...)
}

func setOne(u *api.Update, key, value string) (err error) {
	one, found := settings.Find(key)
	switch {
	case found:
		err = one.Change(value, u)
	case key == "restart":
		u.Restart = new(api.Restart)
		*u.Restart, err = shortform.Restart(value)
	case strings.HasPrefix(key, "label.") && key != "label.":
		name := strings.TrimPrefix(key, "label.")
		if value == "" {
			u.RemoveLabels = append(u.RemoveLabels, name)
			return nil
		}
		if u.Labels == nil {
			u.Labels = map[string]string{}
		}
		u.Labels[name] = value
	default:
		err = fault.Invalidf("%q is not a key", key).Help("accepted: %s, restart, label.NAME", strings.Join(settingKeys(), ", "))
	}
	return at(key, err)
}
