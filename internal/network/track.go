package network

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetSenders has the kernel look anew where datagrams to the given ports of the
// host go. It looks once for each sender, at the first one, and each further one
// renews that: who goes on sending would never find what is published meanwhile,
// nor let go of what was. Connections by TCP end by themselves. All that the kernel knows
// of is looked through for that, which may be much, so that nobody waits for it.
func (h *Host) forgetSenders(ports []Port) {
	if slices.ContainsFunc(ports, func(p Port) bool { return p.Protocol == "udp" }) {
		go h.forget(ports)
	}
}

func (h *Host) forget(ports []Port) {
	h.forgetting.Lock()
	defer h.forgetting.Unlock()
	if known, err := readFile(flowCount); err == nil && strings.TrimSpace(known) == "0" {
		return // to look takes as long for none as for a few
	}
	var all []netlink.CustomConntrackFilter
	var own []netip.Addr
	for _, p := range ports {
		if p.Protocol != "udp" {
			continue
		}
		if own == nil {
			own = ownAddresses()
		}
		all = append(all, sentTo{p, own})
	}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		// Without it new senders are served all the same.
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, all...); err != nil {
			h.log.Debug("the kernel goes on with what it knew of senders of datagrams", "err", err)
		}
	}
}

// flowCount tells how many flows the kernel knows. Source: nf_conntrack-sysctl.
const flowCount = "/proc/sys/net/netfilter/nf_conntrack_count"

// ownAddresses are the host's; a failure to read is none.
func ownAddresses() []netip.Addr {
	all, _ := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	own := []netip.Addr{}
	for _, a := range all {
		own = append(own, prefixOf(a.IPNet).Addr())
	}
	return own
}

// sentTo are the flows to a published port, by the destination that they came with.
type sentTo struct {
	port Port
	own  []netip.Addr // of the host
}

func (s sentTo) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP || f.Forward.DstPort != s.port.HostPort {
		return false
	}
	to := addrOf(f.Forward.DstIP)
	return addressesMeet(s.port.HostIP, to) && (to.IsLoopback() || slices.Contains(s.own, to))
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
