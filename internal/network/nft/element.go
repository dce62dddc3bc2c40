package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Element is one member of a set or map. It is comparable.
type Element struct {
	Set   string
	Key   string // bytes, each part padded to 4 as the kernel has them
	Value string // of a map
	End   bool   // the first key after an interval
}

// String prints the element for logs and golden tests.
func (e Element) String() string {
	s := fmt.Sprintf("%s %x", e.Set, e.Key)
	if e.Value != "" {
		s += fmt.Sprintf(" : %x", e.Value)
	}
	if e.End {
		s += " end"
	}
	return s
}

// Network is what the filter must know of one.
type Network struct {
	Bridge   string
	IPv4     netip.Prefix
	IPv6     netip.Prefix // not valid: none
	Gateway4 netip.Addr
	Gateway6 netip.Addr
	Isolated bool
}

// Elements returns the members that n puts into the sets.
func (n Network) Elements() []Element {
	found := []Element{
		{Set: Bridges, Key: ifname(n.Bridge)},
		{Set: Same, Key: ifname(n.Bridge) + ifname(n.Bridge)},
	}
	if n.Isolated {
		found = append(found, Element{Set: Isolated, Key: ifname(n.Bridge)})
	}
	found = append(found, interval(Subnets4, n.IPv4)...)
	for _, protocol := range []string{"tcp", "udp"} {
		found = append(found, Element{Set: Own4, Key: address(n.Gateway4) + protoPort(protocol, dnsPort)})
	}
	if !n.IPv6.IsValid() {
		return found
	}
	found = append(found, interval(Subnets6, n.IPv6)...)
	for _, protocol := range []string{"tcp", "udp"} {
		found = append(found, Element{Set: Own6, Key: address(n.Gateway6) + protoPort(protocol, dnsPort)})
	}
	return found
}

// dnsPort is where the gateways answer names. Source: RFC 1035 4.2.
const dnsPort = 53

// Guest is one environment's link and who it may send as.
type Guest struct {
	Link string
	MAC  net.HardwareAddr
	IPv4 netip.Addr
	IPv6 netip.Addr
}

// Elements returns the members that g puts into the sets.
func (g Guest) Elements() []Element {
	from := ifname(g.Link) + pad(string(g.MAC))
	found := []Element{
		{Set: From4, Key: from + address(g.IPv4)},
		{Set: From6, Key: from + address(LinkLocal(g.MAC))},
		{Set: From6, Key: from + address(netip.IPv6Unspecified())}, // address checks and multicast reports: RFC 4862 5.4.2
	}
	if g.IPv6.IsValid() {
		found = append(found, Element{Set: From6, Key: from + address(g.IPv6)})
	}
	return found
}

// PortElement returns the member that puts a link under watch: while it is in,
// the link may send nothing but what its Guest elements allow. It goes in before
// the link is made and out after the link is gone.
func PortElement(link string) Element { return Element{Set: Ports, Key: ifname(link)} }

// LinkLocal returns the link-local address that the kernel makes of a hardware
// address. Source: RFC 4291, appendix A.
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	var b [16]byte
	b[0], b[1] = 0xfe, 0x80
	b[8], b[9], b[10], b[11] = mac[0]^2, mac[1], mac[2], 0xff
	b[12], b[13], b[14], b[15] = 0xfe, mac[3], mac[4], mac[5]
	return netip.AddrFrom16(b)
}

// Publish is one published port.
type Publish struct {
	HostIP   netip.Addr // not valid: every address
	HostPort uint16
	Protocol string
	IPv4     netip.Addr // of the environment
	IPv6     netip.Addr
	Port     uint16 // inside
}

// Elements returns the members that p puts into the maps.
func (p Publish) Elements() []Element {
	to4, to6 := address(p.IPv4)+port(p.Port), address(p.IPv6)+port(p.Port)
	key := protoPort(p.Protocol, p.HostPort)
	every := !p.HostIP.IsValid()
	var found []Element
	switch {
	case every || p.HostIP.Is4() && p.HostIP.IsUnspecified():
		found = append(found, Element{Set: Any4, Key: key, Value: to4})
	case p.HostIP.Is4():
		found = append(found, Element{Set: At4, Key: address(p.HostIP) + key, Value: to4})
	}
	switch {
	case !p.IPv6.IsValid():
	case every || p.HostIP.Is6() && p.HostIP.IsUnspecified():
		found = append(found, Element{Set: Any6, Key: key, Value: to6})
	case p.HostIP.Is6():
		found = append(found, Element{Set: At6, Key: address(p.HostIP) + key, Value: to6})
	}
	return found
}

func ifname(name string) string { return name + strings.Repeat("\x00", 16-len(name)) }

func address(a netip.Addr) string { return string(a.AsSlice()) }

// pad fills to 4 bytes, as each part of a concatenated key is.
func pad(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }

func port(p uint16) string { return pad(string(binary.BigEndian.AppendUint16(nil, p))) }

func protoPort(protocol string, p uint16) string {
	number := byte(6) // IANA protocol numbers: 6 TCP, 17 UDP
	if protocol == "udp" {
		number = 17
	}
	return pad(string([]byte{number})) + port(p)
}

// interval returns the two elements that make a range: its first key, and the
// first one after it.
func interval(set string, p netip.Prefix) []Element {
	first := p.Masked().Addr()
	end := first.AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- { // add one to the network's part
		mask := byte(1) << (7 - bit%8)
		end[bit/8] ^= mask
		if end[bit/8]&mask != 0 {
			break
		}
	}
	return []Element{{Set: set, Key: address(first)}, {Set: set, Key: string(end), End: true}}
}
