package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/nft"
	"github.com/strata-project/strata/internal/undo"
)

// Connect joins the network namespace of process pid to id's network: link,
// addresses, routes, lo up, ports published, name known. The namespace must have
// no eth0 yet. undo takes it all back, in the way of Disconnect; if Connect
// fails, it has done so itself. Kinds: Missing (id has no address, no such
// process), Conflict (port taken, id is connected), Unable (the host cannot).
func (h *Host) Connect(ctx context.Context, id string, pid int, a Address, ports []Port) (undoIt func(context.Context) error, err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	target, err := namespaceOf(pid)
	if err != nil {
		return nil, fault.New(fault.Missing, "connect to network: %w", err)
	}
	defer target.Close()
	plan, err := h.admit(ctx, &back, id, a, ports)
	if err != nil {
		return nil, err
	}
	pair := func(p linkPlan) []*request { return p.requests(int(target.Fd())) }
	if err := h.makeLink(ctx, plan, pair, a.Network); err != nil {
		return nil, err
	}
	if err := h.configure(plan, target); err != nil {
		return nil, fault.Wrap(err, "configure link inside")
	}
	if err := h.zone.flush(); err != nil {
		return nil, fault.Wrap(err, "publish name")
	}
	return func(ctx context.Context) error { return h.Disconnect(ctx, id) }, nil
}

// admit does all that comes before the link: the network is ready, the ports are
// id's, and the filter watches the link that is about to be.
func (h *Host) admit(ctx context.Context, back *undo.Stack, id string, a Address, ports []Port) (linkPlan, error) {
	if err := h.Ensure(ctx, a.Network); err != nil {
		return linkPlan{}, err
	}
	plan, elements, err := h.claim(id, a, ports, "")
	if err != nil {
		return linkPlan{}, err
	}
	back.Push("disconnect", func(ctx context.Context) error { return h.Disconnect(ctx, id) })
	for _, p := range ports {
		if err := h.checkHost(p); err != nil {
			return linkPlan{}, err
		}
	}
	if err := h.put(elements); err != nil {
		return linkPlan{}, err
	}
	h.forgetSenders(ports)
	return plan, nil
}

// claim books the ports and the link's name for id, and says what is to be done.
// link is the name where there is a link already, else "".
func (h *Host) claim(id string, a Address, ports []Port, link string) (linkPlan, []nft.Element, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.environments[id]
	if !ok || e.address != a {
		return linkPlan{}, nil, fault.Missingf("the address %s is not given to %s", a.IPv4, id)
	}
	if e.link != "" {
		return linkPlan{}, nil, fault.Conflictf("%s is connected already", e.name)
	}
	n, err := h.network(a.Network)
	if err != nil {
		return linkPlan{}, nil, err
	}
	if n.Isolated && len(ports) > 0 {
		return linkPlan{}, nil, fault.Invalidf("the network %q is isolated, so nothing on it can be published", n.Name).At("ports").Help("use another network, or no ports")
	}
	for i, p := range ports {
		if err := p.valid(); err != nil {
			return linkPlan{}, nil, err
		}
		if other := h.portHolder(p, ""); other != nil {
			return linkPlan{}, nil, heldBy(p, other)
		}
		for _, q := range ports[:i] {
			if p.clashes(q) {
				return linkPlan{}, nil, fault.Invalidf("%s is asked for twice", p.listens()).At("ports")
			}
		}
	}
	if link == "" {
		link = h.freeLink(id)
	}
	plan, err := n.plan(link, a)
	if err != nil {
		return linkPlan{}, nil, fault.Invalidf("%w", err)
	}
	plan.Hairpin = len(ports) > 0
	e.link, e.ports = plan.Link, append([]Port(nil), ports...)
	e.elements = e.wanted()
	return plan, append([]nft.Element{nft.PortElement(e.link)}, e.elements...), nil
}

// wanted are the elements that a connected environment has, its watch aside.
func (e *environment) wanted() []nft.Element {
	mac, err := net.ParseMAC(e.address.MAC)
	if err != nil {
		return nil
	}
	found := nft.Guest{Link: e.link, MAC: mac, IPv4: e.address.IPv4, IPv6: e.address.IPv6}.Elements()
	for _, p := range e.ports {
		found = append(found, nft.Publish{HostIP: p.HostIP, HostPort: p.HostPort, Protocol: p.Protocol, IPv4: e.address.IPv4, IPv6: e.address.IPv6, Port: p.Port}.Elements()...)
	}
	return found
}

