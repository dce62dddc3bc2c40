package client

import (
	"context"

	"github.com/strata-project/strata/api"
)

// Price returns what the strata cost on the daemon's host, as they were measured last.
func (c *Client) Price(ctx context.Context) (p api.Price, err error) {
	return p, c.call(ctx, get("price"), &p)
}

// MeasurePrice measures it anew, which takes up to minutes.
func (c *Client) MeasurePrice(ctx context.Context, r api.PriceRequest) (p api.Price, err error) {
	q := post("price")
	q.body = r
	return p, c.call(ctx, q, &p)
}
