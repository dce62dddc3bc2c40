package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func (a *app) setCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME KEY=VALUE...",
		Short: "Change limits, labels or the restart policy",
		Long: `Change an environment that exists. Keys are memory, cpus, pids, disk, restart and
label.NAME; an empty value takes a label away, 0 takes a limit away. The disk only
grows, and only while the environment is stopped.

Examples:
  strata set web memory=1G cpus=2
  strata set db disk=40G
  strata set web restart=always label.team=web`,
		Args: atLeast(2, "a name or KEY=VALUE"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			u, err := parseUpdate(args[1:])
			if err != nil {
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
			return []string{"memory=", "cpus=", "pids=", "disk=", "restart=", "label."}, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		},
	}
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
	switch {
	case key == "memory":
		u.Memory = new(unit.Size)
		*u.Memory, err = unit.ParseSize(value)
	case key == "disk":
		u.Disk = new(unit.Size)
		*u.Disk, err = unit.ParseSize(value)
	case key == "cpus":
		u.CPUs = new(unit.CPUs)
		err = cpus(key, value, u.CPUs)
	case key == "pids":
		u.PIDs = new(int64)
		if *u.PIDs, err = strconv.ParseInt(value, 10, 32); err != nil || *u.PIDs < 0 {
			err = fault.Invalidf("%q is not a number of processes", value).Help("write a number; 0 for no limit")
		}
	case key == "restart":
		u.Restart = new(api.Restart)
		*u.Restart, err = parseRestart(value)
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
		err = fault.Invalidf("%q is not a key", key).Help("accepted: memory, cpus, pids, disk, restart, label.NAME")
	}
	return at(key, err)
}
