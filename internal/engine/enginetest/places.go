package enginetest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Templates are made by the test.
type Templates struct {
	mu  sync.Mutex
	All map[string]api.Template // by name
}

// NewTemplates returns busybox (app) and debian (system).
func NewTemplates() *Templates {
	return &Templates{All: map[string]api.Template{
		"busybox": {ID: "sha256:b0", Names: []string{"busybox:latest"}, Kind: "app", Config: api.TemplateConfig{Command: []string{"sh"}}, Layers: []api.Layer{{DiffID: "sha256:d0", Digest: "sha256:e0"}}},
		"debian":  {ID: "sha256:b1", Names: []string{"debian:latest"}, Kind: "system", Layers: []api.Layer{{DiffID: "sha256:d1", Digest: "sha256:e1"}}},
	}}
}

// Get returns a template by name or id.
func (t *Templates) Get(ref string) (api.Template, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, one := range t.All {
		if name == ref || one.ID == ref {
			return one, nil
		}
	}
	return api.Template{}, fault.Missingf("there is no template %q", ref).At("template")
}

// Use runs do with a template.
func (t *Templates) Use(ref string, do func(api.Template) error) error {
	one, err := t.Get(ref)
	if err != nil {
		return err
	}
	return do(one)
}

// List returns all templates.
func (t *Templates) List() []api.Template {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []api.Template
	for _, one := range t.All {
		all = append(all, one)
	}
	return all
}

// LayerPath makes up a path.
func (t *Templates) LayerPath(digest string) string { return "/layers/" + digest }

// Whole returns a path that is nowhere, and says that it was made.
func (t *Templates) Whole(_ context.Context, ref string, tell func(api.Progress)) (digest, path string, err error) {
	tell(api.Progress{Step: "merge", Item: ref, Done: 1, Total: 1})
	one, err := t.Get(ref)
	return "whole-" + one.ID, "/whole/" + one.ID, err
}

// Busybox returns the template busybox.
func (t *Templates) Busybox(context.Context) (api.Template, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := NewTemplates().All["busybox"]
	t.All["busybox"] = one
	return one, nil
}

// Tag gives a template a further name.
func (t *Templates) Tag(ref, name string) error {
	one, err := t.Get(ref)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.All[name] = one
	return nil
}

