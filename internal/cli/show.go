package cli

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
)

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show [flags] NAME...",
		Aliases: []string{"inspect"},
		Short:   "Show all that is known of environments",
		Long: `Show what environments are made of and how they do. With --json a list of all of
them is printed.

Examples:
  strata show web
  strata show --json web db
  strata show --format '{{.state}} {{.address.ipv4}}' web`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			found := []api.Environment{}
			err := a.each(ctx, args, true, func(ctx context.Context, name string) error {
				e, err := c.Get(ctx, name)
				if err == nil {
					found = append(found, e)
				}
				return err
			})
			if asJSON {
				if perr := a.printJSON(found); perr != nil {
					return perr
				}
				return err
			}
			for i, e := range found {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.printEnvironment(e)
			}
			return err
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// facts writes lines of a name and a value, which may be of several lines; empty values
// are left out.
type facts struct{ w *tabwriter.Writer }

func (a *app) facts() facts { return facts{tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)} }

func (f facts) add(name, value string) {
	if value == "" {
		return
	}
	name += ":"
	for line := range strings.SplitSeq(strings.TrimRight(value, "\n"), "\n") {
		fmt.Fprintf(f.w, "%s\t%s\n", name, fault.Printable(strings.TrimRight(line, "\r")))
		name = ""
	}
}

func (a *app) printEnvironment(e api.Environment) {
	f := a.facts()
	f.add("name", e.Name)
	f.add("id", e.ID)
	f.add("state", stateText(e.State, e.Health, e.Trouble, e.Exit))
	f.add("ready", yes(e.Ready))
	f.add("trouble", e.Trouble)
	if g := e.GuestAgent; g != nil {
		f.guestAgent(*g)
	}
	f.add("stratum", e.Stratum+reason(e.Reason))
	if b := e.Boot; b != nil {
		release := b.Release
		if release == b.Kernel { // most are called so
			release = ""
		}
		f.add("kernel", b.Kernel+reason(release))
		f.add("accelerator", b.Accelerator+reason(b.Why))
		f.add("boot", bootText(b))
		processors := "processors"
		if b.CPUs == 1 {
			processors = "processor"
		}
		if b.MostCPUs > b.CPUs {
			processors += fmt.Sprintf(" (room for %d)", b.MostCPUs)
		}
		if b.Turns && b.CPUs > 1 {
			processors += " that take turns (QEMU before 8.1, without KVM)"
		}
		memory := "memory"
		if b.MostMemory > b.Memory {
			memory += fmt.Sprintf(" (room for %s)", b.MostMemory)
		}
		f.add("machine", fmt.Sprintf("%d %s, %s of %s", b.CPUs, processors, b.Memory, memory))
	}
	f.add("kind", e.Kind)
	if foreign := e.Spec.Foreign; foreign != nil {
		f.foreign(*foreign)
		f.hardware(foreign.Hardware, "")
	} else {
		f.add("template", e.Template+" ("+shortID(e.TemplateID)+")")
		aside := ""
		if e.Stratum != "machine" {
			aside = "kept aside for a machine"
		}
		f.hardware(e.Spec.Hardware, aside)
	}
	for _, d := range e.Disks {
		f.add(d.Name, d.File+reason(d.Format+" on "+d.Bus))
	}
	for _, c := range e.Cards {
		f.add(c.Name, c.Address.Network+reason(c.Model+", "+c.Address.IPv4))
	}
	f.add("command", words(e.Command))
	f.add("network", e.Network.Network)
	f.add("address", join(e.Network.IPv4, e.Network.IPv6))
	f.add("mac", e.Network.MAC)
	f.add("ports", portsText(e.Spec.Ports))
	for _, v := range e.Spec.Volumes {
		mode := ""
		if v.ReadOnly {
			mode = ":ro"
		}
		f.add("volume", v.Source+":"+v.Target+mode)
	}
	r := e.Spec.Resources
	f.add("memory", limit(bytesText(e.MemoryUsed), bytesText(int64(r.Memory))))
	f.add("processes", limit(count(e.ProcessCount), count(r.PIDs)))
	for _, s := range settings.All {
		switch s.Flag {
		case "memory", "pids", "disk": // with what is used of them
		default:
			f.add(strings.ReplaceAll(s.Flag, "-", " "), s.Text(r))
		}
	}
	space := limit(bytesText(e.DiskUsed), bytesText(e.DiskSize))
	if e.DiskMost > e.DiskSize {
		space += ", and can become " + bytesText(e.DiskMost) + " while it is in use"
	}
	f.add("disk", space)
	if e.IDBase > 0 {
		f.add("host ids", fmt.Sprintf("%d-%d", e.IDBase, e.IDBase+65535))
	}
	f.add("pid", count(int64(e.PID)))
	f.add("keeper", count(int64(e.KeeperPID)))
	f.add("restart", restartText(e.Spec.Restart, e.Restarts))
	f.add("created", e.Created.Local().Format(time.RFC3339))
	if e.Started != nil {
		f.add("started", e.Started.Local().Format(time.RFC3339))
	}
	if e.Exit != nil {
		f.add("last exit", exitText(*e.Exit))
	}
	if e.OOM != nil {
		f.add("last oom", e.OOM.String()+", at "+e.OOM.At.Local().Format(time.RFC3339))
	}
	if e.MovingTo != "" {
		f.add("moving to", e.MovingTo)
	}
	for _, m := range e.Moves {
		f.add("moved", moveLine(m))
	}
	f.add("last failure", e.LastFailure)
	f.add("labels", labelsText(e.Spec.Labels))
	for _, n := range e.Notes {
		f.add("note", n)
	}
	_ = f.w.Flush()
}

// bootText says how a system of its own was started.
func bootText(b *api.Boot) string {
	if b.Standby {
		return "standby (from a saved system, ahead of time)"
	}
	if b.Copied {
		return "warm (a copy of a machine that waited)"
	}
	if b.Warm {
		return "warm (from a saved system)"
	}
	return "cold" + reason(b.Cold)
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func words(list []string) string {
	quoted := make([]string, len(list))
	for i, w := range list {
		if w == "" || strings.ContainsAny(w, " \t\n\"'$\\") {
			w = fmt.Sprintf("%q", w)
		}
		quoted[i] = w
	}
	return strings.Join(quoted, " ")
}

func join(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, ", ")
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// limit writes "used of limit", either of which may be unknown.
func limit(used, most string) string {
	switch {
	case used == "" && most == "":
		return ""
	case most == "":
		return used + ", no limit"
	case used == "":
		return "limit " + most
	}
	return used + " of " + most
}

func restartText(r api.Restart, times int) string {
	if r.Policy == "" || r.Policy == "no" {
		return ""
	}
	text := r.Policy
	if r.Max > 0 {
		text += fmt.Sprintf(":%d", r.Max)
	}
	return fmt.Sprintf("%s (%d times so far)", text, times)
}

func exitText(e api.Exit) string {
	text := fmt.Sprintf("status %d", e.Status)
	if e.Signal != 0 {
		text += fmt.Sprintf(", signal %d", e.Signal)
	}
	if e.OOM {
		text += ", out of memory"
	}
	if !e.At.IsZero() {
		text += ", at " + e.At.Local().Format(time.RFC3339)
	}
	if e.Crash != "" {
		text += ", crash: " + e.Crash
	}
	return text
}

func labelsText(labels map[string]string) string {
	var all []string
	for name, value := range labels {
		if value != "" {
			name += "=" + value
		}
		all = append(all, name)
	}
	sort.Strings(all)
	return strings.Join(all, ", ")
}
