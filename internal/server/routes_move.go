package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

// Moves takes environments to other strata.
type Moves interface {
	// Move has an environment run at another stratum, with all that is its own.
	Move(ctx context.Context, ref string, r api.MoveRequest) (api.Moved, error)
}

func (s *Server) moveRoutes() {
	huma.Register(s.api, route("move", http.MethodPost, "/v1/environments/{ref}/move", "Have an environment run at another stratum, with its disk, name, address, ports and volumes"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Body api.MoveRequest
		}) (*body[api.Moved], error) {
			m, err := s.engine.Move(ctx, in.Ref, in.Body)
			return &body[api.Moved]{m}, err
		})
}
