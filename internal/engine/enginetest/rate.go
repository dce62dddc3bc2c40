package enginetest

import (
	"maps"

	"github.com/strata-project/strata/internal/engine"
)

// SetRate notes what id's link is limited to while it is connected.
func (n *Network) SetRate(id string, r engine.Rate) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Connected[id] {
		n.rates[id] = r
	}
	return nil
}

// Rate is what SetRate noted.
func (n *Network) Rate(id string) engine.Rate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rates[id]
}

// Rates is what SetRate noted of all links.
func (n *Network) Rates() map[string]engine.Rate {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.rates)
}

// Dropped says that every limit has refused seven packets.
func (n *Network) Dropped(string) engine.Rate { return engine.Rate{In: 7, Out: 7} }
