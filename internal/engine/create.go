package engine

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
	"github.com/strata-project/strata/internal/store"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
)

// diskName is the private disk's file in an environment's folder; logDir the
// folder of its log.
const (
	diskName = "disk.ext4"
	logDir   = "log"

	consoleDir = "console" // what is kept of the console, as logDir's
	kernelDir  = "kernel"  // what the host's kernel did to a zone, as logDir's
)

var bounds = environment.Bounds{DiskFloor: disk.FloorSize, DiskCeiling: disk.CeilingSize}

// Create makes an environment and returns it; it does not start it. If it fails
// nothing is left of it. Kinds: Invalid, with all faults of the spec; Missing
// (template, network, a volume's source); Conflict (name taken); Unable (no
// stratum for its needs); Busy (no room). The first guest of a template takes as long as
// merging its layers does, which is told as progress of ctx's operation.
func (e *Engine) Create(ctx context.Context, spec api.Spec) (api.Environment, error) {
	if err := e.open(); err != nil {
		return api.Environment{}, err
	}
	spec.Resources = spec.Resources.Plain()
	if err := fault.Join(environment.ValidateNew(spec, bounds), checkVolumes(spec)); err != nil {
		return api.Environment{}, err
	}
	var made *entry
	if spec.Foreign != nil {
		made, err := e.create(ctx, spec, api.Template{})
		if err != nil {
			return api.Environment{}, err
		}
		e.tell(ctx, made, "create")
		return made.view(), nil
	}
	found := false
	use := func(t api.Template) (err error) {
		found = true
		made, err = e.create(ctx, spec, t)
		return err
	}
	err := e.o.Templates.Use(spec.Template, use)
	if fault.Is(err, fault.Missing) && !found && builtIn(spec.Template) {
		if _, built := e.o.Templates.Busybox(ctx); built != nil {
			return api.Environment{}, built
		}
		err = e.o.Templates.Use(spec.Template, use)
	}
	if err != nil {
		return api.Environment{}, err
	}
	e.tell(ctx, made, "create")
	return made.view(), nil
}

// builtIn tells whether ref names the template that strata makes by itself.
func builtIn(ref string) bool { return ref == "busybox" || ref == "busybox:latest" }

