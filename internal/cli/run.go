package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// removalPatience bounds the wait for an environment that removes itself.
const removalPatience = 10 * time.Second

func (a *app) runCommand() *cobra.Command {
	var s specFlags
	var detach bool
	var keys, patience string
	cmd := &cobra.Command{
		Use:   "run [flags] [TEMPLATE [COMMAND [ARG...]]]",
		Short: "Make an environment, start it, and join its streams",
		Long: `Make an environment from a template and start it.

Without -d the program's output appears here, signals sent to this command reach
the program, and this command ends with the program's exit status: 0-255 its own,
125 where strata failed, 126 where the program cannot be executed, 127 where it
was not found.

With kind system a power-off from inside is an end with status 0, and a reboot from
inside starts the environment again, whatever the restart policy is (with --rm it is
its end).

Examples:
  strata run --rm busybox echo hello
  strata run --rm -it debian:bookworm bash
  strata run -d --name web -p 8080:80 -v ./site:/var/www/html:ro nginx
  strata run -d --name db --memory 1G --cpus 2 --disk 20G --restart on-failure:5 postgres
  strata run -d --name shop --memory-guarantee 2G --cpu-guarantee 0.5 --cpu-weight 300 shop
  strata run -d --name whole --kind system debian-systemd
  strata run --name win --os windows --disk-image win.qcow2
  strata run --name deb --os linux --iso debian.iso --disk 20G --memory 1G

A system with a disk image or a CD of its own has no streams to join: its name is
printed once it runs. See its screen (strata screen, type, vnc) and its serial line
(strata console).`,
		Args:        s.template,
		Annotations: programStatus,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			spec, err := s.build(args)
			if err != nil {
				return err
			}
			made, err := a.create(ctx, c, &s, spec)
			if err != nil {
				return err
			}
			if err := queue(ctx, c, made.ID, patience); err != nil {
				a.discard(c, made)
				return programFault(err)
			}
			if detach || spec.Foreign != nil { // which has no streams to join
				return a.startDetached(ctx, c, made)
			}
			return a.runAttached(ctx, c, made, session{tty: spec.TTY, input: spec.Stdin, detach: keys})
		}),
		ValidArgsFunction: a.completeTemplate,
	}
	s.add(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "start it and print its name")
	queueFlag(cmd.Flags(), &patience)
	cmd.Flags().StringVar(&keys, "detach-keys", "", "`keys` that leave a session with -it (default "+defaultDetachKeys+")")
	a.completeSpecFlags(cmd)
	return cmd
}

func (a *app) startDetached(ctx context.Context, c *client.Client, made api.Environment) error {
	if err := c.Start(ctx, made.ID); err != nil {
		a.discard(c, made)
		return programFault(err)
	}
	fmt.Fprintln(a.out, made.Name)
	return nil
}

func (a *app) runAttached(ctx context.Context, c *client.Client, made api.Environment, s session) error {
	end, err := a.join(ctx, s, func(ctx context.Context, streams client.Streams) (api.Exit, error) {
		return c.Run(ctx, made.ID, streams)
	})
	if errors.Is(err, client.ErrDetached) {
		return nil
	}
	if err != nil {
		return programFault(a.leave(c, made, err))
	}
	var how api.Exit // which the streams do not tell
	switch {
	case made.Spec.AutoRemove:
		how = a.awaitRemoval(c, made)
	case end.Signal != 0:
		ctx, cancel := context.WithTimeout(ctx, lostPatience)
		defer cancel()
		how, _ = c.Wait(ctx, made.ID, "stopped") // it may start again by its policy
	}
	if end.OOM {
		a.say("%s ran out of memory", made.Name)
	}
	if how.Crash != "" {
		a.say("%s crashed: %s", made.Name, how.Crash)
	}
	return ended(end)
}

// lostPatience is how long the end of what a broken session was of may take to be known.
const lostPatience = time.Second

// leave tells with err, which ended the session, that the environment goes on. One
// that does not run is discarded.
func (a *app) leave(c *client.Client, made api.Environment, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), removalPatience)
	defer cancel()
	soon, stop := context.WithTimeout(ctx, lostPatience)
	defer stop()
	_, _ = c.Wait(soon, made.ID, "stopped") // that it ended may be what broke the session
	e, unknown := c.Get(ctx, made.ID)
	switch {
	case unknown != nil:
		return err
	case e.State == api.Created || e.State == api.Stopped:
		a.discard(c, made)
		return err
	case e.State != api.Running && e.State != api.Paused:
		return err
	}
	return fault.All(err)[0].Help("%s goes on: join it with `strata attach %s`, or end it with `strata stop %s`", made.Name, made.Name, made.Name)
}

// discard removes what did not start and was meant to remove itself.
func (a *app) discard(c *client.Client, made api.Environment) {
	if !made.Spec.AutoRemove {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), removalPatience)
	defer cancel()
	if err := c.Remove(ctx, made.ID, true); err != nil && !fault.Is(err, fault.Missing) && !fault.Is(err, fault.Conflict) {
		a.complain(fault.Wrap(err, "remove %s", made.Name))
	}
}

// awaitRemoval returns once the name is free again, so that whoever runs this
// command twice in a row never meets the first environment in the second. It tells how
// the run ended where that is still known.
func (a *app) awaitRemoval(c *client.Client, made api.Environment) api.Exit {
	ctx, cancel := context.WithTimeout(context.Background(), removalPatience)
	defer cancel()
	how, err := c.Wait(ctx, made.ID, "removed")
	if err != nil && !fault.Is(err, fault.Missing) {
		a.complain(fault.Wrap(err, "wait for the removal of %s", made.Name))
	}
	return how
}
