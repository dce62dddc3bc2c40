package network

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Ensure makes a network ready: bridge, filter, forwarding and the answering of
// names. It is quick when it has done so before. Kinds: Missing, Unable.
func (h *Host) Ensure(ctx context.Context, name string) error {
	if h.ready(name) {
		return nil
	}
	if err := h.SyncLate(ctx); err != nil {
		return err
	}
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	if h.ready(name) {
		return nil
	}
	_, err := h.ensure(ctx, name)
	return err
}

func (h *Host) ready(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.networks[name]
	return ok && n.index != 0
}

// ensureAgain makes the bridge of a network whose bridge was found to be gone,
// and returns its index.
func (h *Host) ensureAgain(ctx context.Context, name string) (int32, error) {
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	return h.ensure(ctx, name)
}

// ensure does the work, with h.ensuring held.
func (h *Host) ensure(ctx context.Context, name string) (int32, error) {
	h.mu.Lock()
	n, err := h.network(name)
	h.mu.Unlock()
	if err != nil {
		return 0, err
	}
	mtu := uplinkMTU()
	index, err := ensureBridge(n.Network, mtu)
	if err != nil {
		return 0, unable(err, "make bridge %s", n.Bridge)
	}
	h.mu.Lock()
	n.index, n.mtu = index, mtu
	h.mu.Unlock()
	h.zone.touch()
	failed := func(err error) (int32, error) {
		h.mu.Lock()
		n.index = 0
		h.mu.Unlock()
		return 0, err
	}
	if err := h.match(); err != nil {
		return failed(unable(err, "set up packet filter"))
	}
	if !n.Isolated {
		if err := enableForwarding(); err != nil {
			h.log.Debug("forwarding could not be switched on; environments reach each other and the host only", "err", err)
		}
	}
	if err := h.zone.flush(); err != nil {
		return failed(fault.Wrap(err, "publish names"))
	}
	// Without names much still works: environments start, and NamesFault says so.
	if err := h.ensureDNS(ctx); err != nil {
		h.log.Debug("names are not answered", "err", err)
	}
	return index, nil
}

// unable says that the kernel refuses, where it does.
func unable(err error, format string, args ...any) error {
	for _, refused := range []error{unix.EOPNOTSUPP, unix.EPERM, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, refused) {
			return fault.New(fault.Unable, format+": %w", append(args, err)...).Help("strata host check says what is missing")
		}
	}
	return fault.Wrap(err, format, args...)
}

// ensureBridge makes the bridge, or puts right one that is there.
func ensureBridge(n Network, mtu uint32) (int32, error) {
	link, err := netlink.LinkByName(n.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		snooping := false // no querier here: neighbour discovery must not depend on one
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = n.Bridge, int(mtu), hardwareAddress(n.Gateway4)
		err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, err
		}
		link, err = netlink.LinkByName(n.Bridge)
	}
	if err != nil {
		return 0, err
	}
	if link.Type() != "bridge" {
		return 0, fault.Conflictf("the link %s of this host is a %s, not strata's bridge", n.Bridge, link.Type())
	}
	if err := bridgeSysctls(n); err != nil {
		return 0, err
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipnet(n.Gateway4.AsSlice(), n.IPv4.Bits(), 32)}); err != nil {
		return 0, err
	}
	if n.IPv6.IsValid() {
		err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipnet(n.Gateway6.AsSlice(), n.IPv6.Bits(), 128), Flags: unix.IFA_F_NODAD})
		if err != nil {
			return 0, err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, err
	}
	return int32(link.Attrs().Index), nil
}

func ipnet(ip net.IP, ones, bits int) *net.IPNet {
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(ones, bits)}
}

// bridgeSysctls sets what a bridge needs before it is up. What the filter's
// guard makes safe: packets from 127/8 may be routed to it (route_localnet).
func bridgeSysctls(n Network) error {
	if err := setSysctl("ipv4/conf/"+n.Bridge+"/route_localnet", "1"); err != nil {
		return err
	}
	// What comes in on the bridge may well leave on it (published ports): no news for the sender.
	if err := setSysctl("ipv4/conf/"+n.Bridge+"/send_redirects", "0"); err != nil {
		return err
	}
	if !n.IPv6.IsValid() {
		return nil
	}
	for _, s := range [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"accept_dad", "0"}} {
		if err := setSysctl("ipv6/conf/"+n.Bridge+"/"+s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// enableForwarding switches on what packets need to pass between the bridges and
// the rest of the world: IPv4's always, since published ports need it from
// everywhere, IPv6's where there is a way out by it.
func enableForwarding() error {
	if err := setSysctl("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	var out []uplink
	for _, u := range uplinks() {
		if u.ipv6 {
			out = append(out, u)
		}
	}
	if len(out) == 0 || sysctl("ipv6/conf/all/forwarding") == "1" {
		return nil
	}
	// A router ignores router advertisements unless told otherwise (kernel
	// documentation, networking/ip-sysctl, accept_ra): the host must not lose its
	// own way out.
	for _, u := range out {
		if sysctl("ipv6/conf/"+u.name+"/accept_ra") == "1" {
			if err := setSysctl("ipv6/conf/"+u.name+"/accept_ra", "2"); err != nil {
				return err
			}
		}
	}
	return setSysctl("ipv6/conf/all/forwarding", "1")
}

func deleteBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil && link.Type() == "bridge" {
		err = netlink.LinkDel(link)
	}
	return fault.Wrap(err, "remove bridge %s", name)
}

// Destroy removes everything of this root from the host: links, bridges,
// filter, the answering process. Records of networks stay. Running environments
// lose their network.
func (h *Host) Destroy(ctx context.Context) error {
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	var failed []error
	h.mu.Lock()
	bridges := h.bridges()
	for _, n := range h.networks {
		n.index = 0
	}
	for _, e := range h.environments {
		e.link, e.ports, e.elements, e.rate = "", nil, nil, Rate{}
	}
	clear(h.watched)
	h.mu.Unlock()
	h.unwatchDNS()
	failed = append(failed, h.stopDNS(ctx))
	links, err := portsOf(bridges)
	failed = append(failed, err)
	for _, l := range links {
		failed = append(failed, h.rtnl.deleteLink(l.name))
	}
	for _, b := range bridges {
		failed = append(failed, deleteBridge(b))
	}
	failed = append(failed, h.table.Destroy())
	return fault.Join(failed...)
}

// patience is how often an interrupted dump is repeated.
const patience = 10

// whole calls list until nothing changed meanwhile: links of others come and go, and
// some may be missing in what an interrupted dump returns.
func whole[T any](list func() ([]T, error)) (found []T, err error) {
	for range patience {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

// bridgePort is one outer end of a link.
type bridgePort struct {
	name, bridge string
}

// portsOf lists strata's links on the given bridges.
func portsOf(bridges []string) ([]bridgePort, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fault.Wrap(err, "list links")
	}
	masters := map[int]string{}
	for _, l := range links {
		for _, b := range bridges {
			if l.Attrs().Name == b {
				masters[l.Attrs().Index] = b
			}
		}
	}
	var found []bridgePort
	for _, l := range links {
		bridge, ok := masters[l.Attrs().MasterIndex]
		if ok && l.Attrs().MasterIndex != 0 && strings.HasPrefix(l.Attrs().Name, linkPrefix) {
			found = append(found, bridgePort{l.Attrs().Name, bridge})
		}
	}
	return found, nil
}

// removeFile removes path; one that is gone is no error.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
