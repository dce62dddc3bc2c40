package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/version"
)

func (a *app) hostCommand() *cobra.Command {
	return group("host", "What this host can do", `Look at what strata needs of this host.

Examples:
  strata host check
  strata host capacity`, a.hostCheckCommand(), a.hostCapacityCommand())
}

func (a *app) hostCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Probe what strata needs of this host",
		Long: `Probe each kernel feature and program that strata uses, and say how it was probed,
what is lost without it and how to get it. Where no daemon runs the probes are made
without one. Ends with status 5 where something is missing that zones do not work
without.

Examples:
  strata host check
  strata host check --json`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := a.findings(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(found); err != nil {
					return err
				}
			} else {
				a.printFindings(found)
			}
			for _, f := range found {
				if missing(f) {
					return exit{status: fault.Unable.Exit()}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// findings asks the daemon, or, where none listens, makes the probes without one.
func (a *app) findings(ctx context.Context) ([]api.Finding, error) {
	places, err := place.Find(a.root)
	if err != nil {
		return nil, err
	}
	found, err := client.New(places.Socket).HostCheck(ctx)
	if err == nil || !client.NotRunning(err) && !fault.Is(err, fault.Denied) {
		return found, err
	}
	program, missed := place.Binary("stratad")
	if missed != nil {
		return nil, fault.Join(err, missed)
	}
	cmd := exec.CommandContext(ctx, program, "check", "--root", places.Root)
	cmd.Stderr = a.err
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	return found, fault.Wrap(err, "run %s check", program)
}

func missing(f api.Finding) bool { return !f.OK && !f.Unknown && f.Needed }

// printFindings writes a block for each group.
func (a *app) printFindings(found []api.Finding) {
	group, width := "", 0
	for _, f := range found {
		width = max(width, len(f.Name))
	}
	for _, f := range found {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(a.out, "%s\n", fault.Printable(group))
		}
		mark := "ok"
		switch {
		case missing(f):
			mark = "MISSING"
		case f.Unknown:
			mark = "unknown"
		case !f.OK:
			mark = "absent"
		}
		line := fmt.Sprintf("  %-7s  %-*s  %s", mark, width, f.Name, f.Detail)
		fmt.Fprintln(a.out, strings.TrimRight(fault.Printable(line), " "))
		if f.OK {
			continue
		}
		for _, more := range [][2]string{{"probed", f.How}, {"lost", f.Lost}, {"fix", f.Fix}} {
			for i, text := range strings.Split(more[1], "\n") {
				if text != "" && i == 0 {
					fmt.Fprintf(a.out, "           %-6s  %s\n", more[0], fault.Printable(text))
				} else if text != "" {
					fmt.Fprintf(a.out, "                   %s\n", fault.Printable(text))
				}
			}
		}
	}
}

func (a *app) infoCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show what the daemon is and has",
		Long: `Show the daemon's version, where it keeps things, and how much there is.

Examples:
  strata info
  strata info --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			i, err := c.Info(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(i)
			}
			f := a.facts()
			f.add("version", i.Version)
			f.add("api", i.APIVersion)
			f.add("pid", count(int64(i.PID)))
			f.add("since", i.Started.Local().Format("2006-01-02T15:04:05Z07:00"))
			f.add("root", i.Root)
			f.add("state", i.State)
			f.add("socket", i.Socket)
			f.add("kernel", i.Kernel+" "+i.Arch)
			f.add("cgroups", i.Cgroups)
			total := 0
			for _, n := range i.Environments {
				total += n
			}
			f.add("environments", fmt.Sprintf("%d (%d running)", total, i.Environments[string(api.Running)]))
			f.add("templates", fmt.Sprint(i.Templates))
			if s := i.Standby; s != nil {
				f.add("standby", fmt.Sprintf("%d guests, %d images, %s of memory", s.Machines, s.Images, bytesText(s.Bytes)))
			}
			return f.w.Flush()
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long: `Print the version of this program; that of the daemon is in ` + "`strata info`" + `.

Examples:
  strata version
  strata version --json`,
		Args: exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(map[string]string{"version": version.Version})
			}
			_, err := fmt.Fprintln(a.out, version.Version)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
