package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
)

// KernelRef names one kernel.
type KernelRef struct {
	Ref string `path:"ref" maxLength:"255" doc:"Name, release, id, or the unambiguous start of an id."`
}

// byteType is content of any kind.
const byteType = "application/octet-stream"

func (s *Server) kernelRoutes() {
	huma.Register(s.api, route("kernel-list", http.MethodGet, "/v1/kernels", "List kernels"),
		func(ctx context.Context, _ *struct{}) (*body[[]api.Kernel], error) {
			found, err := s.engine.Kernels(ctx)
			return &body[[]api.Kernel]{nonNil(found)}, err
		})
	huma.Register(s.api, route("kernel-show", http.MethodGet, "/v1/kernels/{ref}", "Show a kernel"),
		func(ctx context.Context, in *KernelRef) (*body[api.Kernel], error) {
			k, err := s.engine.Kernel(ctx, in.Ref)
			return &body[api.Kernel]{k}, err
		})
	huma.Register(s.api, route("kernel-add", http.MethodPost, "/v1/kernels", "Get a kernel from a distribution, the host or a template"),
		func(ctx context.Context, in *struct{ Body api.KernelRequest }) (*body[api.Kernel], error) {
			k, err := s.engine.AddKernel(ctx, in.Body)
			return &body[api.Kernel]{k}, err
		})
	imp := route("kernel-import", http.MethodPost, "/v1/kernels/import", "Make a kernel of a file: a Debian package, a tar with boot/vmlinuz-RELEASE and lib/modules/RELEASE, a bzImage or a vmlinux")
	imp.RequestBody = &huma.RequestBody{Required: true, Content: binary(byteType)}
	huma.Register(s.api, imp, func(ctx context.Context, in *struct {
		Upload
		Name   string `query:"name" maxLength:"128" doc:"Name of the kernel. Default: its release."`
		Source string `query:"source" maxLength:"255" doc:"What the file is called, for people."`
	}) (*body[api.Kernel], error) {
		k, err := s.engine.ImportKernel(ctx, in.Name, in.Source, in.content)
		return &body[api.Kernel]{k}, err
	})
	huma.Register(s.api, route("kernel-default", http.MethodPost, "/v1/kernels/{ref}/default", "Make a kernel the one that is taken where none is named"),
		func(ctx context.Context, in *KernelRef) (*body[api.Kernel], error) {
			k, err := s.engine.SetDefaultKernel(ctx, in.Ref)
			return &body[api.Kernel]{k}, err
		})
	huma.Register(s.api, route("kernel-remove", http.MethodDelete, "/v1/kernels/{ref}", "Remove a kernel that no environment boots"),
		func(ctx context.Context, in *KernelRef) (*body[api.Freed], error) {
			freed, err := s.engine.RemoveKernel(ctx, in.Ref)
			return &body[api.Freed]{freed}, err
		})
}
