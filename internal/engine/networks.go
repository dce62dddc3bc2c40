package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
)

// Networks returns every network, with the environments on each.
func (e *Engine) Networks(context.Context) ([]api.Network, error) {
	all := e.o.Network.Networks()
	for i := range all {
		all[i].UsedBy = e.usesNetwork(all[i].Name)
	}
	return all, nil
}

// Network returns one network. Kinds: Missing.
func (e *Engine) Network(_ context.Context, name string) (api.Network, error) {
	n, err := e.o.Network.Network(name)
	if err != nil {
		return n, err
	}
	n.UsedBy = e.usesNetwork(name)
	return n, nil
}

// CreateNetwork makes a network. Kinds: Invalid, Conflict (name or subnet taken).
func (e *Engine) CreateNetwork(ctx context.Context, n api.Network) (api.Network, error) {
	if err := e.open(); err != nil {
		return n, err
	}
	if err := environment.CheckName(n.Name, "name"); err != nil {
		return n, err
	}
	if n.Name == environment.NoNetwork {
		return n, fault.Invalidf("%q means that there is no network", n.Name).At("name").Help("choose another name")
	}
	made, err := e.o.Network.Create(ctx, n)
	if err != nil {
		return made, err
	}
	for _, rec := range e.onNetwork(n.Name) { // its record was lost, and theirs were not
		e.keepAddresses(rec)
	}
	e.hub.publish(api.Event{Type: typeNetwork, Action: "create", Name: made.Name, Operation: operation(ctx)})
	return made, nil
}

// RemoveNetwork removes a network. Kinds: Missing, Conflict while environments
// are on it, running or not.
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	if users := e.usesNetwork(name); len(users) > 0 {
		return fault.Conflictf("network %s is used by %s", name, strings.Join(users, ", ")).Help("remove them first")
	}
	if err := e.o.Network.Remove(ctx, name); err != nil {
		return err
	}
	e.hub.publish(api.Event{Type: typeNetwork, Action: "remove", Name: name, Operation: operation(ctx)})
	return nil
}

func (e *Engine) usesNetwork(network string) []string {
	var names []string
	for _, rec := range e.onNetwork(network) {
		names = append(names, rec.Name)
	}
	slices.Sort(names)
	return names
}

// onNetwork returns the records of those that have a link to a network.
func (e *Engine) onNetwork(network string) (on []environment.Record) {
	for _, en := range e.entries() {
		if rec := en.snapshot(); slices.ContainsFunc(rec.Links(), func(l environment.Link) bool { return l.Address.Network == network }) {
			on = append(on, rec)
		}
	}
	return on
}
