package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

const environments = "environments"

// ListFilter chooses environments; the zero value those that are not stopped.
type ListFilter struct {
	All    bool
	Labels []string // NAME or NAME=VALUE
	Names  []string // parts of names
	States []api.State
	Brief  bool // only what a table of many shows
}

// Create makes an environment and does not start it.
func (c *Client) Create(ctx context.Context, spec api.Spec) (e api.Environment, err error) {
	q := post(environments)
	q.body = spec
	return e, c.call(ctx, q, &e)
}

// Clone makes another environment with a copy of the disk of ref, which stands still.
func (c *Client) Clone(ctx context.Context, ref string, o api.Clone) (e api.Environment, err error) {
	q := post(environments, ref, "clone")
	q.body = o
	return e, c.call(ctx, q, &e)
}

// Commit makes a template of ref, which stands still; an empty name means none.
func (c *Client) Commit(ctx context.Context, ref, name string) (t api.Template, err error) {
	return t, c.call(ctx, post(environments, ref, "commit").with("name", name), &t)
}

// List returns the environments that f chooses.
func (c *Client) List(ctx context.Context, f ListFilter) (all []api.Environment, err error) {
	return all, c.ListInto(ctx, f, &all)
}

// ListInto decodes the list into out, which may know fewer fields.
func (c *Client) ListInto(ctx context.Context, f ListFilter, out any) error {
	q := get(environments).with("all", flag(f.All), "brief", flag(f.Brief))
	for _, l := range f.Labels {
		q = q.with("label", l)
	}
	for _, n := range f.Names {
		q = q.with("name", n)
	}
	for _, s := range f.States {
		q = q.with("state", string(s))
	}
	return c.call(ctx, q, out)
}

// Get returns one environment, in detail.
func (c *Client) Get(ctx context.Context, ref string) (e api.Environment, err error) {
	return e, c.call(ctx, get(environments, ref), &e)
}

// Plan tells what making and starting an environment would do; nothing is done.
func (c *Client) Plan(ctx context.Context, spec api.Spec) (p api.Plan, err error) {
	q := post("plan")
	q.body = spec
	return p, c.call(ctx, q, &p)
}

// Why tells why an environment is at its stratum.
func (c *Client) Why(ctx context.Context, ref string) (w api.Choice, err error) {
	return w, c.call(ctx, get(environments, ref, "why"), &w)
}

// Queue waits until there is room for an environment's guarantees, at most for
// patience, and holds it for the start that follows, or for next. It ends with ctx.
func (c *Client) Queue(ctx context.Context, ref string, next api.Next, patience time.Duration) error {
	q := post(environments, ref, "queue").with("patience", patience.String())
	q.body = next
	return c.call(ctx, q, nil)
}

// Start starts an environment.
func (c *Client) Start(ctx context.Context, ref string) error { return c.act(ctx, ref, "start") }

// Reclaim gives memory back to the host that it does not use.
func (c *Client) Reclaim(ctx context.Context, ref string) (r api.Reclaimed, err error) {
	return r, c.call(ctx, post(environments, ref, "reclaim"), &r)
}

// Pause holds every process still.
func (c *Client) Pause(ctx context.Context, ref string) error { return c.act(ctx, ref, "pause") }

// Suspend writes an environment down with its memory, and ends its run.
func (c *Client) Suspend(ctx context.Context, ref string) error { return c.act(ctx, ref, "suspend") }

// PressReset presses the reset button of a machine.
func (c *Client) PressReset(ctx context.Context, ref string) error { return c.act(ctx, ref, "reset") }

// Interrupt sends a machine an interrupt that it cannot mask.
func (c *Client) Interrupt(ctx context.Context, ref string) error { return c.act(ctx, ref, "nmi") }

// Insert puts the image of a CD, a path of the daemon's host, into the drive of a foreign system.
func (c *Client) Insert(ctx context.Context, ref, iso string) error {
	return c.act(ctx, ref, "insert", "iso", iso)
}

// InstallAgent puts strata's own agent into a foreign Linux system; byCD: by a CD, whoever
// answers inside.
func (c *Client) InstallAgent(ctx context.Context, ref string, byCD bool) (done api.AgentInstalled, err error) {
	return done, c.call(ctx, post(environments, ref, "agent").with("cd", strconv.FormatBool(byCD)), &done)
}