// checkVolumes tells which sources are not there. An empty or relative source is
// Validate's.
func checkVolumes(spec api.Spec) error {
	var bad []error
	for i, v := range spec.Volumes {
		if !strings.HasPrefix(v.Source, "/") || strings.IndexByte(v.Source, 0) >= 0 {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil {
			why := fault.Unablef("the volume's source %s cannot be used: %w", v.Source, err)
			if errors.Is(err, fs.ErrNotExist) {
				why = fault.Missingf("the volume's source %s does not exist on the host", v.Source).Help("make it first: mkdir %s", v.Source)
			}
			bad = append(bad, why.At("volumes["+itoa(i)+"].source"))
		}
	}
	return fault.Join(bad...)
}

// fits refuses options that the chosen stratum has no meaning for.
func fits(spec api.Spec, depth string) error {
	errs := []error{settings.Refused(spec.Resources, depth)}
	if spec.Firmware != "" && depth != stratum.Machine {
		errs = append(errs, fault.Invalidf("a %s has no firmware, so it cannot have %q", depth, spec.Firmware).At("firmware").Help("ask for stratum machine: --stratum machine"))
	}
	if spec.Hardware != (api.Hardware{}) && depth != stratum.Machine {
		errs = append(errs, fault.Invalidf("a %s has no hardware that could be chosen", depth).At("hardware").Help("ask for stratum machine: --stratum machine"))
	}
	if spec.Foreign != nil && depth != stratum.Machine {
		errs = append(errs, fault.Invalidf("a %s cannot run a foreign system", depth).At("stratum").Help("ask for stratum machine: --stratum machine"))
	}
	if depth != stratum.Zone {
		return fault.Join(errs...)
	}
	if spec.Kernel != "" {
		errs = append(errs, fault.Invalidf("a zone runs on the host's kernel, so it cannot have kernel %q", spec.Kernel).At("kernel").Help("ask for stratum guest: --stratum guest"))
	}
	if spec.Cold {
		errs = append(errs, fault.Invalidf("a zone boots nothing, so it has no cold boot").At("cold").Help("ask for stratum guest: --stratum guest"))
	}
	return fault.Join(errs...)
}

// published refuses ports on which nobody would answer: of an isolated network, and by IPv6
// where the network has none. Kinds: Invalid, Missing (the network).
func (e *Engine) published(spec api.Spec) error {
	if spec.Network == environment.NoNetwork {
		return nil
	}
	n, err := e.o.Network.Network(first(spec.Network, environment.DefaultNetwork))
	if err != nil {
		return err
	}
	if n.Isolated && len(spec.Ports) > 0 {
		return fault.Invalidf("the network %q is isolated, so nothing on it can be published", n.Name).At("ports").Help("use another network, or no ports")
	}
	for i, p := range spec.Ports {
		if ip, err := netip.ParseAddr(p.HostIP); err == nil && ip.Is6() && !ip.Is4In6() && n.IPv6 == "" {
			return fault.Invalidf("the network %q has no IPv6, so nothing on it can be published on %s", n.Name, p.HostIP).At("ports[" + itoa(i) + "].host_ip").Help("use an IPv4 address of this host, or none for all of them")
		}
	}
	return nil
}

// create does the work, with the template held.
func (e *Engine) create(ctx context.Context, spec api.Spec, t api.Template) (_ *entry, err error) {
	choice, err := e.choose(ctx, spec, t)
	if err != nil {
		return nil, err
	}
	if choice.Stratum != stratum.Zone && spec.Foreign == nil { // made once; not by a start, which has little time and whose client speaks to the program
		if _, _, err := e.whole(ctx, t.ID, spec.Template); err != nil {
			return nil, err
		}
	}
	var back undo.Stack
	defer back.Unless(ctx, &err)
	en, err := e.reserve(spec)
	if err != nil {
		return nil, err
	}
	back.Push("free the name", func(context.Context) error { e.forget(en); return nil })
	rec := en.snapshot()
	if rec.Resolved, err = environment.Resolve(spec, rec.Name, t); err != nil {
		return nil, err
	}
	rec.TemplateID, rec.Stratum, rec.Reason, rec.Choice = t.ID, choice.Stratum, choice.Reason, &choice
	if choice.Unmet != nil {
		rec.Notes = append(rec.Notes, forcedNote(choice))
	}
	rec.Phase = environment.PhaseCreated
	if network := rec.Resolved.Network; network != environment.NoNetwork {
		if rec.Address, err = e.o.Network.Allocate(ctx, network, rec.ID, rec.Name); err != nil {
			return nil, err
		}
		back.Push("give the address back", func(ctx context.Context) error { return e.o.Network.Release(ctx, rec.ID) })
	}
	if err := e.published(spec); err != nil {
		return nil, err
	}
	if err := e.store.Make(rec.ID); err != nil {
		return nil, err
	}
	back.Push("remove the folder", func(context.Context) error { return e.discard(rec.ID) })
	if err := e.makeDisk(ctx, &rec); err != nil {
		return nil, err
	}
	// The last step: with the record the environment exists.
	if err := e.store.Write(rec, care(rec, store.Lasting)); err != nil {
		return nil, err
	}
	en.do(func() { en.rec, en.hidden = rec, false })
	e.goes(e.prepareSoon)
	return en, nil
}

// breath is how long what is made ahead for later stands back behind the start
// that most creates are followed by, which takes about 25 ms.
const breath = 50 * time.Millisecond

// prepareSoon is prepare, put off as long as there are folders.
func (e *Engine) prepareSoon() {
	if e.store.Prepared() {
		select {
		case <-time.After(breath):
		case <-e.life.Done():
			return
		}
	}
	e.prepare()
}

// prepare makes folders ahead for the next creates.
func (e *Engine) prepare() {
	if err := e.store.Prepare(); err != nil {
		e.log.Debug("no spare folder made", "error", err)
	}
}

// care is what a write of rec outlives: an environment that goes when it ends
// needs no more than to outlive the daemon. See docs/adr/0002-durability.md.
func care(rec environment.Record, wanted store.Care) store.Care {
	if rec.Spec.AutoRemove {
		return store.Fleeting
	}
	return wanted
}

// reserve takes a name, an id and an id range for a new environment, which nobody
// sees yet. It holds the engine's lock over nothing slow. Kinds: Conflict, Busy.
func (e *Engine) reserve(spec api.Spec) (*entry, error) {
	base, err := e.ranges.take()
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name := spec.Name
	if name == "" {
		name = environment.MakeName(func(n string) bool { return e.names[n] != nil })
	}
	if other := e.names[name]; other != nil {
		e.ranges.give(base)
		return nil, other.taken(name)
	}
	id := environment.NewID()
	for e.ids[id] != nil {
		id = environment.NewID()
	}
	en := newEntry(environment.Record{ID: id, Name: name, Spec: spec, IDBase: base, Created: time.Now()}, environment.Made)
	en.hidden = true
	e.names[name], e.ids[id] = en, en
	return en, nil
}

// forget takes an environment out of memory, and gives its id range back.
func (e *Engine) forget(en *entry) {
	e.unlist(en)
	e.ranges.give(en.snapshot().IDBase)
}

// unlist makes an environment's name free and itself unknown.
func (e *Engine) unlist(en *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, other := range e.names { // two while it is being renamed
		if other == en {
			delete(e.names, name)
		}
	}
	delete(e.ids, en.id())
	e.ports.give(en.id())
}
