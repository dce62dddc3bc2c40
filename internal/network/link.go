package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inside is the name of an environment's link, as seen by itself.
const inside = "eth0"

// linkPlan is all that is done to join one environment: a value that prints.
type linkPlan struct {
	Link     string // outer end
	Bridge   string
	Master   int32 // index of the bridge
	MTU      uint32
	MAC      net.HardwareAddr
	IPv4     netip.Prefix
	IPv6     netip.Prefix // not valid: none
	Gateway4 netip.Addr   // not valid: no way out
	Gateway6 netip.Addr
	Hairpin  bool // what it sends may come back to it: needed to reach itself by a published port
}

func (n *networkState) plan(link string, a Address) (linkPlan, error) {
	mac, err := net.ParseMAC(a.MAC)
	if err != nil || len(mac) != 6 {
		return linkPlan{}, fmt.Errorf("%q is not a hardware address", a.MAC)
	}
	p := linkPlan{Link: link, Bridge: n.Bridge, Master: n.index, MTU: n.mtu, MAC: mac, IPv4: netip.PrefixFrom(a.IPv4, n.IPv4.Bits())}
	if a.IPv6.IsValid() {
		p.IPv6 = netip.PrefixFrom(a.IPv6, n.IPv6.Bits())
	}
	if !n.Isolated {
		p.Gateway4 = n.Gateway4
		if a.IPv6.IsValid() {
			p.Gateway6 = n.Gateway6
		}
	}
	return p, nil
}

// String prints the plan as the commands that would do the same.
func (p linkPlan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ip link add %s mtu %d master %s up type veth peer name %s mtu %d address %s netns TARGET\n", p.Link, p.MTU, p.Bridge, inside, p.MTU, p.MAC)
	if p.Hairpin {
		fmt.Fprintf(&b, "bridge link set dev %s hairpin on\n", p.Link)
	}
	fmt.Fprintf(&b, "bridge fdb replace %s dev %s master static\n", p.MAC, p.Link)
	fmt.Fprintf(&b, "in TARGET:\nip link set lo up\nip link set %s up\n", inside)
	fmt.Fprintf(&b, "ip address add %s dev %s\n", p.IPv4, inside)
	if p.IPv6.IsValid() {
		fmt.Fprintf(&b, "ip -6 address add %s dev %s nodad\n", p.IPv6, inside)
	}
	if p.Gateway4.IsValid() {
		fmt.Fprintf(&b, "ip route add default via %s dev %s\n", p.Gateway4, inside)
	}
	if p.Gateway6.IsValid() {
		fmt.Fprintf(&b, "ip -6 route add default via %s dev %s\n", p.Gateway6, inside)
	}
	return b.String()
}

// ifinfo is struct ifinfomsg of linux/rtnetlink.h.
func ifinfo(index int32, up bool) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	if up {
		binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
		binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP)
	}
	return b
}

func text(s string) []byte { return append([]byte(s), 0) }

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// outer makes the pair, the outer end up, the inner one in the namespace target.
func (p linkPlan) outer(target int) *request {
	q := &request{what: "make link " + p.Link, kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: ifinfo(0, true)}
	q.attr(unix.IFLA_IFNAME, text(p.Link)).attr32(unix.IFLA_MTU, p.MTU).attr32(unix.IFLA_MASTER, uint32(p.Master))
	return q.nest(unix.IFLA_LINKINFO, func(q *request) {
		q.attr(unix.IFLA_INFO_KIND, []byte("veth"))
		q.nest(unix.IFLA_INFO_DATA, func(q *request) {
			q.nest(vethInfoPeer, func(q *request) {
				q.body = append(q.body, ifinfo(0, false)...) // it cannot be up before the pair is whole: ENOTCONN
				q.attr(unix.IFLA_IFNAME, text(inside)).attr32(unix.IFLA_MTU, p.MTU).attr(unix.IFLA_ADDRESS, p.MAC)
				q.attr32(unix.IFLA_NET_NS_FD, uint32(target))
			})
		})
	})
}

// Attributes of a bridge's port. Source: linux/if_link.h, IFLA_BRPORT_MODE.
const brportMode = 4

