package client

import (
	"context"

	"github.com/strata-project/strata/api"
)

// Move has an environment run at another stratum.
func (c *Client) Move(ctx context.Context, ref string, r api.MoveRequest) (m api.Moved, err error) {
	q := post(environments, ref, "move")
	q.body = r
	return m, c.call(ctx, q, &m)
}
