package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

// EnvironmentRef names one environment. What is embedded in an input must be exported for huma to see it.
type EnvironmentRef struct {
	Ref string `path:"ref" maxLength:"63" doc:"Name, id, or the unambiguous start of an id."`
}

type listQuery struct {
	All   bool     `query:"all" doc:"Also those that are stopped."`
	Label []string `query:"label,explode" maxItems:"64" doc:"Only with this label: NAME or NAME=VALUE; with all of several."`
	Name  []string `query:"name,explode" maxItems:"64" doc:"Only where the name contains this, or one of several."`
	Brief bool     `query:"brief" doc:"Leave out what a table of many does not show: the spec but for its ports, the command, the reason and notes."`
	State []string `query:"state,explode" maxItems:"16" enum:"created,starting,running,paused,stopping,stopped,suspended,removing" doc:"Only in this state, or one of several."`
}

func (s *Server) environmentRoutes() {
	list := route("list", http.MethodGet, "/v1/environments", "List environments")
	list.Responses = map[string]*huma.Response{"200": {
		Description: "OK",
		Content: map[string]*huma.MediaType{"application/json": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(typeOf[[]api.Environment](), true, "Environments"),
		}},
	}}
	huma.Register(s.api, list, s.list)
	create := route("create", http.MethodPost, "/v1/environments", "Make an environment")
	create.DefaultStatus = http.StatusCreated
	huma.Register(s.api, create, func(ctx context.Context, in *struct{ Body api.Spec }) (*body[api.Environment], error) {
		e, err := s.engine.Create(ctx, in.Body)
		return &body[api.Environment]{e}, err
	})
	huma.Register(s.api, route("show", http.MethodGet, "/v1/environments/{ref}", "Show an environment"),
		func(ctx context.Context, in *EnvironmentRef) (*body[api.Environment], error) {
			e, err := s.engine.Get(ctx, in.Ref)
			return &body[api.Environment]{e}, err
		})
	huma.Register(s.api, route("why", http.MethodGet, "/v1/environments/{ref}/why", "Say why an environment is at its stratum"),
		func(ctx context.Context, in *EnvironmentRef) (*body[api.Choice], error) {
			c, err := s.engine.Why(ctx, in.Ref)
			return &body[api.Choice]{c}, err
		})
	huma.Register(s.api, route("plan", http.MethodPost, "/v1/plan", "Say what making and starting an environment would do, and do nothing"),
		func(ctx context.Context, in *struct{ Body api.Spec }) (*body[api.Plan], error) {
			p, err := s.engine.Plan(ctx, in.Body)
			return &body[api.Plan]{p}, err
		})
	huma.Register(s.api, route("remove", http.MethodDelete, "/v1/environments/{ref}", "Remove an environment and its disk"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Force bool `query:"force" doc:"Stop it first where it runs."`
		}) (*none, error) {
			return nil, s.engine.Remove(ctx, in.Ref, in.Force)
		})
	huma.Register(s.api, route("update", http.MethodPatch, "/v1/environments/{ref}", "Change limits, labels or the restart policy"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Body api.Update
		}) (*body[api.Environment], error) {
			e, err := s.engine.Update(ctx, in.Ref, in.Body)
			return &body[api.Environment]{e}, err
		})
	clone := route("clone", http.MethodPost, "/v1/environments/{ref}/clone", "Make another environment with a copy of the disk of one that stands still")
	clone.DefaultStatus = http.StatusCreated
	huma.Register(s.api, clone, func(ctx context.Context, in *struct {
		EnvironmentRef
		Body api.Clone
	}) (*body[api.Environment], error) {
		e, err := s.engine.Clone(ctx, in.Ref, in.Body)
		return &body[api.Environment]{e}, err
	})
	huma.Register(s.api, route("commit", http.MethodPost, "/v1/environments/{ref}/commit", "Make a template of an environment that stands still"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Name string `query:"name" maxLength:"512" doc:"Name of the template. Default: none."`
		}) (*body[api.Template], error) {
			t, err := s.engine.Commit(ctx, in.Ref, in.Name)
			return &body[api.Template]{t}, err
		})
	huma.Register(s.api, route("rename", http.MethodPost, "/v1/environments/{ref}/rename", "Give an environment another name"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Name string `query:"name" required:"true" maxLength:"63" doc:"The new name."`
		}) (*none, error) {
			return nil, s.engine.Rename(ctx, in.Ref, in.Name)
		})
}

// list is asked often and answers with much: it is encoded straight away.
func (s *Server) list(ctx context.Context, in *listQuery) (*huma.StreamResponse, error) {
	f := engine.ListFilter{All: in.All, Names: in.Name}
	for _, l := range in.Label {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return nil, fault.Invalidf("%q names no label", l).At("label").Help("write NAME or NAME=VALUE")
		}
		f.Labels = append(f.Labels, engine.LabelFilter{Name: name, Value: value})
	}
	for _, st := range in.State {
		f.States = append(f.States, api.State(st))
	}
	found := nonNil(s.engine.List(ctx, f))
	if in.Brief {
		for i := range found {
			e := &found[i]
			e.Spec = api.Spec{Template: e.Spec.Template, Ports: e.Spec.Ports}
			e.Command, e.Reason, e.Notes = []string{}, "", nil
		}
	}
	var out bytes.Buffer
	encode := json.NewEncoder(&out)
	encode.SetEscapeHTML(false)
	if err := encode.Encode(found); err != nil {
		return nil, fault.Wrap(err, "encode the list")
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		_, w := humago.Unwrap(ctx)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
		_, _ = w.Write(out.Bytes())
	}}, nil
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// nonNil makes an empty list [] on the wire, not null.
func nonNil[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
