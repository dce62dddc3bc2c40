package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/docs"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/planner"
	"github.com/strata-project/strata/internal/stratum"
)

// Needs returns the vocabulary of needs.
func (e *Engine) Needs(context.Context) []api.Need { return planner.Vocabulary() }

// choose returns the stratum of spec with template t.
// Kinds: planner.Choose's, and Invalid for options that the stratum has no meaning for.
func (e *Engine) choose(ctx context.Context, spec api.Spec, t api.Template) (api.Choice, error) {
	c, err := planner.Choose(spec, t, e.facts(ctx, spec, t), e.priceLines(ctx))
	if err == nil {
		setAside(&spec, c.Stratum) // the choice names the need that is not served
		err = fits(spec, c.Stratum)
	}
	if err == nil && spec.Foreign == nil {
		_, err = e.outfit(ctx, spec, c.Stratum)
	}
	return c, err
}

// outfit returns the hardware of a template's environment, a line for each part; none
// where its stratum does not tell. Kinds: as stratum.Outfitter's and stratum.Shower's.
func (e *Engine) outfit(ctx context.Context, spec api.Spec, at string) ([]string, error) {
	if d, ok := e.drivers[at].(stratum.Shower); ok {
		if err := d.MayShow(len(spec.Volumes)); err != nil {
			return nil, err
		}
	}
	d, ok := e.drivers[at].(stratum.Outfitter)
	if !ok {
		return nil, nil
	}
	p := stratum.Plan{
		Name: first(spec.Name, "made-up"), Firmware: spec.Firmware, Hardware: spec.Hardware, Kernel: spec.Kernel, Modules: spec.Modules,
		Volumes: spec.Volumes, Resources: spec.Resources,
	}
	return d.Devices(ctx, p, first(spec.Network, "default") != environment.NoNetwork)
}

// facts are what a choice depends on of this host. Where nothing can ask for a
// virtual machine none is looked at, since most environments are zones.
func (e *Engine) facts(ctx context.Context, spec api.Spec, t api.Template) planner.Host {
	h := planner.Host{Strata: e.strata(), Lacks: map[string]*fault.Error{}}
	if spec.Stratum == stratum.Zone || !planner.Asks(spec, t) {
		return h
	}
	for _, d := range e.o.Drivers {
		at := d.Stratum()
		if p, ok := d.(stratum.Prober); ok {
			kvm, why, err := p.Probe(ctx)
			if err != nil {
				h.Lacks[at] = fault.All(err)[0]
				continue
			}
			h.KVM, h.NoKVM = kvm, why
		}
		if at != stratum.Zone && e.o.Kernels != nil && spec.Foreign == nil { // which has a kernel of its own
			if _, err := e.o.Kernels.For(at, spec.Kernel); err != nil {
				h.Lacks[at] = fault.All(err)[0]
			}
		}
	}
	return h
}

// Why returns why an environment is at its stratum, as it was chosen. Kinds: Missing.
func (e *Engine) Why(ctx context.Context, ref string) (api.Choice, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Choice{}, err
	}
	rec := en.snapshot()
	if rec.Choice != nil {
		return e.priceNow(ctx, *rec.Choice), nil
	}
	return e.priceNow(ctx, api.Choice{Stratum: rec.Stratum, Reason: rec.Reason, Needs: []api.Wanted{}, Others: []api.Depth{}}), nil
}

// Plan tells what Create and Start would do with spec; nothing is made or fetched.
// Kinds: as Create's.
func (e *Engine) Plan(ctx context.Context, spec api.Spec) (api.Plan, error) {
	spec.Resources = spec.Resources.Plain()
	if err := fault.Join(environment.ValidateNew(spec, bounds), checkVolumes(spec), e.published(spec)); err != nil {
		return api.Plan{}, err
	}
	if spec.Foreign != nil {
		c, err := e.choose(ctx, spec, api.Template{})
		if err != nil {
			return api.Plan{}, err
		}
		return e.planAlone(ctx, spec, c)
	}
	var notes []string
	t, err := e.o.Templates.Get(spec.Template)
	if fault.Is(err, fault.Missing) && builtIn(spec.Template) {
		t, err = api.Template{Config: api.TemplateConfig{Command: []string{"sh"}}}, nil
		notes = append(notes, "the template busybox would be made first")
	}
	if err != nil {
		return api.Plan{}, err
	}
	c, fetch, err := e.chooseFetching(ctx, spec, t)
	aside := []string{}
	if err == nil {
		aside = setAside(&spec, c.Stratum)
		err = fits(spec, c.Stratum)
	}
	if err != nil {
		return api.Plan{}, err
	}
	r, err := environment.Resolve(spec, first(spec.Name, "made-up"), t)
	if err != nil {
		return api.Plan{}, err
	}
	hardware, err := e.outfit(ctx, spec, c.Stratum)
	if err != nil && (fetch == nil || !fault.Is(err, fault.Missing)) {
		return api.Plan{}, err
	}
	p := e.planOf(planned{spec, t, r, c, fetch, hardware})
	p.Notes = slices.Concat(notes, aside, p.Notes)
	return p, nil
}

