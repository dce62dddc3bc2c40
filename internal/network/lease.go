package network

import (
	"net"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/dhcp"
)

// Lease has id, which is connected by a tap, told its address by DHCP until it is
// disconnected: its system is one that nobody else tells. Twice is no error.
// Kinds: Missing, Unable.
func (h *Host) Lease(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.environments[id]
	if e == nil || e.link == "" {
		return fault.Missingf("%s is not connected", id)
	}
	n, err := h.network(e.address.Network)
	if err != nil {
		return err
	}
	plan, err := n.plan(e.link, e.address)
	if err != nil {
		return fault.Internalf("tell %s its address: %w", id, err)
	}
	mac, err := net.ParseMAC(e.address.MAC)
	if err != nil {
		return fault.Internalf("tell %s its address: %w", id, err)
	}
	stop, err := dhcp.Serve(e.link, dhcp.Lease{
		MAC: mac, Address: plan.IPv4, Server: n.Gateway4, Router: plan.Gateway4.IsValid(), MTU: uint16(plan.MTU), Name: e.name,
	})
	if err != nil {
		return err
	}
	if e.unlease != nil {
		e.unlease()
	}
	e.unlease = stop
	return nil
}
