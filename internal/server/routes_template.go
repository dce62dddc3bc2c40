package server

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

// TemplateRef names one template.
type TemplateRef struct {
	Ref string `path:"ref" maxLength:"512" doc:"Name or id; a slash in it is written %2F."`
}

func (s *Server) templateRoutes() {
	huma.Register(s.api, route("template-list", http.MethodGet, "/v1/templates", "List templates"),
		func(ctx context.Context, _ *struct{}) (*body[[]api.Template], error) {
			found, err := s.engine.Templates(ctx)
			return &body[[]api.Template]{nonNil(found)}, err
		})
	huma.Register(s.api, route("template-show", http.MethodGet, "/v1/templates/{ref}", "Show a template"),
		func(ctx context.Context, in *TemplateRef) (*body[api.Template], error) {
			t, err := s.engine.Template(ctx, in.Ref)
			return &body[api.Template]{t}, err
		})
	huma.Register(s.api, route("template-tag", http.MethodPost, "/v1/templates/{ref}/tag", "Give a template a further name"),
		func(ctx context.Context, in *struct {
			TemplateRef
			Body api.TagRequest
		}) (*none, error) {
			return nil, s.engine.TagTemplate(ctx, in.Ref, in.Body.Name)
		})
	huma.Register(s.api, route("template-remove", http.MethodDelete, "/v1/templates/{ref}", "Remove a template, or one of its names"),
		func(ctx context.Context, in *struct {
			TemplateRef
			Force bool `query:"force" doc:"Remove all of its names; never what an environment uses."`
		}) (*body[api.Freed], error) {
			freed, err := s.engine.RemoveTemplate(ctx, in.Ref, in.Force)
			return &body[api.Freed]{freed}, err
		})
	huma.Register(s.api, route("template-prune", http.MethodPost, "/v1/templates/prune", "Remove templates without a name"),
		func(ctx context.Context, in *struct {
			All bool `query:"all" doc:"Also those with a name that no environment uses."`
		}) (*body[api.Freed], error) {
			freed, err := s.engine.PruneTemplates(ctx, in.All)
			return &body[api.Freed]{freed}, err
		})
	s.templateMoveRoutes()
}

func (s *Server) templateMoveRoutes() {
	huma.Register(s.api, route("template-pull", http.MethodPost, "/v1/templates/pull", "Fetch a template from a registry"),
		func(ctx context.Context, in *struct{ Body api.PullRequest }) (*body[api.Template], error) {
			t, err := s.engine.PullTemplate(ctx, in.Body)
			return &body[api.Template]{t}, err
		})
	huma.Register(s.api, route("template-build", http.MethodPost, "/v1/templates/build", "Make a template of a distribution's packages"),
		func(ctx context.Context, in *struct{ Body api.BuildRequest }) (*body[api.Template], error) {
			t, err := s.engine.BuildTemplate(ctx, in.Body)
			return &body[api.Template]{t}, err
		})
	huma.Register(s.api, route("template-push", http.MethodPost, "/v1/templates/{ref}/push", "Send a template to a registry"),
		func(ctx context.Context, in *struct {
			TemplateRef
			Body api.PushRequest
		}) (*none, error) {
			return nil, s.engine.PushTemplate(ctx, in.Ref, in.Body)
		})
	export := route("template-export", http.MethodGet, "/v1/templates/{ref}/export", "Read a template as an OCI layout in a tar")
	export.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: binary(tarType)}}
	huma.Register(s.api, export, func(_ context.Context, in *TemplateRef) (*huma.StreamResponse, error) {
		return s.download(func(ctx context.Context, w io.Writer) error { return s.engine.ExportTemplate(ctx, in.Ref, w) }), nil
	})
	imp := route("template-import", http.MethodPost, "/v1/templates/import", "Make a template of a tar: an OCI layout, a docker archive or a root file system")
	imp.RequestBody = &huma.RequestBody{Required: true, Content: binary(tarType)}
	huma.Register(s.api, imp, func(ctx context.Context, in *struct {
		Upload
		Name string `query:"name" maxLength:"512" doc:"Name of the template. Default: the one in the archive."`
	}) (*body[api.Template], error) {
		t, err := s.engine.ImportTemplate(ctx, in.Name, in.content)
		return &body[api.Template]{t}, err
	})
}
