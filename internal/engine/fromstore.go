package engine

import (
	"context"
	"io"
	"maps"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/template"
	"github.com/strata-project/strata/internal/unit"
)

// FromStore makes Templates of a store.
func FromStore(s *template.Store) Templates { return stored{s} }

// stored is a store in the words of the wire.
type stored struct{ s *template.Store }

var _ TemplateMoves = stored{}

func (t stored) Use(ref string, do func(api.Template) error) error {
	return t.s.Use(ref, func(one template.Template) error { return do(wireTemplate(one)) })
}

func (t stored) Get(ref string) (api.Template, error) { return wired(t.s.Get(ref)) }

func (t stored) List() []api.Template {
	list := t.s.List()
	all := make([]api.Template, 0, len(list))
	for _, one := range list {
		all = append(all, wireTemplate(one))
	}
	return all
}

func (t stored) LayerPath(digest string) string { return t.s.LayerPath(template.Layer{Digest: digest}) }

func (t stored) Whole(ctx context.Context, ref string, tell func(api.Progress)) (digest, path string, err error) {
	return t.s.Whole(ctx, ref, report(tell))
}

func (t stored) Busybox(ctx context.Context) (api.Template, error) { return wired(t.s.Busybox(ctx)) }

func (t stored) Tag(ref, name string) error { return t.s.Tag(ref, name) }

func (t stored) Remove(ref string, all bool, used func(string) []string) (int64, error) {
	return t.s.Remove(ref, all, used)
}

func (t stored) Prune(used func(string) []string, all bool) ([]string, int64, error) {
	return t.s.Prune(used, all)
}

func (t stored) Pull(ctx context.Context, r api.PullRequest, tell func(api.Progress)) (api.Template, error) {
	opt := template.PullOptions{Platform: r.Platform, Insecure: r.Insecure, Keychain: keychain(r.Auth)}
	return wired(t.s.Pull(ctx, r.Ref, opt, report(tell)))
}

func (t stored) Import(ctx context.Context, name string, tar io.Reader, tell func(api.Progress)) (api.Template, error) {
	return wired(t.s.Import(ctx, tar, template.ImportOptions{Name: name}, report(tell)))
}

func (t stored) Commit(ctx context.Context, base string, root func(context.Context, io.Writer) error, like api.Template, name string, without []string, tell func(api.Progress)) (api.Template, error) {
	o := template.CommitOptions{Name: name, Config: storedConfig(like), Without: without}
	return wired(t.s.Commit(ctx, base, root, o, report(tell)))
}

func (t stored) Build(ctx context.Context, r api.BuildRequest, tell func(api.Progress)) (api.Template, error) {
	opt := template.BuildOptions{Base: r.Base, Variant: r.Variant, Packages: r.Packages, Name: r.Name, Mirror: r.Mirror}
	return wired(t.s.Build(ctx, opt, report(tell)))
}

func (t stored) Export(ctx context.Context, ref string, w io.Writer, tell func(api.Progress)) error {
	return t.s.Export(ctx, ref, w, report(tell))
}

func (t stored) Push(ctx context.Context, ref string, r api.PushRequest, tell func(api.Progress)) error {
	return t.s.Push(ctx, ref, r.Target, template.PushOptions{Insecure: r.Insecure, Keychain: keychain(r.Auth)}, report(tell))
}

func report(tell func(api.Progress)) template.Report {
	return func(p template.Progress) {
		tell(api.Progress{Step: p.Step, Item: p.Item, Done: p.Done, Total: p.Total})
	}
}

func wired(t template.Template, err error) (api.Template, error) {
	if err != nil {
		return api.Template{}, err
	}
	return wireTemplate(t), nil
}

func wireTemplate(t template.Template) api.Template {
	w := api.Template{
		ID: t.ID, Names: t.Names, Created: t.Created, Size: t.Size, OS: t.OS, Arch: t.Arch, Source: t.Source,
		Kind: environment.App,
		Config: api.TemplateConfig{
			Entrypoint: t.Config.Entrypoint, Command: t.Config.Cmd, Env: t.Config.Env, WorkDir: t.Config.WorkingDir,
			User: t.Config.User, StopSignal: t.Config.StopSignal, Ports: t.Config.ExposedPorts,
			Volumes: t.Config.Volumes, Labels: t.Config.Labels,
		},
	}
	if w.Names == nil {
		w.Names = []string{}
	}
	if t.Config.System {
		w.Kind = environment.System
	}
	if h := t.Config.Health; h != nil {
		w.Config.Health = &api.Health{
			Test: h.Test, Interval: unit.Duration(h.Interval), Timeout: unit.Duration(h.Timeout),
			StartPeriod: unit.Duration(h.StartPeriod), Retries: h.Retries,
		}
	}
	for _, l := range t.Layers {
		w.Layers = append(w.Layers, api.Layer{DiffID: l.DiffID, Digest: l.Digest, Size: l.Size})
	}
	return w
}

// storedConfig is wireTemplate's inverse, of what an environment takes from it.
func storedConfig(t api.Template) template.Config {
	c := template.Config{
		Entrypoint: t.Config.Entrypoint, Cmd: t.Config.Command, Env: t.Config.Env, WorkingDir: t.Config.WorkDir,
		User: t.Config.User, StopSignal: t.Config.StopSignal, ExposedPorts: t.Config.Ports,
		Volumes: t.Config.Volumes, Labels: maps.Clone(t.Config.Labels), System: t.Kind == environment.System,
	}
	if h := t.Config.Health; h != nil {
		c.Health = &template.Health{
			Test: h.Test, Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
			StartPeriod: time.Duration(h.StartPeriod), Retries: h.Retries,
		}
	}
	return c
}

// keychain answers with one set of credentials whatever the registry; nil where
// the caller gave none.
func keychain(a *api.Auth) authn.Keychain {
	if a == nil {
		return nil
	}
	return template.Login{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}