// chooseFetching is choose for who does nothing yet: a kernel that is only to be
// fetched stands against no stratum. Where the chosen one lacks it, fetch says so.
func (e *Engine) chooseFetching(ctx context.Context, spec api.Spec, t api.Template) (c api.Choice, fetch error, err error) {
	h := e.facts(ctx, spec, t)
	lacks := map[string]error{}
	for at, lack := range h.Lacks {
		if spec.Kernel == "" && lack.Kind == fault.Missing && lack.Field == "kernel" {
			lacks[at] = lack
			delete(h.Lacks, at)
		}
	}
	if c, err = planner.Choose(spec, t, h, e.priceLines(ctx)); err != nil {
		return c, nil, err
	}
	return c, lacks[c.Stratum], nil
}

// planned is what a plan tells of.
type planned struct {
	spec     api.Spec
	template api.Template
	resolved environment.Resolved
	choice   api.Choice
	fetch    error // a kernel is to be fetched first; nil: none
	hardware []string
}

// planOf puts what is planned into words.
func (e *Engine) planOf(w planned) api.Plan {
	p := api.Plan{
		Choice: w.choice, Template: w.spec.Template, Kind: w.resolved.Kind, Command: w.resolved.Args, Network: w.resolved.Network,
		Memory: "no limit", CPUs: "no limit", PIDs: "no limit", Disk: "10G", Differences: []api.Difference{},
	}
	if w.choice.Unmet != nil {
		p.Notes = append(p.Notes, forcedNote(w.choice))
	}
	planLimits(&p, w.spec.Resources)
	e.planRun(&p, w.spec, w.hardware)
	if p.Fetch = w.fetch != nil; p.Fetch {
		p.Kernel = "Debian's, which would be fetched first"
		p.Notes = append(p.Notes, "no kernel for stratum "+w.choice.Stratum+" is here: `strata run` and `strata move` would fetch Debian's first")
	}
	for _, d := range docs.Differences(w.choice.Stratum) {
		p.Differences = append(p.Differences, api.Difference(d))
	}
	return p
}

// forcedNote says that a stratum does not serve all needs.
func forcedNote(c api.Choice) string {
	return "stratum " + c.Stratum + " was forced: it does not serve " + strings.Join(c.Unmet, ", ")
}

func forcedReason(unmet []string) string {
	return ", by force: it does not serve " + strings.Join(unmet, ", ")
}

// planLimits writes down the limits that were asked for.
func planLimits(p *api.Plan, r api.Resources) {
	if r.Memory > 0 {
		p.Memory = r.Memory.String()
	}
	if r.CPUs > 0 {
		p.CPUs = r.CPUs.String()
	}
	if r.PIDs > 0 {
		p.PIDs = itoa(int(r.PIDs))
	}
	if r.Disk > 0 {
		p.Disk = r.Disk.String()
	}
}

// planRun writes down what a run would have, by its stratum.
func (e *Engine) planRun(p *api.Plan, spec api.Spec, hardware []string) {
	card := p.Network != environment.NoNetwork
	p.Mounts = []string{"/: template " + spec.Template + " read-only, with a private disk over it"}
	for _, v := range spec.Volumes {
		p.Mounts = append(p.Mounts, v.Target+": "+v.Source)
	}
	for _, m := range spec.Tmpfs {
		p.Mounts = append(p.Mounts, m.Target+": memory")
	}
	if p.Choice.Stratum == stratum.Zone {
		p.Kernel = "the host's, " + release()
		p.Starts = []string{"strata-keeper", "the program, in namespaces of its own"}
		p.Devices = []string{"null, zero, full, random, urandom, tty"}
		if card {
			p.Devices = append(p.Devices, "one end of a veth pair")
		}
		return
	}
	p.Kernel = "its own"
	p.Starts = []string{"strata-keeper", "QEMU"}
	if e.o.Kernels != nil {
		if k, err := e.o.Kernels.For(p.Choice.Stratum, spec.Kernel); err == nil {
			p.Kernel = k.Name
		}
	}
	for _, v := range spec.Volumes {
		p.Starts = append(p.Starts, "a server for "+v.Target)
	}
	if p.Devices = hardware; hardware != nil {
		return
	}
	p.Devices = []string{"virtio-blk: template, read-only", "virtio-blk: private disk", "virtio-serial", "virtio-rng"}
	if card {
		p.Devices = append(p.Devices, "virtio-net")
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
