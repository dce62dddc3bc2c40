package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) hostCapacityCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "capacity",
		Short: "Show what the host can guarantee, and who has it",
		Long: `Show the memory and the processors that can be guaranteed (what the host has, less
a reserve of its own), what of it is guaranteed to whom, what strata itself spends for
what runs, and who waits for room.

Examples:
  strata host capacity
  strata host capacity --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			h, err := c.Capacity(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(h)
			}
			return a.printCapacity(h)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printCapacity(h api.Capacity) error {
	m, p := h.Memory, h.CPUs
	t := newTable(a.out, "", "HOST", "RESERVE", "CAPACITY", "GUARANTEED", "OVERHEAD", "FREE")
	t.row("memory", m.Host.String(), m.Reserve.String(), m.Capacity.String(), m.Guaranteed.String(), m.Overhead.String(), m.Free.String())
	t.row("cpus", p.Host.String(), p.Reserve.String(), p.Capacity.String(), p.Guaranteed.String(), "", p.Free.String())
	if err := t.flush(); err != nil {
		return err
	}
	for _, one := range [][2]string{{"memory", m.ReserveFrom}, {"cpus", p.ReserveFrom}} {
		if one[1] != "" {
			fmt.Fprintf(a.out, "reserve of %s: %s\n", one[0], one[1])
		}
	}
	for _, part := range []struct {
		title string
		all   []api.Claim
	}{{"HELD BY", h.Held}, {"WAITING", h.Waiting}} {
		if len(part.all) == 0 {
			continue
		}
		fmt.Fprintln(a.out)
		t := newTable(a.out, part.title, "STRATUM", "MEMORY", "CPUS", "OVERHEAD")
		for _, one := range part.all {
			t.row(one.Name, one.Stratum, dash(one.Memory > 0, one.Memory.String()), dash(one.CPUs > 0, one.CPUs.String()), one.Overhead.String())
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

func dash(there bool, text string) string {
	if there {
		return text
	}
	return "-"
}

// usualQueue is how long --queue waits where it is not said.
const usualQueue = "1h"

// queueFlag adds --queue[=TIME].
func queueFlag(f *pflag.FlagSet, into *string) {
	f.StringVar(into, "queue", "", "where its guarantees find no room now, wait for it: in line, and for `TIME` at most (default "+usualQueue+")")
	f.Lookup("queue").NoOptDefVal = usualQueue
}

// queue waits for room for a start, where --queue was given.
func queue(ctx context.Context, c *client.Client, ref, text string) error {
	return queueFor(ctx, c, ref, api.Next{}, text)
}

// nextDaemon bounds the wait for another daemon, where one ended while room was waited for.
const nextDaemon = 30 * time.Second

// queueFor waits for room for what follows, where --queue was given: with the next daemon
// where one ends meanwhile.
func queueFor(ctx context.Context, c *client.Client, ref string, next api.Next, text string) error {
	if text == "" {
		return nil
	}
	patience, err := duration("queue", text)
	if err != nil {
		return err
	}
	if patience == 0 { // as usual
		return queueFor(ctx, c, ref, next, usualQueue)
	}
	until := time.Now().Add(time.Duration(patience))
	for {
		err := c.Queue(ctx, ref, next, max(time.Until(until), time.Millisecond))
		if !client.BrokenOff(err) || !answers(ctx, c) {
			return err
		}
	}
}

// answers waits until a daemon does, for as long as a next one may take.
func answers(ctx context.Context, c *client.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, nextDaemon)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := c.Info(ctx); err == nil {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}
