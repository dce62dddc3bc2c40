package servertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Engine acts like the real one, as far as its callers can tell. It is safe for
// concurrent use.
type Engine struct {
	mu        sync.Mutex
	rows      map[string]*row // by id
	made      int
	templates map[string]api.Template // by name
	kernels   map[string]api.Kernel
	networks  map[string]api.Network
	subs      map[chan api.Event]engine.Filter
	files     map[string][]byte // by "name:path": what CopyIn was given
	// Screens are what environments show, by name; others have no screen. The one
	// called machine has one.
	Screens map[string]engine.Screen
	// Panic, where it is set, is what Info panics with, and CopyOut in the middle of /broken.
	Panic any
}

type row struct {
	env   api.Environment
	logs  []api.LogLine
	input chan byte // signals to the program
	done  chan struct{}
	gone  chan struct{}
}

// New returns an engine with the template busybox and the network default.
func New() *Engine {
	busybox := api.Template{ID: "sha256:" + strings.Repeat("b", 64), Names: []string{"busybox:latest"}, OS: "linux", Arch: "amd64", Kind: "app",
		Source: "built in", Size: 1 << 20, Created: time.Unix(1700000000, 0).UTC(), Config: api.TemplateConfig{Command: []string{"sh"}},
		Layers: []api.Layer{{DiffID: "sha256:" + strings.Repeat("d", 64), Digest: "sha256:" + strings.Repeat("e", 64), Size: 1 << 20}}}
	return &Engine{
		rows: map[string]*row{}, templates: map[string]api.Template{"busybox": busybox},
		kernels:  map[string]api.Kernel{},
		Screens:  map[string]engine.Screen{"machine": new(Screen)},
		networks: map[string]api.Network{"default": {Name: "default", IPv4: "10.88.0.0/24", Bridge: "strata0"}},
		subs:     map[chan api.Event]engine.Filter{}, files: map[string][]byte{},
	}
}

// Info implements server.Host.
func (e *Engine) Info(context.Context) api.Info {
	if e.Panic != nil {
		panic(e.Panic)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := map[string]int{}
	for _, r := range e.rows {
		counts[string(r.env.State)]++
	}
	return api.Info{Version: "test", APIVersion: "v1", State: "/state", Socket: "/socket", PID: 1, Started: time.Unix(1700000000, 0).UTC(),
		Kernel: "6.18", Arch: "amd64", Cgroups: "v2", Environments: counts, Templates: len(e.templates)}
}

// HostCheck implements server.Host.
func (e *Engine) HostCheck(context.Context) []api.Finding {
	return []api.Finding{
		{Group: "kernel", Name: "user namespaces", OK: true, Needed: true, How: "one was made"},
		{Group: "kernel", Name: "idmapped mounts", Needed: true, How: "one was made", Lost: "zones", Fix: "use kernel 6.1 or newer"},
		{Group: "kernel", Name: "KVM", Unknown: true, How: "opened it"},
	}
}

// Needs implements server.Host, with two needs.
func (e *Engine) Needs(context.Context) []api.Need {
	return []api.Need{
		{Name: "isolation", Means: "it is kept apart", Stratum: "zone", Why: "namespaces", Source: "docs"},
		{Name: "own-kernel", Means: "it runs a kernel of its own", Stratum: "guest", Why: "it has one", Source: "docs"},
	}
}

// Plan implements server.Records: everything is a zone, but what is to be deeper.
func (e *Engine) Plan(ctx context.Context, spec api.Spec) (api.Plan, error) {
	if _, err := e.Template(ctx, spec.Template); err != nil {
		return api.Plan{}, err
	}
	if spec.Network != "" {
		if _, err := e.Network(ctx, spec.Network); err != nil {
			return api.Plan{}, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return api.Plan{Choice: choice(spec), Fetch: e.lacksKernel(spec), Template: spec.Template, Kind: "app", Command: spec.Command, Kernel: "the host's", Memory: "no limit", CPUs: "no limit",
		PIDs: "no limit", Disk: "10G", Network: "default", Devices: []string{"null"}, Starts: []string{"strata-keeper"}, Mounts: []string{"/: template"}}, nil
}

// Why implements server.Records.
func (e *Engine) Why(ctx context.Context, ref string) (api.Choice, error) {
	env, err := e.Get(ctx, ref)
	return choice(env.Spec), err
}

func choice(spec api.Spec) api.Choice {
	c := api.Choice{Stratum: "zone", Reason: "nothing deeper was asked for", Needs: []api.Wanted{}, Price: "not measured",
		Others: []api.Depth{{Stratum: "guest", Deeper: true, Adds: "own-kernel", Served: true, Price: "not measured"}}}
	if spec.Stratum != "" {
		c.Stratum, c.Reason = spec.Stratum, "it was asked for"
	}
	for _, n := range spec.Needs {
		c.Needs = append(c.Needs, api.Wanted{Need: n, From: "asked", Stratum: "zone"})
	}
	return c
}

// Subscribe implements server.Host.
func (e *Engine) Subscribe(ctx context.Context, f engine.Filter) <-chan api.Event {
	ch := make(chan api.Event, 64)
	e.mu.Lock()
	e.subs[ch] = f
	e.mu.Unlock()
	cancel := func() {}
	if !f.Until.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, f.Until)
	}
	context.AfterFunc(ctx, func() {
		cancel()
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, ch)
		close(ch)
	})
	return ch
}

