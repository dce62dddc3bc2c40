package servertest

import (
	"context"
	"slices"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Move notes another stratum; at machine there is no kernel, a zone is no kernel of one's own,
// and a guest takes memory.
func (e *Engine) Move(_ context.Context, ref string, r api.MoveRequest) (api.Moved, error) {
	row, err := e.get(ref)
	if err != nil {
		return api.Moved{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	from, memory := row.env.Stratum, row.env.Spec.Resources.Memory
	if r.Update != nil && r.Update.Memory != nil {
		memory = *r.Update.Memory
	}
	switch {
	case from == r.Stratum:
		return api.Moved{}, fault.Conflictf("environment %s is at stratum %s already", row.env.Name, from).At("stratum")
	case r.Stratum == "machine":
		return api.Moved{}, fault.Unablef("this host has no machines")
	case r.Stratum == "zone" && slices.Contains(row.env.Spec.Needs, "own-kernel") && !r.Force:
		return api.Moved{}, fault.Invalidf("stratum zone does not serve own-kernel").At("stratum")
	}
	if r.Stratum == "guest" && memory != 0 && memory < 64*unit.MiB {
		return api.Moved{}, fault.Unablef("no guest boots with %s", memory).At("resources.memory")
	}
	m := api.Moved{DryRun: r.DryRun, Notes: []string{"nothing that runs is kept"}, Plan: api.Plan{
		Choice: api.Choice{Stratum: r.Stratum, Needs: []api.Wanted{}, Others: []api.Depth{}}, Differences: []api.Difference{{Row: "clock", Promise: "it goes right", Differs: "it goes slow"}},
	}}
	m.Move = api.Move{At: time.Unix(1700000000, 0).UTC(), From: from, To: r.Stratum, Ran: row.env.State == api.Running, Forced: r.Force}
	if r.DryRun {
		return m, nil
	}
	m.Move.Downtime = unit.Duration(time.Second)
	row.env.Stratum, row.env.Moves = r.Stratum, append(row.env.Moves, m.Move)
	row.env.Spec.Stratum, row.env.Spec.Force = r.Stratum, r.Force
	return m, nil
}