// Remove removes a template that is not used.
func (t *Templates) Remove(ref string, _ bool, used func(string) []string) (int64, error) {
	one, err := t.Get(ref)
	if err != nil {
		return 0, err
	}
	if users := used(one.ID); len(users) > 0 {
		return 0, fault.Conflictf("template %s is in use by %v", ref, users)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, other := range t.All {
		if other.ID == one.ID {
			delete(t.All, name)
		}
	}
	return 1, nil
}

// Prune removes what is not used.
func (t *Templates) Prune(used func(string) []string, all bool) (removed []string, freed int64, err error) {
	for _, one := range t.List() {
		if all && len(used(one.ID)) == 0 {
			n, err := t.Remove(one.ID, true, used)
			if err != nil {
				return removed, freed, err
			}
			removed, freed = append(removed, one.ID), freed+n
		}
	}
	return removed, freed, nil
}

// Pool makes empty files.
type Pool struct {
	Fail error     // what Create fails with
	Cost unit.Size // of a clone
}

// Create makes an empty file.
func (p *Pool) Create(_ context.Context, path string, _ unit.Size) error {
	if p.Fail != nil {
		return p.Fail
	}
	return os.WriteFile(path, []byte("disk"), 0o600)
}

// Grow makes the file longer.
func (p *Pool) Grow(_ context.Context, path string, size unit.Size) error {
	return os.Truncate(path, int64(size))
}

// Clone copies the file.
func (p *Pool) Clone(_ context.Context, src, dst string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}

// CloneCost is Cost.
func (p *Pool) CloneCost(string) (unit.Size, error) { return p.Cost, nil }

// Remove removes the file.
func (p *Pool) Remove(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Network keeps addresses in memory. A second engine gets a Network of its own.
type Network struct {
	mu        sync.Mutex
	next      int
	Held      map[string]string // id to name
	Connected map[string]bool
	nets      []api.Network
	rates     map[string]engine.Rate    // of who is connected
	Synced    map[string]engine.Running // what the last Sync was told
	Taken     uint16                    // a host port that a program of the host holds
}

// NewNetwork returns a network with nobody on it.
func NewNetwork() *Network {
	return &Network{Held: map[string]string{}, Connected: map[string]bool{}, rates: map[string]engine.Rate{}, nets: []api.Network{{Name: "default"}}}
}

// Allocate gives an address.
func (n *Network) Allocate(_ context.Context, network, id, name string) (api.Address, error) {
	if _, err := n.Network(network); err != nil {
		return api.Address{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	n.Held[id] = name
	return api.Address{Network: network, IPv4: fmt.Sprintf("10.0.%d.%d", n.next/250, n.next%250+2), MAC: "02:00:00:00:00:01"}, nil
}

// Reserve takes an address of a record.
func (n *Network) Reserve(id, name string, a api.Address) error {
	if _, err := n.Network(a.Network); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Held[id] = name
	return nil
}

// Release gives an address back.
func (n *Network) Release(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.Held, id)
	return nil
}

// Rename notes another name.
func (n *Network) Rename(_ context.Context, id, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Held[id] = name
	return nil
}

// Connect notes that id is on its network.
func (n *Network) Connect(_ context.Context, id string, _ int, _ api.Address, _ []api.Port) (func(context.Context) error, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Connected[id] = true
	return func(ctx context.Context) error { return n.Disconnect(ctx, id) }, nil
}

// ConnectTap notes that id is on its network, and gives a file that is no tap's.
func (n *Network) ConnectTap(ctx context.Context, id string, a api.Address, ports []api.Port, _ *os.File) (*stratum.Tap, error) {
	if _, err := n.Connect(ctx, id, 0, a, ports); err != nil {
		return nil, err
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(a.IPv4)
	return &stratum.Tap{File: f, MAC: a.MAC, MTU: 1500, Address: []netip.Prefix{netip.PrefixFrom(ip, 16)}}, err
}

// Traffic says that who is connected has received twice what it has sent.
func (n *Network) Traffic() map[string]engine.Traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[string]engine.Traffic{}
	for id, on := range n.Connected {
		if on {
			all[id] = engine.Traffic{Received: 2000, Sent: 1000}
		}
	}
	return all
}

// Disconnect notes that id is off its network.
func (n *Network) Disconnect(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.Connected, id)
	delete(n.rates, id)
	return nil
}

// LoopbackOnly does nothing.
func (n *Network) LoopbackOnly(context.Context, int) error { return nil }

// CheckPort refuses Taken.
func (n *Network) CheckPort(_ context.Context, p api.Port) error {
	if n.Taken != 0 && p.HostPort == n.Taken {
		return fault.Conflictf("host port %d is held by a program of the host", p.HostPort).At("ports")
	}
	return nil
}

// Sync notes what it was told.
func (n *Network) Sync(_ context.Context, live map[string]engine.Running) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Synced = live
	return nil
}

// SyncLate has nothing to make up for.
func (n *Network) SyncLate(context.Context) error { return nil }

// ResolvConf writes the servers.
func (n *Network) ResolvConf(_ api.Address, dns []string) ([]byte, error) {
	return fmt.Appendf(nil, "%v\n", dns), nil
}

// Networks returns all networks.
func (n *Network) Networks() []api.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.nets)
}

// Network returns one network.
func (n *Network) Network(name string) (api.Network, error) {
	for _, one := range n.Networks() {
		if one.Name == name {
			return one, nil
		}
	}
	return api.Network{}, fault.Missingf("there is no network %q", name).At("network")
}

// Create makes a network.
func (n *Network) Create(_ context.Context, net api.Network) (api.Network, error) {
	if _, err := n.Network(net.Name); err == nil {
		return net, fault.Conflictf("there is a network %q already", net.Name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	net.Created = time.Now()
	n.nets = append(n.nets, net)
	return net, nil
}

// Remove removes a network.
func (n *Network) Remove(_ context.Context, name string) error {
	if _, err := n.Network(name); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nets = slices.DeleteFunc(n.nets, func(one api.Network) bool { return one.Name == name })
	return nil
}

// Destroy forgets everything.
func (n *Network) Destroy(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.Connected)
	return nil
}

// Check has nothing to say.
func (n *Network) Check(context.Context) []api.Finding { return nil }

// Names returns who holds an address, by name.
func (n *Network) Names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := []string{}
	for _, name := range n.Held {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
