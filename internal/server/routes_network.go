package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

type networkName struct {
	Name string `path:"name" maxLength:"63" doc:"Name of the network."`
}

func (s *Server) networkRoutes() {
	huma.Register(s.api, route("network-list", http.MethodGet, "/v1/networks", "List networks"),
		func(ctx context.Context, _ *struct{}) (*body[[]api.Network], error) {
			found, err := s.engine.Networks(ctx)
			return &body[[]api.Network]{nonNil(found)}, err
		})
	huma.Register(s.api, route("network-show", http.MethodGet, "/v1/networks/{name}", "Show a network"),
		func(ctx context.Context, in *networkName) (*body[api.Network], error) {
			n, err := s.engine.Network(ctx, in.Name)
			return &body[api.Network]{n}, err
		})
	create := route("network-create", http.MethodPost, "/v1/networks", "Make a network")
	create.DefaultStatus = http.StatusCreated
	huma.Register(s.api, create, func(ctx context.Context, in *struct{ Body api.Network }) (*body[api.Network], error) {
		n, err := s.engine.CreateNetwork(ctx, in.Body)
		return &body[api.Network]{n}, err
	})
	huma.Register(s.api, route("network-remove", http.MethodDelete, "/v1/networks/{name}", "Remove a network that nobody uses"),
		func(ctx context.Context, in *networkName) (*none, error) {
			return nil, s.engine.RemoveNetwork(ctx, in.Name)
		})
}
