package client

import (
	"context"
	"io"
	"net/http"

	"github.com/strata-project/strata/api"
)

const kernels = "kernels"

// Kernels returns all kernels.
func (c *Client) Kernels(ctx context.Context) (all []api.Kernel, err error) {
	return all, c.call(ctx, get(kernels), &all)
}

// Kernel returns one kernel.
func (c *Client) Kernel(ctx context.Context, ref string) (k api.Kernel, err error) {
	return k, c.call(ctx, get(kernels, ref), &k)
}

// AddKernel gets a kernel from a distribution, the host or a template.
func (c *Client) AddKernel(ctx context.Context, r api.KernelRequest) (k api.Kernel, err error) {
	q := post(kernels)
	q.body = r
	return k, c.call(ctx, q, &k)
}

// ImportKernel makes a kernel of a file's content: a Debian package, a tar with
// kernel and modules, a bzImage or a vmlinux. source is what the file is called.
func (c *Client) ImportKernel(ctx context.Context, name, source string, content io.Reader) (k api.Kernel, err error) {
	q := post(kernels, "import").with("name", name, "source", source)
	q.raw = content
	return k, c.call(ctx, q, &k)
}

// SetDefaultKernel makes a kernel the one that is taken where none is named.
func (c *Client) SetDefaultKernel(ctx context.Context, ref string) (k api.Kernel, err error) {
	return k, c.call(ctx, post(kernels, ref, "default"), &k)
}

// RemoveKernel removes a kernel that no environment boots.
func (c *Client) RemoveKernel(ctx context.Context, ref string) (f api.Freed, err error) {
	return f, c.call(ctx, request{method: http.MethodDelete, path: []string{kernels, ref}}, &f)
}
