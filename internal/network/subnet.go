package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/strata-project/strata/internal/fault"
)

// pool is where subnets are taken from when the user names none: the half-known
// part of 10/8, seldom used by Docker, libvirt, home routers and clouds.
var pool = netip.MustParsePrefix("10.64.0.0/10")

// subnetBits is the length of such a subnet's prefix: 4093 addresses to give.
const subnetBits = 20

// MaxConnected is how many environments of one network can run at a time.
// Source: linux/net/bridge/br_private.h, BR_MAX_PORTS (1024) less the port 0.
const MaxConnected = 1023

// firstHost is the part of an address behind the network's that the first
// environment gets; 1 is the gateway.
const firstHost = 2

// maxBits4 is of the smallest IPv4 subnet that a user may name.
const maxBits4 = 29

// private4 are the IPv4 subnets that a user may name a part of. Source: RFC 1918 3.
var private4 = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}

// private tells whether all of p is in one of private4.
func private(p netip.Prefix) bool {
	return slices.ContainsFunc(private4, func(all netip.Prefix) bool { return all.Bits() <= p.Bits() && all.Contains(p.Addr()) })
}

// facts are what must be known of the host to choose a subnet.
type facts struct {
	taken []takenPrefix
	ipv6  bool
}

type takenPrefix struct {
	prefix netip.Prefix
	by     string
}

func (f *facts) add(p netip.Prefix, by string) {
	if p.IsValid() {
		f.taken = append(f.taken, takenPrefix{p.Masked(), by})
	}
}

// overlap returns what p would collide with, or "".
func (f *facts) overlap(p netip.Prefix) string {
	for _, t := range f.taken {
		if t.prefix.Overlaps(p) {
			return t.by
		}
	}
	return ""
}

// readFacts asks the kernel for addresses and routes; it changes nothing.
func readFacts() (*facts, error) {
	f := &facts{ipv6: exists("/proc/sys/net/ipv6")}
	names := map[int]string{}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fault.Wrap(err, "list links")
	}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fault.Wrap(err, "list addresses")
	}
	for _, a := range addresses {
		f.add(prefixOf(a.IPNet), "the address "+a.IPNet.String()+" of "+names[a.LinkIndex])
	}
	// Table 0 stands for all of them.
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fault.Wrap(err, "list routes")
	}
	for _, r := range routes {
		if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 && !p.Addr().IsMulticast() {
			f.add(p, "the route "+p.String()+" by "+names[r.LinkIndex])
		}
	}
	return f, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	if addr.Is4() && bits == 128 {
		ones -= 96
	}
	return netip.PrefixFrom(addr, ones)
}

// complete fills in what n leaves open and checks what it does not.
func complete(n *Network, tag string, f *facts, bridge string) error {
	n.Bridge = bridge
	if err := complete4(n, tag, f); err != nil {
		return err
	}
	return complete6(n, f)
}

func complete4(n *Network, tag string, f *facts) error {
	if n.IPv4.IsValid() {
		if !private(n.IPv4) || n.IPv4.Bits() > maxBits4 {
			return fault.Invalidf("%s is not a subnet that a network can have", n.IPv4).At("ipv4").
				Help("name a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, /%d at the smallest, such as 10.99.0.0/24", maxBits4)
		}
		n.IPv4 = n.IPv4.Masked()
		if by := f.overlap(n.IPv4); by != "" {
			return fault.Conflictf("%s overlaps %s", n.IPv4, by).At("ipv4").Help("name another subnet, or none")
		}
	} else {
		free, ok := chooseSubnet(tag+"/"+n.Name, f)
		if !ok {
			return fault.Conflictf("every subnet of %s overlaps a route or an address of this host", pool).At("ipv4").Help("name a subnet that is free here")
		}
		n.IPv4 = free
	}
	n.Gateway4 = addressAt(n.IPv4, 1)
	return nil
}

