package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

// Chosen names environments of a list; none: all that run.
type Chosen struct {
	Name []string `query:"name,explode" maxItems:"1024" doc:"Only of these: names, ids, or the unambiguous starts of ids."`
}

func (s *Server) observeRoutes() {
	tasks := route("processes", http.MethodGet, "/v1/processes", "List the processes of running environments")
	tasks.Description = "All environments are asked at once; one that does not answer in time is an entry that says so."
	huma.Register(s.api, tasks, func(ctx context.Context, in *Chosen) (*body[api.TaskList], error) {
		list, err := s.engine.Tasks(ctx, in.Name)
		return &body[api.TaskList]{list}, err
	})
	huma.Register(s.api, route("usage", http.MethodGet, "/v1/usage", "Say what the host and running environments used in the last second"),
		func(ctx context.Context, in *struct {
			Chosen
			Since time.Time `query:"since" doc:"The time of an answer that is known: environments whose figures are as they were then are left out, where the same ones run still. It says so (partial)."`
		}) (*body[api.UsageReport], error) {
			u, err := s.engine.Usage(ctx, in.Name, in.Since)
			return &body[api.UsageReport]{u}, err
		})
	huma.Register(s.api, route("resources", http.MethodGet, "/v1/resources", "Say what is counted of running environments: held, most held, guarantee, limit, hits"),
		func(ctx context.Context, in *Chosen) (*body[[]api.ResourceTable], error) {
			all, err := s.engine.Resources(ctx, in.Name)
			return &body[[]api.ResourceTable]{nonNil(all)}, err
		})
	huma.Register(s.api, route("history", http.MethodGet, "/v1/environments/{ref}/history", "Say what an environment used in the last minute, hour or two days"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Step string `query:"step" enum:"1s,1m,1h" default:"1s" doc:"The time between two points: 60 of a second, 60 of a minute or 48 of an hour are kept."`
		}) (*body[[]api.HistoryPoint], error) {
			all, err := s.engine.History(ctx, in.Ref, in.Step)
			return &body[[]api.HistoryPoint]{nonNil(all)}, err
		})
}
