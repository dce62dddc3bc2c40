package engine

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
	"github.com/strata-project/strata/internal/stratum"
)

// Update changes limits, guarantees, disk size, restart policy and labels. Limits and
// guarantees change at once where it runs; the disk grows only while it does not.
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
	defer en.unlock()
	before := en.snapshot()
	spec, err := environment.Change(before.Spec, u, bounds)
	if err != nil {
		return api.Environment{}, err
	}
	if err := settings.Refused(spec.Resources, before.Stratum); err != nil {
		return api.Environment{}, fault.Wrap(err, "update %s", before.Name)
	}
	after := before
	after.Spec = spec
	settle, err := e.changeClaim(en, before, after)
	if err != nil {
		return api.Environment{}, fault.Wrap(err, "update %s", before.Name)
	}
	done := false
	defer func() { settle(done) }()
	if err := e.apply(ctx, en, before.Spec.Resources, spec.Resources, u); err != nil {
		return api.Environment{}, fault.Wrap(err, "update %s", before.Name)
	}
	en.do(func() { en.rec.Spec = spec })
	if err := e.save(en); err != nil {
		en.do(func() { en.rec.Spec = before.Spec })
		back := e.apply(context.WithoutCancel(ctx), en, spec.Resources, before.Spec.Resources, api.Update{})
		return api.Environment{}, errors.Join(err, fault.Wrap(back, "set the former limits again"))
	}
	done = true
	e.tell(ctx, en, "update")
	return en.view(), nil
}

// apply changes what is on the host.
func (e *Engine) apply(ctx context.Context, en *entry, old, now api.Resources, u api.Update) error {
	en.mu.Lock()
	r, state := en.run, en.state
	en.mu.Unlock()
	if u.Disk != nil && now.Disk != old.Disk {
		if state.Active() || state == environment.Suspended {
			return fault.Conflictf("the disk grows only while the environment is stopped, and it is %s", state).At("disk").Help("stop it first")
		}
		if now.Disk == 0 {
			return fault.Invalidf("a disk cannot be without a size").At("disk")
		}
		if before := en.snapshot(); before.Spec.Foreign != nil {
			return fault.Unablef("the disk of a foreign system keeps its size").At("disk").Help("make it anew with a larger --disk, and let its own tools grow the file system")
		}
		if err := e.o.Pool.Grow(ctx, filepath.Join(e.store.Dir(en.id()), diskName), now.Disk); err != nil {
			return err
		}
	}
	if r != nil {
		if err := settings.Waiting(old, now, en.snapshot().Stratum); err != nil {
			return err
		}
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