// linkPrefix begins the names of all links' outer ends.
const linkPrefix = "sv"

// freeLink returns a name for id's next link that none of its earlier ones still
// has, with h.mu held. sv + 12 digits + 1 is all that a name can hold
// (linux/if.h, IFNAMSIZ).
func (h *Host) freeLink(id string) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	for range len(digits) {
		name := linkPrefix + id + string(digits[h.generation.Add(1)%uint32(len(digits))])
		if h.watched[name] {
			continue
		}
		// One that an earlier daemon left may still be there.
		if index, err := h.rtnl.linkIndex(name); err != nil || index == 0 {
			return name
		}
	}
	return linkPrefix + id + "0"
}

// put puts elements in. Where somebody has removed the tables meanwhile, all
// that should be in them is put there anew.
func (h *Host) put(elements []nft.Element) error {
	err := h.table.Change(nil, elements)
	if err == nil || !nft.Missing(err) {
		return err
	}
	h.log.Debug("the nft tables were gone and are made again")
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	return h.match()
}

// match makes the filter hold exactly what is wanted, with h.ensuring held.
func (h *Host) match() error {
	made, err := h.table.Ensure(h.wanted)
	if err != nil {
		return err
	}
	if err := h.table.MatchRates(h.wantedRates()); err != nil {
		return err
	}
	if made {
		return nil
	}
	added, removed, err := h.table.Match(h.wanted)
	if err == nil && added+removed > 0 {
		h.log.Debug("the nft tables were put right", "added", added, "removed", removed)
	}
	return err
}

// wanted are all elements of this root. The filter calls it while it is locked:
// whoever is claimed before is in it, and whoever is claimed after puts his own
// elements in after. A network that somebody is connected to is in it also where it is
// not ready, or not yet: without it nothing keeps him apart.
func (h *Host) wanted() []nft.Element {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []nft.Element
	connected := map[string]bool{}
	for _, e := range h.environments {
		if e.link != "" {
			connected[e.address.Network] = true
			all = append(all, nft.PortElement(e.link))
			all = append(all, e.elements...)
		}
	}
	for _, n := range h.networks {
		if n.index != 0 || connected[n.Name] {
			all = append(all, n.filter().Elements()...)
		}
	}
	for link := range h.watched {
		all = append(all, nft.PortElement(link))
	}
	return all
}

func (n *networkState) filter() nft.Network {
	return nft.Network{Bridge: n.Bridge, IPv4: n.IPv4, IPv6: n.IPv6, Gateway4: n.Gateway4, Gateway6: n.Gateway6, Isolated: n.Isolated}
}

// makeLink makes the link by the requests of a plan; if the bridge is gone it is
// made again, once.
func (h *Host) makeLink(ctx context.Context, p linkPlan, requests func(linkPlan) []*request, network string) error {
	err := h.rtnl.do(nil, requests(p)...)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		var index int32
		if index, err = h.ensureAgain(ctx, network); err != nil {
			return err
		}
		p.Master = index
		err = h.rtnl.do(nil, requests(p)...)
	}
	switch {
	case errors.Is(err, unix.EXFULL):
		return fault.Unablef("the network %q is full: its bridge holds at most %d links", network, MaxConnected).At("network").Help("stop environments, or use another network")
	case errors.Is(err, unix.EEXIST):
		return fault.Conflictf("%w, or eth0 inside: there is one already", err)
	case err != nil:
		return err
	}
	index, err := h.rtnl.linkIndex(p.Link)
	if err != nil {
		return err
	}
	return h.rtnl.do(nil, p.station(index))
}

// configure gives eth0 in target its addresses and routes, sets lo up, and waits
// until both ends carry.
func (h *Host) configure(p linkPlan, target *os.File) error {
	in, err := socketIn(target)
	if err != nil {
		return err
	}
	defer in.close()
	index, err := in.linkIndex(inside)
	if err != nil {
		return err
	}
	if err := in.do(nil, p.inner(index)...); err != nil {
		return err
	}
	if _, err := in.linkIndex(inside); err != nil { // as notice does
		return err
	}
	return h.notice(p)
}

// notice waits until the kernel knows that the link carries, and with the first
// link the bridge. It notices in its own time, and what comes before is dropped;
// whoever asks for a link makes it notice at once. Source: net/core/rtnetlink.c,
// rtnl_getlink, from Linux 6.9 on.
func (h *Host) notice(p linkPlan) error {
	for _, name := range []string{p.Link, p.Bridge} {
		if _, err := h.rtnl.linkIndex(name); err != nil {
			return err
		}
	}
	return nil
}

