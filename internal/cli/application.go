package cli

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/envfile"
	"github.com/strata-project/strata/internal/fault"
)

// application is an environment file that is being applied.
type application struct {
	app   *app
	c     *client.Client
	file  envfile.File
	flags applyFlags
	steps []step
	nets  []envfile.NetworkStep
}

// step is a step of the plan, and what became of it.
type step struct {
	envfile.Step
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
}

// applied is the answer of apply --json.
type applied struct {
	Project  string                `json:"project,omitempty"`
	Networks []envfile.NetworkStep `json:"networks,omitempty"`
	Steps    []step                `json:"steps"`
}

func (w *application) result() applied {
	return applied{Project: w.file.Project, Networks: w.nets, Steps: w.steps}
}

// plan compares the file with what is there, and has the daemon judge what is to be made,
// so that nothing is begun that is refused in the middle.
func (w *application) plan(ctx context.Context) error {
	have, err := w.c.List(ctx, client.ListFilter{All: true})
	if err != nil {
		return err
	}
	ids := map[string]string{}
	for _, e := range w.file.Environments {
		if _, asked := ids[e.Template]; asked || e.Template == "" {
			continue
		}
		t, err := w.c.Template(ctx, e.Template)
		if err != nil && !fault.Is(err, fault.Missing) && !fault.Is(err, fault.Invalid) {
			return err
		}
		ids[e.Template] = t.ID
	}
	for i, env := range have {
		if w.names(env.Name) { // its disk's size is in the detailed answer alone
			if have[i], err = w.c.Get(ctx, env.ID); err != nil {
				return err
			}
		}
	}
	nets, err := w.c.Networks(ctx)
	if err != nil {
		return err
	}
	p, err := envfile.New(w.file, have, envfile.Options{Prune: w.flags.prune, Recreate: w.flags.recreate, Templates: ids, Networks: nets})
	if err != nil {
		return err
	}
	w.nets = p.Networks
	var bad []error
	for _, s := range p.Steps {
		if s.Action == envfile.Create || s.Action == envfile.Replace {
			why, err := w.judge(ctx, s)
			bad = append(bad, err)
			s.Why = why
		}
		if s.MoveTo != "" {
			r := api.MoveRequest{Stratum: s.MoveTo, Force: s.Spec.Force, DryRun: true}
			if s.Ahead {
				r.Update = &s.Update
			}
			_, err := w.c.Move(ctx, s.Name, r)
			bad = append(bad, w.file.Locate(s.Name, err))
		}
		w.steps = append(w.steps, step{Step: s})
	}
	return fault.Join(bad...)
}

func (w *application) names(name string) bool {
	for _, e := range w.file.Environments {
		if e.Name == name {
			return true
		}
	}
	return false
}

// judge asks the daemon what making an environment would mean. What create fetches where
// it is missing is no fault.
func (w *application) judge(ctx context.Context, s envfile.Step) (string, error) {
	spec := s.Spec
	if slices.ContainsFunc(w.nets, func(n envfile.NetworkStep) bool { return n.Action == envfile.Create && n.Name == spec.Network }) {
		spec.Network = "" // it is made first
	}
	p, err := w.c.Plan(ctx, spec)
	switch {
	case err == nil:
		return p.Choice.Stratum + ": " + p.Choice.Reason, nil
	case fault.Is(err, fault.Missing) && lacksTemplate(ctx, w.c, s.Spec.Template):
		if namesRegistry(s.Spec.Template) {
			return "its template is fetched first", nil
		}
		err = fault.All(err)[0].At("template")
	case lacksKernel(err) && s.Spec.Kernel == "":
		return "a kernel is fetched first", nil
	}
	return "", w.file.Locate(s.Name, err)
}

// carryOut takes every step. What depends on one that failed is left alone; the others go on.
func (w *application) carryOut(ctx context.Context) error {
	var first error
	failed := map[string]bool{}
	counts := map[string]int{}
	if err := w.makeNetworks(ctx, counts); err != nil {
		return err
	}
	for i := range w.steps {
		s := &w.steps[i]
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := w.awaited(ctx, s.Step, failed)
		if err == nil {
			err = w.take(ctx, s.Step)
		}
		if err != nil {
			err = w.file.Locate(s.Name, err)
			w.app.complain(err)
			failed[s.Name], s.Error = true, err.Error()
			if first == nil {
				first = err
			}
			continue
		}
		s.Done = true
		counts[doneText(s.Step)]++
	}
	if err := w.removeNetworks(ctx, counts); err != nil {
		w.app.complain(err)
		failed["network"] = true
		if first == nil {
			first = err
		}
	}
	if !w.flags.quiet {
		w.summary(counts, len(failed))
	}
	if first != nil {
		return exit{status: fault.KindOf(first).Exit()}
	}
	return nil
}

func doneText(s envfile.Step) string {
	switch {
	case s.Action == envfile.None && s.Start:
		return "started"
	case s.Action == envfile.None:
		return ""
	}
	return map[string]string{envfile.Create: "created", envfile.Change: "changed", envfile.Move: "moved", envfile.Restart: "restarted", envfile.Replace: "replaced", envfile.Remove: "removed"}[s.Action]
}

// summary says what was done.
func (w *application) summary(counts map[string]int, failed int) {
	text := ""
	for _, what := range []string{"created", "started", "changed", "moved", "restarted", "replaced", "removed"} {
		if counts[what] > 0 {
			text += ", " + what + " " + count(int64(counts[what]))
		}
	}
	if failed > 0 {
		text += ", failed " + count(int64(failed))
	}
	if text == "" {
		w.app.say("nothing to do: everything is as the file says")
		return
	}
	w.app.say("%s", text[2:])
}

