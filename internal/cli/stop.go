package cli

import (
	"context"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/client"
)

// stopFlags say how to stop.
type stopFlags struct{ signal, time string }

func (s *stopFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.signal, "signal", "s", "", "`signal` that asks it to end (default: its own)")
	_ = cmd.RegisterFlagCompletionFunc("signal", someSignals)
	cmd.Flags().StringVarP(&s.time, "time", "t", "", "`duration` to wait before it is killed (default: its own)")
}

func (s *stopFlags) read() (string, *time.Duration, error) {
	grace, err := graceOf(s.time)
	if err != nil {
		return "", nil, err
	}
	signal, err := signalText(s.signal)
	return signal, grace, err
}

func (a *app) stopCommand() *cobra.Command {
	var s stopFlags
	cmd := &cobra.Command{
		Use:   "stop [flags] NAME...",
		Short: "Stop environments: ask, wait, kill",
		Long: `Ask the main program to end with its stop signal, wait, and kill what is left.
Several environments are stopped at once. Stopping a stopped one is no error. One that
starts is waited for as long, and then its start is given up.

Examples:
  strata stop web
  strata stop --time 1m db
  strata stop -t 0 $(strata ls -q)`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			signal, grace, err := s.read()
			if err != nil {
				return err
			}
			stop := atOnce(args, func(name string) error { return c.Stop(ctx, name, signal, grace) })
			return a.each(ctx, args, false, func(_ context.Context, name string) error { return stop(name) })
		}),
		ValidArgsFunction: a.completeNames,
	}
	s.add(cmd)
	return cmd
}

// atOnce begins do for every name and returns a function that waits for one's end.
func atOnce(names []string, do func(string) error) func(string) error {
	const most = 16 // at a time: each is a connection
	slots := make(chan struct{}, most)
	results := make(map[string]func() error, len(names))
	for _, name := range names {
		done := make(chan error, 1)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			done <- do(name)
		}()
		results[name] = sync.OnceValue(func() error { return <-done })
	}
	return func(name string) error { return results[name]() }
}

func (a *app) restartCommand() *cobra.Command {
	var s stopFlags
	var patience string
	cmd := &cobra.Command{
		Use:   "restart [flags] NAME...",
		Short: "Stop environments and start them again",
		Long: `Stop environments as ` + "`strata stop`" + ` does, and start them again.
One that runs keeps what it has guaranteed in between; one that has stopped is started
where there is room for that, and with --queue as soon as there is.

Examples:
  strata restart web
  strata restart --time 30s db
  strata restart --queue=10m batch`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			signal, grace, err := s.read()
			if err != nil {
				return err
			}
			return a.each(ctx, args, false, func(ctx context.Context, name string) error {
				if err := queue(ctx, c, name, patience); err != nil {
					return err
				}
				return c.Restart(ctx, name, signal, grace)
			})
		}),
		ValidArgsFunction: a.completeNames,
	}
	s.add(cmd)
	queueFlag(cmd.Flags(), &patience)
	return cmd
}