// Publish tells subscribers of an event.
func (e *Engine) Publish(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.publish(ev)
}

func (e *Engine) publish(ev api.Event) {
	ev.Time = time.Unix(1700000000, 0).UTC()
	for ch, f := range e.subs {
		if (len(f.Types) == 0 || slices.Contains(f.Types, ev.Type)) && (len(f.Operations) == 0 || slices.Contains(f.Operations, ev.Operation) || ev.Type == "progress") &&
			(len(f.Names) == 0 || slices.Contains(f.Names, ev.Name)) {
			select {
			case ch <- ev:
			default:
			}
		}
	}
}

// DestroyAll implements server.Host.
func (e *Engine) DestroyAll(ctx context.Context) error {
	for _, env := range e.List(ctx, engine.ListFilter{All: true}) {
		if err := e.Remove(ctx, env.ID, true); err != nil {
			return err
		}
	}
	return nil
}

// Create implements server.Records.
func (e *Engine) Create(_ context.Context, spec api.Spec) (api.Environment, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	template, ok := e.templates[strings.TrimSuffix(spec.Template, ":latest")]
	if !ok {
		return api.Environment{}, fault.Missingf("there is no template %q", spec.Template).At("template").Help("fetch it with `strata template pull %s`", spec.Template)
	}
	if e.lacksKernel(spec) {
		return api.Environment{}, fault.Missingf("there is no kernel for %ss yet", spec.Stratum).At("kernel").Help("get one: strata kernel add debian")
	}
	if spec.Stratum == "guest" {
		e.publish(api.Event{Type: "progress", Action: "merge", Progress: &api.Progress{Step: "merge", Item: "the layers of " + spec.Template, Done: 1, Total: 1 << 20}})
	}
	e.made++
	if spec.Name == "" {
		spec.Name = fmt.Sprintf("made-up-%d", e.made)
	}
	if e.find(spec.Name) != nil {
		return api.Environment{}, fault.Conflictf("the name %q is taken", spec.Name).At("name").Help("choose another one")
	}
	command := spec.Command
	if len(command) == 0 {
		command = template.Config.Command
	}
	env := api.Environment{ID: fmt.Sprintf("%012x", e.made), Name: spec.Name, State: api.Created, Stratum: choice(spec).Stratum, Kind: "app",
		Template: spec.Template, TemplateID: template.ID, Spec: spec, Command: command, Created: time.Now(),
		Network: api.Address{Network: "default", IPv4: fmt.Sprintf("10.88.0.%d", e.made+1)}}
	e.rows[env.ID] = &row{env: env, gone: make(chan struct{})}
	e.publish(api.Event{Type: "environment", Action: "create", ID: env.ID, Name: env.Name})
	return env, nil
}

