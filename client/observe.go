package client

import (
	"context"
	"slices"

	"github.com/strata-project/strata/api"
)

// Tasks lists the processes of the environments that are named, or of all that run.
func (c *Client) Tasks(ctx context.Context, names ...string) (list api.TaskList, err error) {
	return list, c.call(ctx, get("processes").named(names), &list)
}

// Usage tells what the host and the environments that are named, or all that run,
// used in the last second.
func (c *Client) Usage(ctx context.Context, names ...string) (u api.UsageReport, err error) {
	return u, c.call(ctx, get("usage").named(names), &u)
}

// UsageSince is Usage of one who knows the report u of the same names: its figures are
// brought to what they are now. Only what changed is sent.
func (c *Client) UsageSince(ctx context.Context, u api.UsageReport, names ...string) (api.UsageReport, error) {
	var now api.UsageReport
	if err := c.call(ctx, get("usage").named(names).with("since", moment(u.Time)), &now); err != nil {
		return api.UsageReport{}, err
	}
	if !now.Partial {
		return now, nil
	}
	changed := make(map[string]api.Usage, len(now.Environments))
	for _, one := range now.Environments {
		changed[one.ID] = one
	}
	now.Environments, now.Partial = slices.Clone(u.Environments), false
	for i := range now.Environments {
		one := &now.Environments[i]
		if c, ok := changed[one.ID]; ok {
			*one = c
		}
	}
	return now, nil
}

// Resources tells what is counted of the environments that are named, or of all that run.
func (c *Client) Resources(ctx context.Context, names ...string) (all []api.ResourceTable, err error) {
	return all, c.call(ctx, get("resources").named(names), &all)
}

// History tells what an environment used; step is 1s, 1m or 1h.
func (c *Client) History(ctx context.Context, ref, step string) (all []api.HistoryPoint, err error) {
	return all, c.call(ctx, get(environments, ref, "history").with("step", step), &all)
}

func (q request) named(names []string) request {
	for _, n := range names {
		q = q.with("name", n)
	}
	return q
}
