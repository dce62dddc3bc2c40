package client

import (
	"context"
	"io"
	"net/http"

	"github.com/strata-project/strata/api"
)

const templates = "templates"

// Templates returns all templates.
func (c *Client) Templates(ctx context.Context) (all []api.Template, err error) {
	return all, c.call(ctx, get(templates), &all)
}

// Template returns one template.
func (c *Client) Template(ctx context.Context, ref string) (t api.Template, err error) {
	return t, c.call(ctx, get(templates, ref), &t)
}

// PullTemplate fetches a template from a registry.
func (c *Client) PullTemplate(ctx context.Context, r api.PullRequest) (t api.Template, err error) {
	q := post(templates, "pull")
	q.body = r
	return t, c.call(ctx, q, &t)
}

// ImportTemplate makes a template of a tar; an empty name means the archive's own.
func (c *Client) ImportTemplate(ctx context.Context, name string, tar io.Reader) (t api.Template, err error) {
	q := post(templates, "import").with("name", name)
	q.raw = tar
	return t, c.call(ctx, q, &t)
}

// BuildTemplate makes a template of a distribution's packages.
func (c *Client) BuildTemplate(ctx context.Context, r api.BuildRequest) (t api.Template, err error) {
	q := post(templates, "build")
	q.body = r
	return t, c.call(ctx, q, &t)
}

// TagTemplate gives a template a further name.
func (c *Client) TagTemplate(ctx context.Context, ref, name string) error {
	q := post(templates, ref, "tag")
	q.body = api.TagRequest{Name: name}
	return c.call(ctx, q, nil)
}

// RemoveTemplate removes a template, or one of its names.
func (c *Client) RemoveTemplate(ctx context.Context, ref string, force bool) (f api.Freed, err error) {
	q := request{method: http.MethodDelete, path: []string{templates, ref}}
	return f, c.call(ctx, q.with("force", flag(force)), &f)
}

// PruneTemplates removes templates without a name; with all also those that no
// environment uses.
func (c *Client) PruneTemplates(ctx context.Context, all bool) (f api.Freed, err error) {
	return f, c.call(ctx, post(templates, "prune").with("all", flag(all)), &f)
}

// ExportTemplate returns an OCI layout as tar; the caller closes it.
func (c *Client) ExportTemplate(ctx context.Context, ref string) (io.ReadCloser, error) {
	return c.download(ctx, get(templates, ref, "export"))
}

// PushTemplate sends a template to a registry.
func (c *Client) PushTemplate(ctx context.Context, ref string, r api.PushRequest) error {
	q := post(templates, ref, "push")
	q.body = r
	return c.call(ctx, q, nil)
}

const networks = "networks"

// Networks returns all networks.
func (c *Client) Networks(ctx context.Context) (all []api.Network, err error) {
	return all, c.call(ctx, get(networks), &all)
}

// Network returns one network.
func (c *Client) Network(ctx context.Context, name string) (n api.Network, err error) {
	return n, c.call(ctx, get(networks, name), &n)
}

// CreateNetwork makes a network.
func (c *Client) CreateNetwork(ctx context.Context, n api.Network) (made api.Network, err error) {
	q := post(networks)
	q.body = n
	return made, c.call(ctx, q, &made)
}

// RemoveNetwork removes a network that nobody uses.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: []string{networks, name}}, nil)
}
