package engine

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network"
	"github.com/strata-project/strata/internal/stratum"
)

// FromHost makes a Network of the host's side of it.
func FromHost(h *network.Host) Network { return hosted{h} }

// hosted is the host's network in the words of the wire.
type hosted struct{ h *network.Host }

func (n hosted) Allocate(_ context.Context, net, id, name string) (api.Address, error) {
	a, err := n.h.Allocate(net, id, name)
	return wireAddress(a), err
}

func (n hosted) Reserve(id, name string, a api.Address) error {
	have, err := hostAddress(a)
	if err != nil {
		return err
	}
	return n.h.Reserve(id, name, have)
}

func (n hosted) Release(ctx context.Context, id string) error {
	n.h.Release(ctx, id)
	return nil
}

func (n hosted) Rename(_ context.Context, id, name string) error { return n.h.Rename(id, name) }

func (n hosted) Connect(ctx context.Context, id string, pid int, a api.Address, ports []api.Port) (func(context.Context) error, error) {
	have, err := hostAddress(a)
	if err != nil {
		return nil, err
	}
	wanted, err := hostPorts(ports)
	if err != nil {
		return nil, err
	}
	return n.h.Connect(ctx, id, pid, have, wanted)
}

func (n hosted) ConnectTap(ctx context.Context, id string, a api.Address, ports []api.Port, made *os.File) (*stratum.Tap, error) {
	have, err := hostAddress(a)
	if err != nil {
		return nil, err
	}
	wanted, err := hostPorts(ports)
	if err != nil {
		return nil, err
	}
	tap, err := n.h.ConnectTap(ctx, id, have, wanted, made)
	if err != nil {
		return nil, err
	}
	return &stratum.Tap{File: tap.File, MAC: tap.MAC, MTU: tap.MTU, Address: tap.Address, Gateways: tap.Gateways}, nil
}

func (n hosted) Traffic() map[string]Traffic {
	found, err := n.h.AllTraffic()
	if err != nil {
		return nil
	}
	all := make(map[string]Traffic, len(found))
	for id, t := range found {
		all[id] = Traffic(t)
	}
	return all
}

func (n hosted) SetRate(id string, r Rate) error { return n.h.SetRate(id, network.Rate(r)) }

func (n hosted) Dropped(id string) Rate { return Rate(n.h.Dropped(id)) }

func (n hosted) Lease(id string) error { return n.h.Lease(id) }

func (n hosted) Disconnect(ctx context.Context, id string) error { return n.h.Disconnect(ctx, id) }

func (n hosted) LoopbackOnly(ctx context.Context, pid int) error { return n.h.LoopbackOnly(ctx, pid) }

func (n hosted) CheckPort(_ context.Context, p api.Port) error {
	one, err := hostPorts([]api.Port{p})
	if err != nil {
		return err
	}
	return n.h.CheckPort(one[0])
}

func (n hosted) Sync(ctx context.Context, running map[string]Running) error {
	all := map[string]network.Running{}
	var damaged []error
	for id, r := range running {
		if r.Address.Network == "" {
			continue
		}
		a, err := hostAddress(r.Address)
		ports, bad := hostPorts(r.Ports)
		if err = errors.Join(err, bad); err != nil { // the others are not to be without theirs
			damaged = append(damaged, fault.Wrap(err, "connect %s again", id))
			continue
		}
		all[id] = network.Running{PID: r.PID, Tap: r.Tap, Address: a, Ports: ports, Rate: network.Rate(r.Rate)}
	}
	err := n.h.Sync(ctx, all)
	if err == nil && len(all) > 0 { // else who connects first starts it
		err = n.h.EnsureDNS(ctx)
	}
	return fault.Join(append(damaged, err)...)
}

func (n hosted) SyncLate(ctx context.Context) error {
	if err := n.h.SyncLate(ctx); err != nil {
		return err
	}
	_ = n.h.EnsureDNS(ctx) // tolerated: NamesFault tells, and much works without
	return nil
}

func (n hosted) Watch(ctx context.Context, lost func(string)) { n.h.Watch(ctx, lost) }