// Eject empties the CD drive of a foreign system.
func (c *Client) Eject(ctx context.Context, ref string) error { return c.act(ctx, ref, "eject") }

// Resume lets a paused or suspended environment go on.
func (c *Client) Resume(ctx context.Context, ref string) error { return c.act(ctx, ref, "resume") }

func (c *Client) act(ctx context.Context, ref, what string, query ...string) error {
	return c.call(ctx, post(environments, ref, what).with(query...), nil)
}

// Stop asks an environment to end, waits grace, and kills it. An empty signal
// and a nil grace mean the environment's own.
func (c *Client) Stop(ctx context.Context, ref, signal string, grace *time.Duration) error {
	return c.act(ctx, ref, "stop", "signal", signal, "grace", graceText(grace))
}

// Restart stops an environment and starts it again.
func (c *Client) Restart(ctx context.Context, ref, signal string, grace *time.Duration) error {
	return c.act(ctx, ref, "restart", "signal", signal, "grace", graceText(grace))
}

func graceText(d *time.Duration) string {
	if d == nil {
		return ""
	}
	return d.String()
}

// Kill sends a signal to the main program; an empty one kills every process.
func (c *Client) Kill(ctx context.Context, ref, signal string) error {
	return c.act(ctx, ref, "kill", "signal", signal)
}

// Rename gives an environment another name.
func (c *Client) Rename(ctx context.Context, ref, name string) error {
	return c.act(ctx, ref, "rename", "name", name)
}

// Remove removes an environment; with force it is stopped first.
func (c *Client) Remove(ctx context.Context, ref string, force bool) error {
	q := request{method: http.MethodDelete, path: []string{environments, ref}}
	return c.call(ctx, q.with("force", flag(force)), nil)
}

// Update changes limits, labels or the restart policy.
func (c *Client) Update(ctx context.Context, ref string, u api.Update) (e api.Environment, err error) {
	q := request{method: http.MethodPatch, path: []string{environments, ref}, body: u}
	return e, c.call(ctx, q, &e)
}

// Wait blocks until condition holds: stopped, next-exit or removed.
func (c *Client) Wait(ctx context.Context, ref, condition string) (api.Exit, error) {
	var r api.WaitResult
	err := c.call(ctx, post(environments, ref, "wait").with("condition", condition), &r)
	return r.Exit, err
}

// Stats returns what an environment uses now.
func (c *Client) Stats(ctx context.Context, ref string) (s api.Stats, err error) {
	return s, c.call(ctx, get(environments, ref, "stats"), &s)
}

// LogOptions choose output. Tail: the last lines; negative: all.
type LogOptions struct {
	Since, Until time.Time
	Tail         int
	Follow       bool
	Source       string // program, console or kernel; "": program
}

// Logs calls emit with every piece of output, in order.
func (c *Client) Logs(ctx context.Context, ref string, o LogOptions, emit func(api.LogLine) error) error {
	q := get(environments, ref, "logs").with("since", moment(o.Since), "until", moment(o.Until), "follow", flag(o.Follow), "source", o.Source)
	if o.Tail >= 0 {
		q = q.with("tail", strconv.Itoa(o.Tail))
	}
	answer, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for lines := json.NewDecoder(answer.Body); ; {
		var l api.LogLine
		switch err := lines.Decode(&l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fault.Busyf("the daemon broke the log off: %w", err).Help("where the daemon ended the environment goes on: ask again once it answers")
		}
		if err := emit(l); err != nil {
			return err
		}
	}
}

// CopyOut returns a tar of a path inside; the caller closes it.
func (c *Client) CopyOut(ctx context.Context, ref, path string) (io.ReadCloser, error) {
	return c.download(ctx, get(environments, ref, "files").with("path", path))
}

// CopyIn unpacks a tar into a folder inside.
func (c *Client) CopyIn(ctx context.Context, ref, path string, tar io.Reader) error {
	q := request{method: http.MethodPut, path: []string{environments, ref, "files"}, raw: tar}
	return c.call(ctx, q.with("path", path), nil)
}

// StatPath says what a path inside is.
func (c *Client) StatPath(ctx context.Context, ref, path string) (s api.PathStat, err error) {
	return s, c.call(ctx, get(environments, ref, "files", "stat").with("path", path), &s)
}
