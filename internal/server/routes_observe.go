package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

// chosen names environments of a list; none: all that run.
type chosen struct {
	Name []string `query:"name,explode" maxItems:"1024" doc:"Only of these: names, ids, or the unambiguous starts of ids."`
}

func (s *Server) observeRoutes() {
	tasks := route("processes", http.MethodGet, "/v1/processes", "List the processes of running environments")
	tasks.Description = "All environments are asked at once; one that does not answer in time is an entry that says so."
	huma.Register(s.api, tasks, func(ctx context.Context, in *chosen) (*body[api.TaskList], error) {
		list, err := s.engine.Tasks(ctx, in.Name)
		return &body[api.TaskList]{list}, err
	})
}