// take does one step.
func (w *application) take(ctx context.Context, s envfile.Step) error {
	var err error
	if s.Ahead {
		if err := w.change(ctx, s); err != nil {
			return err
		}
	}
	if s.MoveTo != "" {
		if _, err := w.app.move(ctx, w.c, s.Name, api.MoveRequest{Stratum: s.MoveTo, Force: s.Spec.Force}, w.flags.quiet); err != nil {
			return err
		}
	}
	switch s.Action {
	case envfile.Remove:
		return w.c.Remove(ctx, s.Name, true)
	case envfile.Replace:
		if err := w.fetch(ctx, s.Spec); err != nil {
			return err
		}
		if err := w.c.Remove(ctx, s.Name, true); err != nil {
			return err
		}
		_, err = w.app.create(ctx, w.c, &specFlags{quiet: w.flags.quiet}, s.Spec)
	case envfile.Create:
		_, err = w.app.create(ctx, w.c, &specFlags{quiet: w.flags.quiet}, s.Spec)
	case envfile.Restart:
		if err := w.c.Stop(ctx, s.Name, "", nil); err != nil {
			return err
		}
		_, err = w.c.Update(ctx, s.Name, s.Update)
		if err != nil { // it ran before, so it runs again
			return fault.Join(err, w.c.Start(ctx, s.Name))
		}
	case envfile.Change, envfile.Move:
		if !s.Ahead {
			err = w.change(ctx, s)
		}
	}
	if err != nil || !s.Start {
		return err
	}
	return w.c.Start(ctx, s.Name)
}

// change changes what can be changed of an environment, where there is anything.
func (w *application) change(ctx context.Context, s envfile.Step) error {
	if reflect.DeepEqual(s.Update, api.Update{}) {
		return nil
	}
	_, err := w.c.Update(ctx, s.Name, s.Update)
	return err
}

// fetch gets what making an environment takes and is not here, so that what it replaces is
// removed only once that has come.
func (w *application) fetch(ctx context.Context, spec api.Spec) error {
	p, err := w.c.Plan(ctx, spec)
	if fault.Is(err, fault.Missing) && namesRegistry(spec.Template) && lacksTemplate(ctx, w.c, spec.Template) {
		if _, err := w.app.pull(ctx, w.c, api.PullRequest{Ref: spec.Template}, w.flags.quiet); err != nil {
			return fault.Wrap(err, "fetch the template %s, which is not here", spec.Template)
		}
		p, err = w.c.Plan(ctx, spec)
	}
	at := p.Choice.Stratum
	switch {
	case lacksKernel(err) && spec.Kernel == "" && spec.Stratum != "": // those that are here do not fit
		at = spec.Stratum
	case err != nil || !p.Fetch:
		return err
	}
	return w.app.fetchKernel(ctx, w.c, at, w.flags.quiet)
}

// awaited waits until everything that a step's environment depends on is as it asks. What
// is not started or restarted depends on nothing now.
func (w *application) awaited(ctx context.Context, s envfile.Step, failed map[string]bool) error {
	for _, d := range s.Waits {
		if !s.Start {
			return nil
		}
		if failed[d.Name] {
			return fault.Busyf("%s was left alone: it depends on %s, which failed", s.Name, d.Name).At("depends-on")
		}
		limited, cancel := context.WithTimeout(ctx, w.flags.timeout)
		err := w.until(limited, d)
		if limited.Err() != nil && ctx.Err() == nil {
			err = fault.Busyf("%s was not %s within %s", d.Name, or(d.Until, envfile.Ready), w.flags.timeout).Help("see strata logs %s, or give --timeout more", d.Name)
		}
		cancel()
		if err != nil {
			return fault.Wrap(err, "%s was left alone", s.Name)
		}
	}
	return nil
}

// until waits for one environment by the daemon's events.
func (w *application) until(ctx context.Context, d envfile.Dependency) error {
	events, err := w.c.Subscribe(ctx, client.EventFilter{Types: []string{"environment"}, Names: []string{d.Name}})
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		e, err := w.c.Get(ctx, d.Name)
		if err != nil {
			return err
		}
		if reached, err := reached(e, d.Until); reached || err != nil {
			return err
		}
		if _, err := events.Next(); errors.Is(err, io.EOF) {
			return fault.Busyf("the daemon ended the stream of events")
		} else if err != nil {
			return err
		}
	}
}

// reached tells whether an environment is what is waited for; an error says that it never will be.
func reached(e api.Environment, until string) (bool, error) {
	over := e.State == api.Stopped
	switch {
	case until == envfile.Ended && over && e.Exit != nil && e.Exit.Status == 0:
		return true, nil
	case over && e.LastFailure != "":
		return false, fault.Unablef("%s did not start: %s", e.Name, e.LastFailure)
	case over && e.Exit != nil && (e.Exit.Status != 0 || until != envfile.Ended):
		return false, fault.Unablef("%s ended with status %d", e.Name, e.Exit.Status).Help("see strata logs %s", e.Name)
	case over:
		return false, fault.Unablef("%s is stopped", e.Name).Help("start it: strata start %s", e.Name)
	case until == envfile.Started:
		return e.State == api.Running, nil
	case until == envfile.Ended || e.State != api.Running:
		return false, nil
	case until == envfile.Healthy && e.Health == "":
		return false, fault.Invalidf("%s has no health check, so it is never healthy", e.Name).Help("give it one, or wait until it is ready")
	case e.Health == "unhealthy":
		return false, fault.Unablef("%s is unhealthy", e.Name).Help("see strata logs %s", e.Name)
	}
	return e.Ready, nil
}
