package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

func (s *Server) deviceRoutes() {
	disk := route("disk-attach", http.MethodPost, "/v1/environments/{ref}/disks", "Attach a disk to a machine, running or not")
	disk.DefaultStatus = http.StatusCreated
	huma.Register(s.api, disk, func(ctx context.Context, in *struct {
		EnvironmentRef
		Body api.Disk
	}) (*body[api.Disk], error) {
		made, err := s.engine.AttachDisk(ctx, in.Ref, in.Body)
		return &body[api.Disk]{made}, err
	})
	card := route("card-attach", http.MethodPost, "/v1/environments/{ref}/cards", "Attach a network card to a machine, running or not")
	card.DefaultStatus = http.StatusCreated
	huma.Register(s.api, card, func(ctx context.Context, in *struct {
		EnvironmentRef
		Body api.Card
	}) (*body[api.Card], error) {
		made, err := s.engine.AttachCard(ctx, in.Ref, in.Body)
		return &body[api.Card]{made}, err
	})
	huma.Register(s.api, route("detach", http.MethodDelete, "/v1/environments/{ref}/devices/{name}", "Take an attached disk or card away"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Name string `path:"name" maxLength:"16" doc:"Such as disk1 or card2."`
		}) (*none, error) {
			return nil, s.engine.Detach(ctx, in.Ref, in.Name)
		})
}
