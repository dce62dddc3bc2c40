package client

import (
	"context"

	"github.com/strata-project/strata/api"
)

// Tasks lists the processes of the environments that are named, or of all that run.
func (c *Client) Tasks(ctx context.Context, names ...string) (list api.TaskList, err error) {
	return list, c.call(ctx, get("processes").named(names), &list)
}

func (q request) named(names []string) request {
	for _, n := range names {
		q = q.with("name", n)
	}
	return q
}
