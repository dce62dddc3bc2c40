package servertest

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Templates implements server.Templates.
func (e *Engine) Templates(context.Context) ([]api.Template, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []api.Template
	for _, name := range slices.Sorted(maps.Keys(e.templates)) {
		all = append(all, e.templates[name])
	}
	return all, nil
}

// Template implements server.Templates.
func (e *Engine) Template(_ context.Context, ref string) (api.Template, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.templates[strings.TrimSuffix(ref, ":latest")]; ok {
		return t, nil
	}
	return api.Template{}, fault.Missingf("there is no template %q", ref).At("template")
}

func (e *Engine) add(name, source string) api.Template {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.templates["busybox"]
	t.Names, t.Source, t.ID = []string{name}, source, "sha256:"+strings.Repeat("c", 64)
	e.templates[name] = t
	return t
}

// BuildTemplate implements server.Templates.
func (e *Engine) BuildTemplate(_ context.Context, r api.BuildRequest) (api.Template, error) {
	name := r.Name
	if name == "" {
		name = r.Base
	}
	return e.add(name, "built of "+strings.Join(append([]string{r.Base, r.Variant}, r.Packages...), " ")), nil
}

// TagTemplate implements server.Templates.
func (e *Engine) TagTemplate(ctx context.Context, ref, name string) error {
	t, err := e.Template(ctx, ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.templates[name] = t
	return nil
}

// RemoveTemplate implements server.Templates.
func (e *Engine) RemoveTemplate(ctx context.Context, ref string, _ bool) (api.Freed, error) {
	t, err := e.Template(ctx, ref)
	if err != nil {
		return api.Freed{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.rows {
		if r.env.Template == ref {
			return api.Freed{}, fault.Conflictf("template %s is used by %s", ref, r.env.Name).Help("remove that first")
		}
	}
	delete(e.templates, ref)
	return api.Freed{Removed: []string{t.ID}, Bytes: t.Size}, nil
}

// PruneTemplates implements server.Templates.
func (e *Engine) PruneTemplates(context.Context, bool) (api.Freed, error) {
	return api.Freed{Removed: []string{"sha256:unused"}, Bytes: 3 << 20}, nil
}

// PullTemplate implements server.TemplateMoves; it tells its progress.
func (e *Engine) PullTemplate(_ context.Context, r api.PullRequest) (api.Template, error) {
	if strings.Contains(r.Ref, "unreachable") {
		return api.Template{}, fault.Busyf("the registry of %s cannot be reached", r.Ref)
	}
	e.Publish(api.Event{Type: "progress", Action: "download", Progress: &api.Progress{Step: "download", Item: "layer", Done: 1, Total: 1024}})
	source := "pulled"
	if r.Auth != nil {
		source += " as " + r.Auth.Username
	}
	return e.add(r.Ref, source), nil
}

// ImportTemplate implements server.TemplateMoves; the source names the entries of the tar.
func (e *Engine) ImportTemplate(_ context.Context, name string, r io.Reader) (api.Template, error) {
	var names []string
	for in := tar.NewReader(r); ; {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return api.Template{}, fault.Invalidf("this is no archive: %w", err)
		}
		names = append(names, string(head.Typeflag)+head.Name)
	}
	if name == "" {
		name = "imported"
	}
	return e.add(name, strings.Join(names, " ")), nil
}

// Commit implements server.TemplateMoves; it tells its progress.
func (e *Engine) Commit(_ context.Context, ref, name string) (api.Template, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Template{}, err
	}
	if r.env.State == "running" {
		return api.Template{}, fault.Conflictf("environment %s is running, and only what stands still can be committed", ref).Help("stop it first: strata stop %s", ref)
	}
	e.Publish(api.Event{Type: "progress", Action: "commit", Progress: &api.Progress{Step: "commit", Item: name, Done: 1024}})
	return e.add(name, "made of "+ref), nil
}

// ExportTemplate implements server.TemplateMoves; one called broken breaks off.
func (e *Engine) ExportTemplate(ctx context.Context, ref string, w io.Writer) error {
	t, err := e.Template(ctx, ref)
	if err != nil {
		return err
	}
	if ref == "broken" {
		return e.breakOff(w)
	}
	_, err = io.WriteString(w, "tar of "+t.ID+"\n")
	return err
}

// PushTemplate implements server.TemplateMoves.
func (e *Engine) PushTemplate(ctx context.Context, ref string, _ api.PushRequest) error {
	_, err := e.Template(ctx, ref)
	return err
}

// Networks implements server.Networks.
func (e *Engine) Networks(context.Context) ([]api.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []api.Network
	for _, name := range slices.Sorted(maps.Keys(e.networks)) {
		all = append(all, e.networks[name])
	}
	return all, nil
}

// Network implements server.Networks.
func (e *Engine) Network(_ context.Context, name string) (api.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, ok := e.networks[name]; ok {
		return n, nil
	}
	return api.Network{}, fault.Missingf("there is no network %q", name)
}

// CreateNetwork implements server.Networks.
func (e *Engine) CreateNetwork(_ context.Context, n api.Network) (api.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.networks[n.Name]; ok {
		return n, fault.Conflictf("the network %q is there already", n.Name).At("name")
	}
	e.networks[n.Name] = n
	return n, nil
}

// RemoveNetwork implements server.Networks.
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	if _, err := e.Network(ctx, name); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.networks, name)
	return nil
}
