package engine

import (
	"context"
	"io"
	"slices"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Templates returns every template, with the environments made of each.
func (e *Engine) Templates(context.Context) ([]api.Template, error) {
	all := e.o.Templates.List()
	for i := range all {
		all[i].UsedBy = e.usedBy(all[i].ID)
	}
	return all, nil
}

// Template returns one template. Kinds: Missing, Invalid.
func (e *Engine) Template(ctx context.Context, ref string) (api.Template, error) {
	t, err := e.o.Templates.Get(ref)
	if fault.Is(err, fault.Missing) && builtIn(ref) {
		t, err = e.o.Templates.Busybox(ctx)
	}
	if err != nil {
		return t, err
	}
	t.UsedBy = e.usedBy(t.ID)
	return t, nil
}

// moves returns what brings templates in and out. Kinds: Unable.
func (e *Engine) moves() (TemplateMoves, error) {
	if m, ok := e.o.Templates.(TemplateMoves); ok {
		return m, nil
	}
	return nil, fault.Unablef("this strata can bring no templates in or out")
}

// PullTemplate brings a template from a registry. Progress goes to ctx's
// operation. Kinds: Invalid, Missing, Denied, Busy.
func (e *Engine) PullTemplate(ctx context.Context, r api.PullRequest) (api.Template, error) {
	return e.bring(ctx, "pull", func(m TemplateMoves) (api.Template, error) { return m.Pull(ctx, r, e.progress(ctx)) })
}

// ImportTemplate makes a template of an OCI layout, a docker archive or a root
// file system, each as a tar stream. Kinds: Invalid, Busy.
func (e *Engine) ImportTemplate(ctx context.Context, name string, tar io.Reader) (api.Template, error) {
	return e.bring(ctx, "import", func(m TemplateMoves) (api.Template, error) { return m.Import(ctx, name, tar, e.progress(ctx)) })
}

// BuildTemplate makes a template of a distribution's packages. Kinds: Invalid,
// Unable, Busy.
func (e *Engine) BuildTemplate(ctx context.Context, r api.BuildRequest) (api.Template, error) {
	return e.bring(ctx, "build", func(m TemplateMoves) (api.Template, error) { return m.Build(ctx, r, e.progress(ctx)) })
}

func (e *Engine) bring(ctx context.Context, action string, do func(TemplateMoves) (api.Template, error)) (api.Template, error) {
	m, err := e.moves()
	if err != nil {
		return api.Template{}, err
	}
	t, err := do(m)
	if err != nil {
		return api.Template{}, err
	}
	e.tellTemplate(ctx, action, t)
	return t, nil
}

func (e *Engine) tellTemplate(ctx context.Context, action string, t api.Template) {
	name := t.ID
	if len(t.Names) > 0 {
		name = t.Names[0]
	}
	e.hub.publish(api.Event{Type: typeTemplate, Action: action, ID: t.ID, Name: name, Operation: operation(ctx)})
}

// TagTemplate gives a template a further name. Kinds: Missing, Invalid.
func (e *Engine) TagTemplate(ctx context.Context, ref, name string) error {
	if _, err := e.Template(ctx, ref); err != nil {
		return err
	}
	if err := e.o.Templates.Tag(ref, name); err != nil {
		return err
	}
	e.hub.publish(api.Event{Type: typeTemplate, Action: "tag", Name: name, Operation: operation(ctx)})
	return nil
}

// RemoveTemplate removes a template, or only the name ref where it has others.
// With force, all its names go. Kinds: Missing, Conflict while environments are
// made of it, forced or not.
func (e *Engine) RemoveTemplate(ctx context.Context, ref string, force bool) (api.Freed, error) {
	t, err := e.o.Templates.Get(ref)
	if fault.Is(err, fault.Unable) {
		t, err = api.Template{Names: []string{ref}}, nil // damaged: it can still be removed
	}
	if err != nil {
		return api.Freed{}, err
	}
	if force && t.ID != "" {
		ref = t.ID
	}
	freed, err := e.o.Templates.Remove(ref, force, e.usedBy)
	if err != nil {
		return api.Freed{}, err
	}
	e.dropLayers()
	if now, err := e.o.Templates.Get(t.ID); err == nil { // one name of several: it is the one that is told
		t.Names = slices.DeleteFunc(t.Names, func(name string) bool { return slices.Contains(now.Names, name) })
	}
	e.tellTemplate(ctx, "remove", t)
	return api.Freed{Removed: []string{ref}, Bytes: freed}, nil
}

// PruneTemplates removes templates that have no name, and with all every one that
// no environment is made of.
func (e *Engine) PruneTemplates(ctx context.Context, all bool) (api.Freed, error) {
	removed, freed, err := e.o.Templates.Prune(e.usedBy, all)
	e.dropLayers()
	for _, name := range removed {
		e.hub.publish(api.Event{Type: typeTemplate, Action: "remove", Name: name, Operation: operation(ctx)})
	}
	if removed == nil {
		removed = []string{}
	}
	return api.Freed{Removed: removed, Bytes: freed}, err
}

// dropLayers unmounts layers that no template has any more. What runs keeps them.
func (e *Engine) dropLayers() {
	if e.o.Layers == nil {
		return
	}
	templates := e.o.Templates.List()
	for _, digest := range e.o.Layers.Mounted() {
		if slices.ContainsFunc(templates, func(t api.Template) bool {
			return slices.ContainsFunc(t.Layers, func(l api.Layer) bool { return l.Digest == digest })
		}) {
			continue
		}
		if err := e.o.Layers.Drop(digest); err != nil {
			e.log.Warn("layer not unmounted", "digest", digest, "error", err)
		}
	}
}

// ExportTemplate writes a template to w as an OCI layout in a tar stream.
// Kinds: Missing.
func (e *Engine) ExportTemplate(ctx context.Context, ref string, w io.Writer) error {
	m, err := e.moves()
	if err != nil {
		return err
	}
	if _, err := e.Template(ctx, ref); err != nil { // also makes one that is built in
		return err
	}
	return m.Export(ctx, ref, w, e.progress(ctx))
}

// PushTemplate sends a template to a registry. Kinds: Missing, Denied, Busy.
func (e *Engine) PushTemplate(ctx context.Context, ref string, r api.PushRequest) error {
	m, err := e.moves()
	if err != nil {
		return err
	}
	if _, err := e.Template(ctx, ref); err != nil {
		return err
	}
	if err := m.Push(ctx, ref, r, e.progress(ctx)); err != nil {
		return err
	}
	e.hub.publish(api.Event{Type: typeTemplate, Action: "push", Name: ref, Operation: operation(ctx)})
	return nil
}
