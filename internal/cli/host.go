package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/version"
)

func (a *app) hostCommand() *cobra.Command {
	return group("host", "What this host can do", `Look at what strata needs of this host.

Examples:
  strata host check`, a.hostCheckCommand())
}

func (a *app) hostCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Probe what strata needs of this host",
		Long: `Probe each kernel feature and program that strata uses, and say how it was probed,
what is lost without it and how to get it. Ends with status 5 where something is
missing that zones do not work without.

Examples:
  strata host check
  strata host check --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			found, err := c.HostCheck(ctx)
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
				if !f.OK && f.Needed {
					return exit{status: fault.Unable.Exit()}
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printFindings(found []api.Finding) {
	for _, f := range found {
		mark := "ok      "
		if !f.OK && f.Needed {
			mark = "MISSING "
		} else if !f.OK {
			mark = "absent  "
		}
		line := mark + f.Name
		if f.Detail != "" {
			line += ": " + f.Detail
		}
		fmt.Fprintln(a.out, printable(line))
		if f.OK {
			continue
		}
		for _, more := range [][2]string{{"probed", f.How}, {"lost", f.Lost}, {"fix", f.Fix}} {
			if more[1] != "" {
				fmt.Fprintf(a.out, "        %s: %s\n", more[0], printable(more[1]))
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
