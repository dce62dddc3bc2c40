package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

func (s *Server) priceRoutes() {
	huma.Register(s.api, route("price-show", http.MethodGet, "/v1/price", "Say what the strata cost on this host, as they were measured last"),
		func(ctx context.Context, _ *struct{}) (*body[api.Price], error) {
			p, err := s.engine.Price(ctx)
			return &body[api.Price]{p}, err
		})
	op := route("price-measure", http.MethodPost, "/v1/price", "Measure what the strata cost on this host")
	op.Description = "It takes minutes, or less than one with `quick`; it answers when all is measured. Progress is published as events of step measure. One is measured at a time."
	huma.Register(s.api, op, func(ctx context.Context, in *struct{ Body api.PriceRequest }) (*body[api.Price], error) {
		p, err := s.engine.MeasurePrice(ctx, in.Body)
		return &body[api.Price]{p}, err
	})
}
