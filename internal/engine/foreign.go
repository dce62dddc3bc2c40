package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// foreignDisk is the file of a foreign system's disk in an environment's folder.
const foreignDisk = "disk.qcow2"

// diskOf is the file of an environment's disk.
func (e *Engine) diskOf(rec environment.Record) string {
	name := diskName
	if rec.Spec.Foreign != nil {
		name = foreignDisk
	}
	return filepath.Join(e.store.Dir(rec.ID), name)
}

// makeDisk makes the environment's disk: of a foreign system the driver does, by what is
// noted in rec then.
func (e *Engine) makeDisk(ctx context.Context, rec *environment.Record) error {
	if rec.Spec.Foreign == nil {
		return e.o.Pool.Create(ctx, e.diskOf(*rec), rec.Spec.Resources.Disk)
	}
	host, ok := e.drivers[rec.Stratum].(stratum.Hoster)
	if !ok {
		return fault.Unablef("stratum %s of this strata runs no foreign systems", rec.Stratum).At("foreign")
	}
	if err := e.notAttached(rec.Spec.Foreign.DiskImage); err != nil {
		return err
	}
	tell := e.progress(ctx)
	item := filepath.Base(rec.Spec.Foreign.DiskImage)
	format, err := host.MakeDisk(ctx, e.planForeign(*rec), func(done, total int64) {
		tell(api.Progress{Step: "import", Item: item, Done: done, Total: total})
	})
	rec.Resolved.Format = format
	return err
}

// planForeign is all that a run of a foreign system needs. It is pure.
func (e *Engine) planForeign(rec environment.Record) stratum.Plan {
	p := buildPlan(rec, false, e.store.Dir(rec.ID))
	p.System, p.Main, p.Files, p.Disk = true, stratum.Process{}, nil, e.diskOf(rec)
	asked := rec.Spec.Foreign
	f := &stratum.Foreign{
		OS: asked.OS, Image: asked.DiskImage, Format: first(rec.Resolved.Format, asked.Format), Import: asked.Import,
		Bases: e.bases(rec), ISO: asked.ISO, Boot: asked.Boot, Network: rec.Resolved.Network != environment.NoNetwork,
		NoAgent: asked.NoGuestAgent,
	}
	f.Disk, f.Blank = environment.ForeignDisk(rec.Spec)
	if rec.Started.IsZero() {
		f.BootOnce = asked.BootOnce
	}
	p.Foreign, p.Hardware = f, asked.Hardware
	return p
}

// foreignUndo is what a run writes of which nothing is kept.
const foreignUndo = "undo.qcow2"

// undoForeign has a run write to an empty image that lies over the disk, which is only read.
func (e *Engine) undoForeign(ctx context.Context, rec environment.Record, p *stratum.Plan) error {
	host, ok := e.drivers[rec.Stratum].(stratum.Hoster)
	if !p.Foreign.Disk || !ok {
		return nil // there is nothing that could be written to
	}
	size, err := host.DiskSize(p.Disk)
	if err != nil {
		return err
	}
	path := e.undoPath(rec)
	if err := host.EmptyDisk(ctx, *p, path, size); err != nil {
		return fault.Wrap(err, "make the disk whose changes are to be forgotten")
	}
	p.Foreign.Bases = append([]string{p.Disk}, p.Foreign.Bases...)
	p.Disk = path
	return nil
}

// hasAgent refuses what takes something of strata's inside. Kinds: Unable.
func (en *entry) hasAgent(lacks string) error {
	rec := en.snapshot()
	if rec.Spec.Foreign == nil {
		return nil
	}
	return fault.Unablef("%s is a foreign system, which %s: nothing of strata's is inside", rec.Name, lacks).
		Help("install strata's agent in a Linux: strata agent install %s; or use its screen (strata screen, type, vnc), its serial line (strata console) or its network; a template run with --stratum machine has strata's agent inside", rec.Name)
}

// planAlone writes down what a foreign system would have.
func (e *Engine) planAlone(ctx context.Context, spec api.Spec, c api.Choice) (api.Plan, error) {
	r, err := environment.Resolve(spec, first(spec.Name, "made-up"), api.Template{})
	if err != nil {
		return api.Plan{}, err
	}
	if err := imagesAreThere(*spec.Foreign); err != nil {
		return api.Plan{}, err
	}
	p := api.Plan{Choice: c, Kind: r.Kind, Network: r.Network, Memory: "what is usual for its kind", CPUs: "what is usual for its kind", PIDs: "not known", Disk: "none"}
	planLimits(&p, spec.Resources)
	if c.Unmet != nil {
		p.Notes = append(p.Notes, "stratum "+c.Stratum+" is forced: it does not serve what was asked for")
	}
	p.Kernel, p.Starts = "its own", []string{"strata-keeper", "QEMU"}
	rec := environment.Record{Name: first(spec.Name, "made-up"), Spec: spec, Stratum: c.Stratum, Resolved: r}
	if d, ok := e.drivers[c.Stratum].(stratum.Hoster); ok {
		p.Devices, err = d.Hardware(ctx, e.planForeign(rec))
	}
	f := spec.Foreign
	if f.DiskImage != "" {
		p.Disk = "what changes over " + f.DiskImage
		if f.Import {
			p.Disk = "a copy of " + f.DiskImage
		}
	}
	if f.ISO != "" {
		p.Mounts = append(p.Mounts, "CD drive: "+f.ISO)
	}
	return p, err
}

// imagesAreThere refuses what create would refuse later with more said of it. Kinds: Missing.
func imagesAreThere(f api.Foreign) error {
	var bad []error
	for _, of := range [][2]string{{f.DiskImage, "foreign.disk_image"}, {f.ISO, "foreign.iso"}} {
		if _, err := os.Stat(of[0]); of[0] != "" && errors.Is(err, os.ErrNotExist) {
			bad = append(bad, fault.Missingf("there is no image %s", of[0]).At(of[1]))
		}
	}
	return fault.Join(bad...)
}

// Leaser is a network that tells systems their addresses by DHCP. A Network may implement it.
type Leaser interface {
	// Lease does so for one that is connected by a tap, until it is disconnected.
	Lease(id string) error
}

func lease(n Network, id string) error {
	if l, ok := n.(Leaser); ok {
		return l.Lease(id)
	}
	return nil
}

// leaseAgain has adopted systems told the addresses that they ask for.
func (e *Engine) leaseAgain() {
	for _, en := range e.entries() {
		en.mu.Lock()
		var wants []environment.Link
		if en.run != nil {
			wants = en.rec.Links()
			if en.rec.Spec.Foreign == nil { // its own card is its agent's to set up
				wants = slices.DeleteFunc(wants, func(l environment.Link) bool { return l.Key == en.rec.ID })
			}
		}
		en.mu.Unlock()
		for _, l := range wants {
			if err := lease(e.o.Network, l.Key); err != nil {
				e.log.Warn("a system is not told its address any more", "id", en.id(), "error", err)
			}
		}
	}
}
