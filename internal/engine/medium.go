package engine

import (
	"context"
	"os"

	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Insert puts the image of a CD into the drive of a foreign system, instead of what is in
// it, now and for later starts. Kinds: Missing, Invalid, Conflict (the system keeps the
// drive shut), Unable (it has no drive that could be opened).
func (e *Engine) Insert(ctx context.Context, ref, iso string) error {
	return e.change(ctx, ref, iso)
}

// Eject empties the CD drive of a foreign system, now and for later starts. Kinds: as Insert's.
func (e *Engine) Eject(ctx context.Context, ref string) error { return e.change(ctx, ref, "") }

func (e *Engine) change(ctx context.Context, ref, iso string) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := en.lock(ctx); err != nil {
		return err
	}
	defer en.unlock()
	before := en.snapshot()
	if before.Spec.Foreign == nil {
		return fault.Unablef("%s has no CD drive", before.Name).Help("a foreign system has one: strata run --disk-image or --iso")
	}
	after := before.Spec
	foreign := *after.Foreign
	foreign.ISO = iso
	after.Foreign = &foreign
	if err := environment.Validate(after, bounds); err != nil {
		return fault.Wrap(err, "change the CD of %s", before.Name)
	}
	en.mu.Lock()
	r, state := en.run, en.state
	en.mu.Unlock()
	switch info, err := os.Stat(iso); {
	case r != nil:
		if err := turn(ctx, r.live, iso); err != nil {
			return fault.Wrap(err, "change the CD of %s", before.Name)
		}
	case state.Active():
		return fault.Conflictf("environment %s is %s", before.Name, state).Help("try again")
	case iso != "" && (err != nil || !info.Mode().IsRegular()):
		return fault.Missingf("there is no file %s", iso).At("foreign.iso")
	}
	en.do(func() { en.rec.Spec = after })
	if err := e.save(en); err != nil {
		en.do(func() { en.rec.Spec = before.Spec })
		return err
	}
	if iso == "" {
		e.tell(ctx, en, "eject")
	} else {
		e.tell(ctx, en, "insert", "iso", iso)
	}
	return nil
}

// turn changes what is in the drive of a run.
func turn(ctx context.Context, live stratum.Live, iso string) error {
	c, ok := live.(stratum.Changer)
	switch {
	case !ok:
		return fault.Unablef("its drive cannot be opened while it runs").Help("stop it first")
	case iso == "":
		return c.Eject(ctx)
	}
	return c.Insert(ctx, iso)
}
