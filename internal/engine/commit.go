package engine

import (
	"context"
	"io"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
)

// keptPlaces are those in an environment's root that a template made of it has from the
// template below: strata mounts or writes there, for each environment its own.
var keptPlaces = []string{"/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"}

// Commit makes a template of an environment that stands still: the layers of its own and one of
// what it has changed, with the command and the other defaults that it was made with. Its
// volumes are not in it. Kinds: Missing, Invalid, Conflict (it runs), Unable for a foreign
// system, Busy.
func (e *Engine) Commit(ctx context.Context, ref, name string) (api.Template, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Template{}, err
	}
	rec := en.snapshot()
	if rec.Spec.Foreign != nil {
		return api.Template{}, fault.Unablef("environment %s is a foreign system, of which no template can be made", rec.Name).Help("clone it: strata clone %s", rec.Name)
	}
	if err := en.standsStill("committed"); err != nil {
		return api.Template{}, err
	}
	like, err := e.o.Templates.Get(rec.TemplateID)
	if err != nil {
		return api.Template{}, fault.Wrap(err, "find the template of %s", rec.Name)
	}
	like.Config, like.Kind = environment.Defaults(rec.Spec, like.Config), rec.Resolved.Kind
	t, err := e.bring(ctx, "commit", func(m TemplateMoves) (api.Template, error) {
		root := func(ctx context.Context, w io.Writer) error {
			if err := en.standsStill("committed"); err != nil { // it was started while others' layers were made
				return err
			}
			return e.CopyOut(ctx, rec.ID, "/", w)
		}
		return m.Commit(ctx, rec.TemplateID, root, like, name, keptPlaces, e.progress(ctx))
	})
	return t, fault.Wrap(err, "make a template of %s", rec.Name)
}