// port sets what the bridge must know of the link.
// Where bridges are filtered like routers (br_netfilter), a packet to a published
// port of its own sender stays on the bridge and would be dropped there.
func (p linkPlan) port() *request {
	q := &request{what: "set bridge port " + p.Link, kind: unix.RTM_NEWLINK, body: ifinfo(0, false)}
	return q.attr(unix.IFLA_IFNAME, text(p.Link)).nest(unix.IFLA_LINKINFO, func(q *request) {
		q.attr(unix.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
		q.nest(unix.IFLA_INFO_SLAVE_DATA, func(q *request) { q.attr(brportMode, []byte{1}) })
	})
}

// station tells the bridge at once that the hardware address is behind the link
// with the given index: it may still know it behind that of an earlier run, whose
// namespace is on its way out, and a server that never speaks first would be lost.
func (p linkPlan) station(index int32) *request {
	// struct ndmsg of linux/neighbour.h: family, padding, index, state, flags, type.
	body := binary.NativeEndian.AppendUint32([]byte{unix.AF_BRIDGE, 0, 0, 0}, uint32(index))
	body = binary.NativeEndian.AppendUint16(body, unix.NUD_NOARP)
	body = append(body, unix.NTF_MASTER, 0)
	q := &request{what: "tell bridge of " + p.MAC.String(), kind: unix.RTM_NEWNEIGH, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: body}
	return q.attr(unix.NDA_LLADDR, p.MAC)
}

// requests are the first for the host's side.
func (p linkPlan) requests(target int) []*request {
	if p.Hairpin {
		return []*request{p.outer(target), p.port()}
	}
	return []*request{p.outer(target)}
}

// inner gives eth0, the link with the given index, its addresses and routes.
func (p linkPlan) inner(index int32) []*request {
	all := []*request{upRequest(loopbackIndex), upRequest(index), addressRequest(index, p.IPv4)}
	if p.IPv6.IsValid() {
		all = append(all, addressRequest(index, p.IPv6))
	}
	for _, gateway := range []netip.Addr{p.Gateway4, p.Gateway6} {
		if gateway.IsValid() {
			all = append(all, defaultRoute(index, gateway))
		}
	}
	return all
}

// loopbackIndex is lo's index in every namespace. Source: linux/net.h, LOOPBACK_IFINDEX.
const loopbackIndex = 1

func upRequest(index int32) *request {
	return &request{what: "set link up", kind: unix.RTM_NEWLINK, body: ifinfo(index, true)}
}

func addressRequest(index int32, p netip.Prefix) *request {
	family, flags := byte(unix.AF_INET), byte(0)
	if p.Addr().Is6() {
		family, flags = unix.AF_INET6, unix.IFA_F_NODAD // usable at once
	}
	body := binary.NativeEndian.AppendUint32([]byte{family, byte(p.Bits()), flags, unix.RT_SCOPE_UNIVERSE}, uint32(index))
	q := &request{what: "add address " + p.String(), kind: unix.RTM_NEWADDR, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: body}
	q.attr(unix.IFA_LOCAL, p.Addr().AsSlice()).attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() {
		broadcast := addressAt(p, 1<<(32-p.Bits())-1)
		q.attr(unix.IFA_BROADCAST, broadcast.AsSlice())
	}
	return q
}

func defaultRoute(index int32, gateway netip.Addr) *request {
	family := byte(unix.AF_INET)
	if gateway.Is6() {
		family = unix.AF_INET6
	}
	// struct rtmsg of linux/rtnetlink.h: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
	body := []byte{family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	q := &request{what: "add default route by " + gateway.String(), kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: body}
	return q.attr(unix.RTA_GATEWAY, gateway.AsSlice()).attr32(unix.RTA_OIF, uint32(index))
}

// linkIndex returns the index of the link with the given name, 0 where there is none.
func (r *rtnl) linkIndex(name string) (int32, error) {
	var index int32
	q := &request{what: "look up link " + name, kind: unix.RTM_GETLINK, body: ifinfo(0, false)}
	q.attr(unix.IFLA_IFNAME, text(name))
	err := r.do(func(kind uint16, body []byte) {
		if kind == unix.RTM_NEWLINK && len(body) >= unix.SizeofIfInfomsg {
			index = int32(binary.NativeEndian.Uint32(body[4:]))
		}
	}, q)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	return index, err
}

// deleteLink removes a link; it may block for tens of milliseconds.
func (r *rtnl) deleteLink(name string) error {
	q := &request{what: "remove link " + name, kind: unix.RTM_DELLINK, body: ifinfo(0, false)}
	err := r.do(nil, q.attr(unix.IFLA_IFNAME, text(name)))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// namespaceOf opens the network namespace of a process.
func namespaceOf(pid int) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, fmt.Errorf("open network namespace of process %d: %w", pid, err)
	}
	return f, nil
}

// socketIn returns a routing socket that belongs to the namespace target.
func socketIn(target *os.File) (*rtnl, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	r := &rtnl{}
	err = r.dial()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked: it ends with the goroutine, and nobody else
		// is ever run in the wrong namespace.
		r.close()
		return nil, fmt.Errorf("leave network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return r, err
}
