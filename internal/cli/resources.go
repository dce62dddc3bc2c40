package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) resourcesCommand() *cobra.Command {
	var asJSON bool
	var history string
	cmd := &cobra.Command{
		Use:   "resources [flags] [NAME...]",
		Short: "Show what environments hold, their limits and how often those were hit",
		Long: `Show what is counted of the environments that are named, or of all that run: what they
hold now, the most that they held since they started, what is guaranteed to them, the
limit, and how often it was hit. The table is the same at every stratum; "-" is what is
not set, or not counted on this host.

memory, swap and processes are the environment's own, counted inside where it has a
kernel of its own; host-memory is what the host spends for it. The most of cpu and disk
is the most that was seen in a second while a daemon ran; the hits of a disk are how often
it was seen full. With --history the environment's last
minute (1s), hour (1m) or two days (1h) are shown instead.

Examples:
  strata resources
  strata resources web
  strata resources --history 1m web
  strata resources --json web | jq '.[0].counters[] | select(.hits > 0)'`,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if history != "" {
				return a.printHistory(ctx, c, args, history, asJSON)
			}
			all, err := c.Resources(ctx, args...)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(all)
			}
			return a.printResources(all)
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&history, "history", "", "what was used, by this `step`: 1s, 1m or 1h")
	_ = cmd.RegisterFlagCompletionFunc("history", cobra.FixedCompletions([]string{"1s", "1m", "1h"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) printResources(all []api.ResourceTable) error {
	t := newTable(a.out, "ENVIRONMENT", "RESOURCE", "HELD", "MOST", "GUARANTEE", "LIMIT", "HITS")
	for _, one := range all {
		for _, c := range one.Counters {
			t.row(one.Environment, c.Resource, figureText(c.Held, c.Unit), figureText(c.Most, c.Unit), figureText(c.Guarantee, c.Unit), figureText(c.Limit, c.Unit), figureText(c.Hits, "count"))
		}
		t.row(one.Environment, "oom-kills", fmt.Sprint(one.Kills), "", "", "", "")
		for _, name := range slices.Sorted(maps.Keys(one.Pressure)) {
			t.row(one.Environment, name+"-pressure", fmt.Sprintf("%.1f%%", one.Pressure[name].Some), "", "", "", "")
		}
		if one.Missing != "" {
			t.row(one.Environment, "("+one.Missing+")", "", "", "", "", "")
		}
	}
	return t.flush()
}

// figureText writes a figure in its unit, "" for none.
func figureText(n *int64, unit string) string {
	switch {
	case n == nil:
		return ""
	case *n == 0 && (unit == "bytes" || unit == "bytes/s"), unit == "count":
		return fmt.Sprint(*n)
	case unit == "bytes/s":
		return rateText(*n)
	case unit == "bytes":
		return roundText(*n)
	case unit == "millicpu":
		return coresText(*n)
	}
	return clockText(*n)
}

// coresText writes thousandths of a processor: 0.25, 2.
func coresText(milli int64) string {
	text := strings.TrimRight(fmt.Sprintf("%d.%03d", milli/1000, milli%1000), "0")
	return strings.TrimSuffix(text, ".")
}

func (a *app) printHistory(ctx context.Context, c *client.Client, args []string, step string, asJSON bool) error {
	if len(args) != 1 {
		return fault.Invalidf("the history is of one environment").At("history").Help("name one: strata resources --history 1m NAME")
	}
	points, err := c.History(ctx, args[0], step)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(points)
	}
	t := newTable(a.out, "UNTIL", "CPU", "MEMORY", "PROCESSES", "READ", "WRITTEN", "RECEIVED", "SENT")
	for _, p := range points {
		t.row(p.At.Local().Format(time.DateTime), coresText(p.CPU), roundText(p.Memory), fmt.Sprint(p.Processes),
			rateText(p.Read), rateText(p.Written), rateText(p.Received), rateText(p.Sent))
	}
	return t.flush()
}

// rateText writes bytes in a second, "" for none.
func rateText(n int64) string {
	if text := roundText(n); text != "" {
		return text + "/s"
	}
	return ""
}
