package network

import (
	"context"
	"net/netip"

	"github.com/strata-project/strata/internal/fault"
)

// Address is where an environment is reached, for life.
type Address struct {
	Network string
	IPv4    netip.Addr
	IPv6    netip.Addr // not valid where the network has no IPv6
	MAC     string
}

// Allocate gives id a free address of a network, and its name to the DNS.
// Kinds: Missing (no such network), Conflict (id has one, or none is free).
func (h *Host) Allocate(network, id, name string) (Address, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.environments[id]; ok {
		return Address{}, fault.Conflictf("%s has the address %s already", e.name, e.address.IPv4)
	}
	n, err := h.network(network)
	if err != nil {
		return Address{}, err
	}
	size := uint32(1) << (32 - n.IPv4.Bits())
	for i := range size {
		part := (n.next + i) % size
		if part < firstHost || part == size-1 { // the last one is for broadcasts: RFC 922
			continue
		}
		a := addressAt(n.IPv4, part)
		if _, taken := n.given[a]; taken {
			continue
		}
		n.next = part + 1
		address := Address{Network: network, IPv4: a, MAC: hardwareAddress(a).String()}
		if n.IPv6.IsValid() {
			address.IPv6 = addressAt(n.IPv6, part)
		}
		h.keep(n, id, name, address)
		return address, nil
	}
	return Address{}, fault.Conflictf("every address of the network %q is given out", network).At("network").Help("remove environments, or use another network")
}

// keep records who has an address, with h.mu held.
func (h *Host) keep(n *networkState, id, name string, a Address) {
	n.given[a.IPv4] = id
	h.environments[id] = &environment{id: id, name: name, address: a}
	h.zone.touch()
}

// Reserve says that id has a, as its record tells. Doing it twice is no error.
// Kinds: Missing (the network), Conflict (somebody else has it), Invalid (it is
// not of that network).
func (h *Host) Reserve(id, name string, a Address) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.environments[id]; ok {
		if e.address == a {
			return nil
		}
		return fault.Conflictf("%s has the address %s already", e.name, e.address.IPv4)
	}
	n, err := h.network(a.Network)
	if err != nil {
		return err
	}
	if !a.IPv4.Is4() || !n.IPv4.Contains(a.IPv4) || a.IPv4 == n.Gateway4 || a.IPv6.IsValid() && !n.IPv6.Contains(a.IPv6) {
		return fault.Invalidf("%s is not an address of the network %q (%s)", a.IPv4, a.Network, n.IPv4).At("address")
	}
	if other, taken := n.given[a.IPv4]; taken {
		return fault.Conflictf("%s has the address %s", h.environments[other].name, a.IPv4).At("address")
	}
	h.keep(n, id, name, a)
	n.next = max(n.next, hostPart(n.IPv4, a.IPv4)+1)
	return nil
}

// Release gives id's address and name back, and its ports and link where it
// still has them. An id that is not known is no error.
func (h *Host) Release(ctx context.Context, id string) {
	if err := h.Disconnect(ctx, id); err != nil {
		h.log.Debug("what a released address leaves is removed later", "id", id, "err", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.environments[id]
	if !ok {
		return
	}
	delete(h.environments, id)
	if n, ok := h.networks[e.address.Network]; ok {
		delete(n.given, e.address.IPv4)
	}
	h.zone.touch()
}

// Rename gives id another name, by which it can be reached when Rename returns. Kinds: Missing.
func (h *Host) Rename(id, name string) error {
	h.mu.Lock()
	e, ok := h.environments[id]
	if ok {
		e.name = name
		h.zone.touch()
	}
	h.mu.Unlock()
	if !ok {
		return fault.Missingf("nothing with the id %s has an address", id)
	}
	return fault.Wrap(h.zone.flush(), "publish name")
}
