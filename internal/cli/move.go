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

func (a *app) moveCommand() *cobra.Command {
	var dry, force, quiet, asJSON bool
	var patience string
	cmd := &cobra.Command{
		Use:   "move [flags] NAME zone|guest|machine",
		Short: "Have an environment run at another stratum",
		Long: `Have an environment run deeper or shallower, with the same disk, name, address, MAC,
ports, volumes, limits, variables and restart policy. No template and no disk is
copied.

One that runs is stopped and started again, so what runs inside is not kept; but all
that the new stratum takes is found and made before. Where the start fails, the
environment runs where it was. One that is stopped changes its stratum only.

A stratum that does not serve a need of the environment is refused, unless --force. One
where it would take more of the host than there is room for is refused with status 8; with
--queue the move waits for room.

Examples:
  strata move web guest
  strata move --queue=10m web machine
  strata move --dry-run web machine
  strata move --force web zone`,
		Args: exactly(2, "a name and a stratum"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			to := args[1]
			if !isStratum(to) {
				return fault.Invalidf("%q is not a stratum", to).At("stratum").Help("use one of: zone, guest, machine")
			}
			if dry && patience != "" {
				return fault.Invalidf("a dry run waits for nothing").At("queue").Help("leave out --queue or --dry-run")
			}
			if err := queueFor(ctx, c, args[0], api.Next{Stratum: to}, patience); err != nil {
				return err
			}
			m, err := a.move(ctx, c, args[0], api.MoveRequest{Stratum: to, Force: force, DryRun: dry}, quiet || asJSON)
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(m)
			case dry:
				return a.printMovePlan(args[0], m)
			}
			if !quiet {
				a.say("%s", movedText(args[0], m.Move))
				for _, note := range m.Notes {
					a.say("note: %s", note)
				}
			}
			fmt.Fprintln(a.out, args[0])
			return nil
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return a.completeNames(cmd, args, part)
			case 1:
				return strata, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what it would do, and do nothing")
	queueFlag(cmd.Flags(), &patience)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "move it even where the stratum does not serve a need")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the name only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// strata are the depths, shallowest first.
var strata = []string{"zone", "guest", "machine"}

func isStratum(word string) bool {
	for _, s := range strata {
		if word == s {
			return true
		}
	}
	return false
}

// move moves, and fetches a kernel first where that is all that is missing.
func (a *app) move(ctx context.Context, c *client.Client, name string, r api.MoveRequest, quiet bool) (api.Moved, error) {
	move := func() (api.Moved, error) {
		return watched(ctx, a, c, watching{quiet: quiet || r.DryRun}, func(ctx context.Context) (api.Moved, error) { return c.Move(ctx, name, r) })
	}
	m, err := move()
	if !lacksKernel(err) {
		return m, err
	}
	env, gone := c.Get(ctx, name)
	if gone != nil {
		return m, gone
	}
	if env.Spec.Kernel != "" { // which is not here: another one is not what was asked for
		return m, err
	}
	if err := a.fetchKernel(ctx, c, r.Stratum, quiet); err != nil {
		return m, err
	}
	return move()
}

// movedText says what a move did.
func movedText(name string, m api.Move) string {
	text := fmt.Sprintf("moved %s from %s to %s", name, m.From, m.To)
	if m.Ran {
		text += fmt.Sprintf(": it was down for %s (stopped in %s, started in %s)", time.Duration(m.Downtime), time.Duration(m.Stop), time.Duration(m.Start))
	}
	return text
}

func (a *app) printMovePlan(name string, m api.Moved) error {
	f := a.facts()
	f.add("move", fmt.Sprintf("%s from %s to %s", name, m.Move.From, m.Move.To))
	f.add("running now", yes(m.Move.Ran))
	for _, note := range m.Notes {
		f.add("not kept", note)
	}
	if err := f.w.Flush(); err != nil {
		return err
	}
	return a.printPlan(m.Plan)
}

// moveLine is one move of the history.
func moveLine(m api.Move) string {
	text := fmt.Sprintf("%s from %s to %s", m.At.Local().Format(time.RFC3339), m.From, m.To)
	if m.Downtime > 0 {
		text += ", down for " + time.Duration(m.Downtime).String()
	}
	if m.Forced {
		text += ", by force"
	}
	if m.Failed != "" {
		text += ", failed and went back: " + strings.ReplaceAll(m.Failed, "\n", "; ")
	}
	if m.Settled {
		text += ", brought to its end by a later daemon"
	}
	return text
}