// chooseSubnet starts where seed points to, so that two roots seldom look at the same place.
func chooseSubnet(seed string, f *facts) (netip.Prefix, bool) {
	slots := uint32(1) << (subnetBits - pool.Bits())
	sum := sha256.Sum256([]byte(seed))
	start := binary.BigEndian.Uint32(sum[:])
	base := pool.Addr().As4()
	for i := range slots {
		slot := (start + i) % slots
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+slot<<(32-subnetBits))
		p := netip.PrefixFrom(netip.AddrFrom4(b), subnetBits)
		if f.overlap(p) == "" {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func complete6(n *Network, f *facts) error {
	if !f.ipv6 {
		if n.IPv6.IsValid() {
			return fault.Unablef("this host's kernel has no IPv6").At("ipv6").Help("leave the IPv6 subnet out")
		}
		return nil
	}
	if n.IPv6.IsValid() {
		if !n.IPv6.Addr().Is6() || n.IPv6.Bits() != 64 || n.IPv6.Addr().IsLinkLocalUnicast() || n.IPv6.Addr().IsMulticast() || n.IPv6.Addr().IsLoopback() || n.IPv6.Addr().Is4In6() {
			return fault.Invalidf("%s is not an IPv6 subnet that a network can have", n.IPv6).At("ipv6").Help("name a /64, such as fd12:3456:789a:1::/64, or none")
		}
		n.IPv6 = n.IPv6.Masked()
		if by := f.overlap(n.IPv6); by != "" {
			return fault.Conflictf("%s overlaps %s", n.IPv6, by).At("ipv6").Help("name another subnet, or none")
		}
	} else {
		var b [16]byte
		if _, err := rand.Read(b[1:8]); err != nil {
			return fault.Wrap(err, "choose an IPv6 subnet")
		}
		b[0] = 0xfd // RFC 4193 3.1
		n.IPv6 = netip.PrefixFrom(netip.AddrFrom16(b), 64)
	}
	n.Gateway6 = addressAt(n.IPv6, 1)
	return nil
}

// addressAt returns the address of p with the given part behind the network's.
func addressAt(p netip.Prefix, host uint32) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	tail := b[len(b)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)|host)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// hostPart is addressAt's inverse, for IPv4.
func hostPart(p netip.Prefix, a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]) & (1<<(32-p.Bits()) - 1)
}

func itoa(i int) string { return strconv.Itoa(i) }

// hardwareAddress makes a MAC out of an IPv4 address: locally administered
// (IEEE 802, the second bit), and as unique as the address is.
func hardwareAddress(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}
}

// uplinkMTU returns the MTU of the way out, at most 1500; 1500 where there is none.
func uplinkMTU() uint32 {
	const ethernet = 1500 // IEEE 802.3
	mtu := uint32(ethernet)
	for _, u := range uplinks() {
		if u.mtu > 0 {
			mtu = min(mtu, u.mtu)
		}
	}
	return mtu
}

// uplink is one way out.
type uplink struct {
	name string
	mtu  uint32
	ipv6 bool
}

// uplinks returns the links that a default route goes by; a failure to read is no way out.
func uplinks() []uplink {
	var found []uplink
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
		if err != nil {
			continue
		}
		for _, r := range routes {
			if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 {
				continue
			}
			for _, index := range outgoing(r) {
				if l, err := netlink.LinkByIndex(index); err == nil {
					found = append(found, uplink{l.Attrs().Name, uint32(l.Attrs().MTU), family == netlink.FAMILY_V6})
				}
			}
		}
	}
	return found
}

func outgoing(r netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		if r.LinkIndex == 0 {
			return nil
		}
		return []int{r.LinkIndex}
	}
	var all []int
	for _, hop := range r.MultiPath {
		all = append(all, hop.LinkIndex)
	}
	return all
}

// setSysctl writes one value below /proc/sys/net unless it is there already.
func setSysctl(path, value string) error {
	path = "/proc/sys/net/" + path
	if now, err := os.ReadFile(path); err == nil && string(now) == value+"\n" {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

// sysctl reads one value below /proc/sys/net, "" where there is none.
func sysctl(path string) string {
	data, err := os.ReadFile("/proc/sys/net/" + path)
	if err != nil || len(data) == 0 {
		return ""
	}
	return string(data[:len(data)-1])
}
