package virtual

import (
	"net"
	"net/netip"
	"slices"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Network is what the agent is told of a tap. Where any address is of IPv6, the first is
// the one that a kernel would give the card by its MAC address: the agent has the kernel
// give none. Source: RFC 4291, appendix A.
func Network(t *stratum.Tap) (*spec.Network, error) {
	mac, err := net.ParseMAC(t.MAC)
	if err != nil || len(mac) != 6 {
		return nil, fault.Internalf("the card's hardware address %q is none", t.MAC)
	}
	n := &spec.Network{MAC: mac, MTU: t.MTU}
	if slices.ContainsFunc(t.Address, func(a netip.Prefix) bool { return a.Addr().Is6() }) {
		ip := []byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
		n.Address = append(n.Address, spec.Address{IP: ip, Bits: 64})
	}
	for _, a := range t.Address {
		n.Address = append(n.Address, spec.Address{IP: a.Addr().AsSlice(), Bits: a.Bits()})
	}
	for _, g := range t.Gateways {
		n.Gateways = append(n.Gateways, g.AsSlice())
	}
	return n, nil
}