// lacksKernel tells whether spec is of a stratum without a kernel; that of machines cannot
// be had. It is called with the lock held.
func (e *Engine) lacksKernel(spec api.Spec) bool {
	return spec.Kernel == "" && (spec.Stratum == "machine" || spec.Stratum == "guest" && len(e.kernels) == 0)
}

// find is called with the lock held.
func (e *Engine) find(ref string) *row {
	for id, r := range e.rows {
		if r.env.Name == ref || id == ref {
			return r
		}
	}
	return nil
}

func (e *Engine) get(ref string) (*row, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.find(ref); r != nil {
		return r, nil
	}
	return nil, fault.Missingf("there is no environment %q", ref).Help("see `strata ls -a`")
}

// List implements server.Records.
func (e *Engine) List(_ context.Context, f engine.ListFilter) []api.Environment {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []api.Environment
	for _, id := range slices.Sorted(maps.Keys(e.rows)) {
		env := e.rows[id].env
		switch {
		case len(f.States) > 0 && !slices.Contains(f.States, env.State),
			len(f.States) == 0 && !f.All && (env.State == api.Stopped || env.State == api.Created),
			len(f.Names) > 0 && !slices.ContainsFunc(f.Names, func(part string) bool { return strings.Contains(env.Name, part) }):
			continue
		}
		with := true
		for _, l := range f.Labels {
			have, ok := env.Spec.Labels[l.Name]
			with = with && ok && (l.Value == "" || l.Value == have)
		}
		if with {
			all = append(all, env)
		}
	}
	return all
}

// Get implements server.Records.
func (e *Engine) Get(_ context.Context, ref string) (api.Environment, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Environment{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.env, nil
}

// Remove implements server.Records.
func (e *Engine) Remove(ctx context.Context, ref string, force bool) error {
	r, err := e.get(ref)
	if err != nil {
		return err
	}
	env, _ := e.Get(ctx, ref)
	if env.State == api.Running {
		if !force {
			return fault.Conflictf("%s is running", env.Name).Help("stop it first, or use --force")
		}
		if err := e.Kill(ctx, ref, ""); err != nil {
			return err
		}
		<-r.done
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.vanish(r)
	return nil
}

func (e *Engine) vanish(r *row) {
	if _, here := e.rows[r.env.ID]; here {
		delete(e.rows, r.env.ID)
		close(r.gone)
		e.publish(api.Event{Type: "environment", Action: "destroy", ID: r.env.ID, Name: r.env.Name})
	}
}

// Clone implements server.Records.
func (e *Engine) Clone(ctx context.Context, ref string, o api.Clone) (api.Environment, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Environment{}, err
	}
	if !o.Copy {
		return api.Environment{}, fault.Unablef("a clone of %s is a copy of 1.0G", ref).At("copy").Help("add --copy")
	}
	spec := r.env.Spec
	spec.Name = o.Name
	return e.Create(ctx, spec)
}

// Rename implements server.Records.
func (e *Engine) Rename(_ context.Context, ref, name string) error {
	r, err := e.get(ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.find(name) != nil {
		return fault.Conflictf("the name %q is taken", name).At("name")
	}
	r.env.Name = name
	return nil
}

// Update implements server.Records. A guest that runs has room for 1 GiB.
func (e *Engine) Update(_ context.Context, ref string, u api.Update) (api.Environment, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Environment{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if u.Memory != nil {
		if r.env.State == api.Running && r.env.Stratum == "guest" && *u.Memory > unit.GiB {
			return api.Environment{}, fault.Conflictf("the machine has room for 1G of memory").At("resources.memory")
		}
		r.env.Spec.Resources.Memory = *u.Memory
	}
	if u.CPUs != nil {
		r.env.Spec.Resources.CPUs = *u.CPUs
	}
	if u.Disk != nil {
		r.env.Spec.Resources.Disk = *u.Disk
	}
	if u.PIDs != nil {
		r.env.Spec.Resources.PIDs = *u.PIDs
	}
	if u.Restart != nil {
		r.env.Spec.Restart = *u.Restart
	}
	labels := maps.Clone(r.env.Spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, u.Labels)
	for _, name := range u.RemoveLabels {
		delete(labels, name)
	}
	r.env.Spec.Labels = labels
	return r.env, nil
}