// LoopbackOnly sets lo up in the network namespace of process pid, and nothing
// else. Kinds: Missing (no such process).
func (h *Host) LoopbackOnly(ctx context.Context, pid int) error {
	target, err := namespaceOf(pid)
	if err != nil {
		return fault.New(fault.Missing, "set loopback up: %w", err)
	}
	defer target.Close()
	in, err := socketIn(target)
	if err != nil {
		return fault.Wrap(err, "set loopback up")
	}
	defer in.close()
	return fault.Wrap(in.do(nil, upRequest(loopbackIndex)), "set loopback up")
}

// grace is how long the kernel gets to remove a link by itself, which it does
// once the namespace of the inner end is gone.
const grace = time.Second

// Disconnect unpublishes id's ports and cuts its link at once; the link itself
// goes with its namespace, or is removed a little later. Whoever is not
// connected is no error.
func (h *Host) Disconnect(ctx context.Context, id string) error {
	h.mu.Lock()
	delete(h.unsynced, id)
	e, ok := h.environments[id]
	if !ok || e.link == "" {
		h.mu.Unlock()
		return nil
	}
	link, elements, ports, limited := e.link, e.elements, e.ports, e.rate != Rate{}
	e.link, e.ports, e.elements, e.rate = "", nil, nil, Rate{}
	if e.unlease != nil {
		e.unlease()
		e.unlease = nil
	}
	h.watched[link] = true
	h.mu.Unlock()
	time.AfterFunc(grace, func() { h.reap(link) })
	if limited {
		if err := h.table.SetRate(link, Rate{}); err != nil { // the next Sync removes it
			h.log.Debug("the limits of a link that is gone stay", "link", link, "err", err)
		}
	}
	err := h.table.Change(elements, nil)
	if nft.Missing(err) { // not all of it was there: Connect failed half way, or somebody else removed some
		h.ensuring.Lock()
		err = h.match()
		h.ensuring.Unlock()
	}
	h.forgetSenders(ports)
	return err
}

// reap removes a link that should be gone, and ends its watch.
func (h *Host) reap(link string) {
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return // the next Sync does it
	}
	index, err := h.rtnl.linkIndex(link)
	if err == nil && index != 0 {
		var own rtnl // so that Connect does not wait behind the deletion
		err = own.deleteLink(link)
		own.close()
	}
	if err != nil {
		h.log.Debug("a link that should be gone is still there", "link", link, "err", err)
		return
	}
	h.mu.Lock()
	delete(h.watched, link)
	h.mu.Unlock()
	if err := h.table.Change([]nft.Element{nft.PortElement(link)}, nil); err != nil && !nft.Missing(err) {
		h.log.Debug("the watch over a link that is gone stays", "link", link, "err", err)
	}
}

// Stats are counters of one link, as the environment sees them.
type Stats struct {
	RxBytes, RxPackets, RxDropped uint64
	TxBytes, TxPackets, TxDropped uint64
}

// Stats returns the counters of id's link. Kinds: Missing (not connected).
func (h *Host) Stats(id string) (Stats, error) {
	h.mu.Lock()
	var link string
	if e, ok := h.environments[id]; ok {
		link = e.link
	}
	h.mu.Unlock()
	if link == "" {
		return Stats{}, fault.Missingf("%s is not connected to a network", id)
	}
	var s Stats
	q := &request{what: "look up link " + link, kind: unix.RTM_GETLINK, body: ifinfo(0, false)}
	q.attr(unix.IFLA_IFNAME, text(link))
	err := h.rtnl.do(func(kind uint16, body []byte) {
		if kind != unix.RTM_NEWLINK || len(body) < unix.SizeofIfInfomsg {
			return
		}
		attributes(body[unix.SizeofIfInfomsg:], func(kind uint16, b []byte) {
			if kind != unix.IFLA_STATS64 || len(b) < 64 {
				return
			}
			// struct rtnl_link_stats64 of linux/if_link.h; what the host's end received, the environment sent.
			word := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
			s = Stats{TxPackets: word(0), RxPackets: word(1), TxBytes: word(2), RxBytes: word(3), TxDropped: word(6), RxDropped: word(7)}
		})
	}, q)
	if errors.Is(err, unix.ENODEV) {
		return Stats{}, fault.Missingf("the link of %s is gone", id)
	}
	return s, err
}
