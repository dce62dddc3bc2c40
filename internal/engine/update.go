package engine

import (
	"context"
	"errors"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Update changes limits, guarantees, disk size, restart policy and labels. Where it runs
// they change at once, but for what its stratum has at the next start (package settings).
// Kinds: Missing, Invalid, Conflict, Full (it would break a guarantee), Unable (its
// stratum has no such limit, or cannot change it while it runs).
func (e *Engine) Update(ctx context.Context, ref string, u api.Update) (api.Environment, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Environment{}, err
	}
	if err := en.lock(ctx); err != nil {
		return api.Environment{}, err
	}
	err = e.finish(ctx, func(ctx context.Context) error {
		defer en.unlock()
		return e.update(ctx, en, u)
	})
	if err != nil {
		return api.Environment{}, err
	}
	return en.view(), nil
}

func (e *Engine) update(ctx context.Context, en *entry, u api.Update) error {
	before := en.snapshot()
	spec, err := environment.Change(before.Spec, u, bounds)
	if err != nil {
		return err
	}
	if err := settings.Refused(spec.Resources, before.Stratum); err != nil {
		return fault.Wrap(err, "update %s", before.Name)
	}
	after := before
	after.Spec = spec
	settle, err := e.changeClaim(en, before, after)
	if err != nil {
		return fault.Wrap(err, "update %s", before.Name)
	}
	done := false
	defer func() { settle(done) }()
	if err := e.apply(ctx, en, before.Spec.Resources, spec.Resources, u); err != nil {
		return fault.Wrap(err, "update %s", before.Name)
	}
	en.do(func() {
		before.Spec.Resources.Disk = en.rec.Spec.Resources.Disk // it may have grown
		en.rec.Spec = spec
	})
	if err := e.save(en); err != nil {
		en.do(func() { en.rec.Spec = before.Spec })
		back := e.apply(context.WithoutCancel(ctx), en, spec.Resources, before.Spec.Resources, api.Update{})
		return errors.Join(err, fault.Wrap(back, "set the former limits again"))
	}
	done = true
	e.tell(ctx, en, "update")
	return nil
}

// apply changes what is on the host.
func (e *Engine) apply(ctx context.Context, en *entry, old, now api.Resources, u api.Update) error {
	en.mu.Lock()
	r, state := en.run, en.state
	en.mu.Unlock()
	if r != nil {
		if err := settings.Waiting(old, now, en.snapshot().Stratum); err != nil {
			return err
		}
	}
	if u.Disk != nil && now.Disk != old.Disk {
		if err := e.growDisk(ctx, en, r, state, now.Disk); err != nil {
			return err
		}
		// That is so whatever becomes of the rest.
		en.do(func() { en.rec.Spec.Resources.Disk = now.Disk })
		if err := e.save(en); err != nil {
			return err
		}
		old.Disk = now.Disk // of which limits need not be told
	}
	if r == nil || !settings.Changed(old, now, en.snapshot().Stratum) {
		return nil
	}
	settle, err := e.changeRate(en, old, now)
	if err != nil {
		return err
	}
	return settle(e.setLimits(ctx, en, r, now))
}

// growDisk makes the private disk larger, r being the run that has it; nil: none does.
func (e *Engine) growDisk(ctx context.Context, en *entry, r *run, state environment.State, size unit.Size) error {
	if size == 0 {
		return fault.Invalidf("a disk cannot be without a size").At("disk")
	}
	if en.snapshot().Spec.Foreign != nil {
		return fault.Unablef("the disk of a foreign system keeps its size").At("disk").Help("make it anew with a larger --disk, and let its own tools grow the file system")
	}
	image := e.diskOf(en.snapshot())
	if r == nil {
		if state.Active() && state != environment.Waiting || state == environment.Suspended {
			help := "stop it first"
			if state == environment.Suspended { // its system would go on with what it knows of the disk
				help = "resume it first"
			}
			return fault.Conflictf("the disk does not grow while the environment is %s", state).At("disk").Help("%s", help)
		}
		return e.o.Pool.Grow(ctx, image, size)
	}
	l, err := e.diskGrower(en, r)
	if err != nil {
		return err
	}
	// The file system grows on whatever becomes of who asked, so its size is to be noted;
	// who ends the environment does not wait for it.
	growing, done := en.untilGivenUp(e.life)
	defer done()
	err = l.GrowDisk(growing, image, size)
	if err != nil && e.life.Err() != nil {
		return fault.Busyf("the daemon ended before the disk had grown").At("disk").Help("ask the next one again")
	}
	if err != nil && growing.Err() != nil {
		err = fault.Conflictf("it was ended before its disk had grown").At("disk").Help("ask again")
	}
	return err
}

// diskGrower is what makes the disk of r larger. Kinds: Conflict, Unable.
func (e *Engine) diskGrower(en *entry, r *run) (stratum.DiskGrower, error) {
	if en.snapshot().Spec.UndoDisk {
		return nil, fault.Conflictf("what runs has a copy of the disk, which is forgotten at its end").At("disk").Help("stop it first")
	}
	d, err := e.driver(en)
	if err != nil {
		return nil, err
	}
	l, ok := r.live.(stratum.DiskGrower)
	if d.Capabilities()&stratum.CanGrowDisk == 0 || !ok {
		return nil, fault.Unablef("stratum %s cannot grow a disk while it runs", d.Stratum()).At("disk").Help("stop it first")
	}
	return l, nil
}

// setLimits has the driver change what runs.
func (e *Engine) setLimits(ctx context.Context, en *entry, r *run, now api.Resources) error {
	d, err := e.driver(en)
	if err != nil {
		return err
	}
	l, ok := r.live.(stratum.Limiter)
	if d.Capabilities()&stratum.CanLimit == 0 || !ok {
		return fault.Unablef("stratum %s cannot change limits while it runs", d.Stratum()).Help("stop it first")
	}
	return l.SetLimits(ctx, now)
}
