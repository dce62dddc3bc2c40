package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) statsCommand() *cobra.Command {
	var asJSON, once, stream bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "stats [flags] [NAME...]",
		Short: "Show what environments use",
		Long: `Show what environments use, all running ones where none is named. On a terminal the
table is renewed until it is interrupted; otherwise, and with --once, it is printed
once. The first CPU figure is measured over a short moment.

With --stream --json each environment is a line of JSON at each interval, with what
the host counted in the last second, until it is interrupted.

Examples:
  strata stats
  strata stats --once --json web
  strata stats --stream --json | jq -c '[.environment, .cpu, .memory]'`,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if err := checkInterval(interval); err != nil {
				return err
			}
			if stream {
				return a.streamUsage(ctx, c, args, interval, asJSON)
			}
			for round := 0; ; round++ {
				before, err := a.measure(ctx, c, args)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(before)
				}
				pause := interval
				if once || !a.outTTY || round == 0 {
					pause = min(interval, 200*time.Millisecond)
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(pause): // a rate needs two points in time
				}
				after, err := a.measure(ctx, c, args)
				if err != nil {
					return err
				}
				if a.outTTY && !once {
					fmt.Fprint(a.out, "\x1b[H\x1b[J")
				}
				if err := a.printStats(before, after); err != nil || once || !a.outTTY {
					return err
				}
			}
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, once")
	cmd.Flags().BoolVar(&once, "once", false, "print the table once")
	cmd.Flags().BoolVar(&once, "no-stream", false, "what docker calls --once")
	cobra.CheckErr(cmd.Flags().MarkHidden("no-stream"))
	cmd.Flags().BoolVar(&stream, "stream", false, "go on printing, with --json: a line for each environment at each interval")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two tables")
	return cmd
}

// streamUsage prints lines of JSON until it is interrupted. Of those that were named
// one may end meanwhile; where none is left, it is over.
func (a *app) streamUsage(ctx context.Context, c *client.Client, names []string, interval time.Duration, asJSON bool) error {
	if !asJSON {
		return fault.Invalidf("--stream prints JSON only").At("stream").Help("add --json; without --stream the table is renewed on a terminal")
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		u, err := c.Usage(ctx, names...)
		if ctx.Err() != nil || !first && fault.Is(err, fault.Conflict) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, one := range u.Environments {
			if err := a.printLine(one); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// minInterval is the least time between two looks.
const minInterval = 100 * time.Millisecond

func checkInterval(interval time.Duration) error {
	if interval < minInterval {
		return fault.Invalidf("an interval of %s is too short", interval).At("interval").Help("the least is %s", minInterval)
	}
	return nil
}

// measure asks for the figures of all that are named, or of all that run. Of
// those that were not named one may end meanwhile.
func (a *app) measure(ctx context.Context, c *client.Client, names []string) ([]api.Stats, error) {
	all := len(names) == 0
	if all {
		var running []brief
		if err := c.ListInto(ctx, client.ListFilter{States: []api.State{api.Running, api.Paused}, Brief: true}, &running); err != nil {
			return nil, err
		}
		for _, e := range running {
			names = append(names, e.Name)
		}
	}
	answers, errs := make([]api.Stats, len(names)), make([]error, len(names))
	var waiting sync.WaitGroup
	slots := make(chan struct{}, questions)
	for i, name := range names { // who does not answer is waited for by no other
		slots <- struct{}{}
		waiting.Go(func() {
			answers[i], errs[i] = c.Stats(ctx, name)
			<-slots
		})
	}
	waiting.Wait()
	found := []api.Stats{}
	for i, err := range errs {
		switch {
		case err == nil:
			found = append(found, answers[i])
		case all && (fault.Is(err, fault.Missing) || fault.Is(err, fault.Conflict)):
		case errors.Is(err, context.Canceled):
			return nil, err
		default:
			return nil, fault.Wrap(err, "%s", names[i])
		}
	}
	return found, nil
}

// questions is how many are asked at once.
const questions = 16

func (a *app) printStats(before, after []api.Stats) error {
	earlier := make(map[string]api.Stats, len(before))
	for _, s := range before {
		earlier[s.ID] = s
	}
	t := newTable(a.out, "NAME", "CPU", "MEMORY", "PEAK", "LIMIT", "PROCESSES", "OOM KILLS")
	for _, s := range after {
		cpu := "-"
		if e, ok := earlier[s.ID]; ok && s.Time.After(e.Time) {
			cpu = fmt.Sprintf("%.1f%%", 100*float64(s.CPUTime-e.CPUTime)/float64(s.Time.Sub(e.Time)))
		}
		if s.Missing != "" {
			t.row(s.Name, cpu, "("+s.Missing+")", "", "", "", "")
			continue
		}
		processes := fmt.Sprint(s.PIDs)
		if s.PIDsLimit > 0 {
			processes += fmt.Sprintf(" of %d", s.PIDsLimit)
		}
		t.row(s.Name, cpu, bytesText(s.Memory), bytesText(s.MemoryPeak), bytesText(s.MemoryLimit), processes, fmt.Sprint(s.OOMKills))
	}
	return t.flush()
}