func (n hosted) ResolvConf(a api.Address, dns []string) ([]byte, error) {
	net, err := n.h.Network(a.Network)
	if err != nil {
		return nil, err
	}
	var servers []netip.Addr
	for _, text := range dns {
		server, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fault.Invalidf("%q is not an address", text).At("dns")
		}
		servers = append(servers, server)
	}
	return n.h.ResolvConf(net, servers, nil), nil
}

func (n hosted) Networks() []api.Network {
	all := []api.Network{}
	for _, one := range n.h.Networks() {
		all = append(all, wireNetwork(one))
	}
	return all
}

func (n hosted) Network(name string) (api.Network, error) {
	one, err := n.h.Network(name)
	return wireNetwork(one), err
}

func (n hosted) Create(ctx context.Context, w api.Network) (api.Network, error) {
	asked := network.Network{Name: w.Name, Isolated: w.Isolated, Project: w.Project}
	var bad []error
	for _, subnet := range []struct {
		text, field string
		to          *netip.Prefix
	}{{w.IPv4, "ipv4", &asked.IPv4}, {w.IPv6, "ipv6", &asked.IPv6}} {
		if subnet.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(subnet.text)
		if err != nil {
			bad = append(bad, fault.Invalidf("%q is not a subnet", subnet.text).At(subnet.field).Help("write an address and a length, such as 10.7.0.0/24"))
			continue
		}
		*subnet.to = p
	}
	if len(bad) > 0 {
		return w, fault.Join(bad...)
	}
	made, err := n.h.Create(ctx, asked)
	return wireNetwork(made), err
}

func (n hosted) Remove(ctx context.Context, name string) error { return n.h.Remove(ctx, name, nil) }

func (n hosted) Destroy(ctx context.Context) error { return n.h.Destroy(ctx) }

func (n hosted) Check(ctx context.Context) []api.Finding {
	var all []api.Finding
	for _, f := range n.h.Check(ctx) {
		all = append(all, api.Finding{Group: "network", Name: f.Name, OK: f.OK, Needed: f.Needed, Detail: f.Detail, How: f.How, Lost: f.Lost, Fix: f.Fix})
	}
	return all
}

func wireNetwork(n network.Network) api.Network {
	w := api.Network{Name: n.Name, Isolated: n.Isolated, Project: n.Project, Bridge: n.Bridge, Created: n.Created}
	if n.IPv4.IsValid() {
		w.IPv4 = n.IPv4.String()
	}
	if n.IPv6.IsValid() {
		w.IPv6 = n.IPv6.String()
	}
	return w
}

func wireAddress(a network.Address) api.Address {
	w := api.Address{Network: a.Network, MAC: a.MAC}
	if a.IPv4.IsValid() {
		w.IPv4 = a.IPv4.String()
	}
	if a.IPv6.IsValid() {
		w.IPv6 = a.IPv6.String()
	}
	return w
}

func hostAddress(w api.Address) (network.Address, error) {
	a := network.Address{Network: w.Network, MAC: w.MAC}
	var err error
	if a.IPv4, err = netip.ParseAddr(w.IPv4); err != nil {
		return a, fault.Internalf("the record's address is damaged: %w", err)
	}
	if w.IPv6 != "" {
		if a.IPv6, err = netip.ParseAddr(w.IPv6); err != nil {
			return a, fault.Internalf("the record's address is damaged: %w", err)
		}
	}
	return a, nil
}

func hostPorts(ports []api.Port) ([]network.Port, error) {
	var all []network.Port
	for i, p := range ports {
		one := network.Port{HostPort: p.HostPort, Port: p.Port, Protocol: p.Protocol}
		if one.Protocol == "" {
			one.Protocol = "tcp"
		}
		if p.HostIP != "" {
			ip, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return nil, fault.Invalidf("%q is not an address", p.HostIP).At("ports[" + itoa(i) + "].host_ip")
			}
			one.HostIP = ip.Unmap()
		}
		all = append(all, one)
	}
	return all, nil
}
