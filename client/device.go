package client

import (
	"context"
	"net/http"

	"github.com/strata-project/strata/api"
)

// AttachDisk attaches a disk, whose file is a path of the daemon's host, to a foreign
// system, and returns it with its name.
func (c *Client) AttachDisk(ctx context.Context, ref string, d api.Disk) (made api.Disk, err error) {
	q := post(environments, ref, "disks")
	q.body = d
	return made, c.call(ctx, q, &made)
}

// AttachCard attaches a network card to a foreign system, and returns it with its name and
// addresses.
func (c *Client) AttachCard(ctx context.Context, ref string, card api.Card) (made api.Card, err error) {
	q := post(environments, ref, "cards")
	q.body = card
	return made, c.call(ctx, q, &made)
}

// Detach takes an attached disk or card away.
func (c *Client) Detach(ctx context.Context, ref, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: []string{environments, ref, "devices", name}}, nil)
}
