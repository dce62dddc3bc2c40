package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) psCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps [flags] [NAME...]",
		Short: "List the processes of environments",
		Long: `List every process of the environments that are named, or of all that run, at every
stratum in one list: its number inside and, where the host knows it, on the host; its
user as inside; the processor time that it has used, and how much of one processor
that is on average since it began; its memory; its command.

A guest or machine whose agent does not answer in time is a line that says so, and
one without an agent a line that calls it opaque.

Examples:
  strata ps
  strata ps web db
  strata ps --json | jq '.processes[] | select(.user == "root")'`,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			list, err := c.Tasks(ctx, args...)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(list)
			}
			return a.printTasks(list.Processes)
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printTasks(list []api.Task) error {
	t := newTable(a.out, "ENVIRONMENT", "STRATUM", "PID", "HOST PID", "USER", "TIME", "CPU", "MEMORY", "COMMAND")
	for _, p := range list {
		if p.Missing != "" {
			t.row(p.Environment, p.Stratum, "", "", "", "", "", "", "("+p.Missing+")")
			continue
		}
		host := ""
		if p.HostPID > 0 {
			host = strconv.Itoa(p.HostPID)
		}
		t.row(p.Environment, p.Stratum, strconv.Itoa(p.PID), host, p.User, clockText(p.CPUTime), fmt.Sprintf("%.1f%%", p.CPU()), roundText(p.Memory), p.Command)
	}
	return t.flush()
}

// clockText writes processor time as ps(1) does: 1:02.03, and 1:02:03 from an hour on.
func clockText(ns int64) string {
	d := time.Duration(ns)
	h, m, s := int64(d/time.Hour), int64(d/time.Minute)%60, d%time.Minute
	if h > 0 {
		return fmt.Sprintf("%d:%02d:%02d", h, m, int64(s/time.Second))
	}
	return fmt.Sprintf("%d:%02d.%02d", m, int64(s/time.Second), int64(s%time.Second/(10*time.Millisecond)))
}

// roundText writes a count of bytes in three digits or so, "" for none.
func roundText(n int64) string {
	if n <= 0 {
		return ""
	}
	f, units := float64(n), "BKMGTP"
	for f >= 1000 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	if f < 10 && units[0] != 'B' {
		return fmt.Sprintf("%.1f%c", f, units[0])
	}
	return fmt.Sprintf("%.0f%c", f, units[0])
}
