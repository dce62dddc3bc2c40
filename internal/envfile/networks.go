package envfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Network is one network as it should be.
type Network struct {
	Name     string `json:"name" maxLength:"63" doc:"Name, by which environments of the file are put on it (network: NAME)."`
	Isolated bool   `json:"isolated,omitempty" doc:"No way out of it and none in."`
	IPv4     string `json:"ipv4,omitempty" maxLength:"45" doc:"Subnet, such as 10.7.0.0/24. Default: a free one."`
	IPv6     string `json:"ipv6,omitempty" maxLength:"64" doc:"Subnet. Default: a unique local one."`
}

// Those that are there without a file.
const (
	defaultNetwork = "default"
	noNetwork      = "none"
)

// NetworkStep is what is done to one network: Create, Remove or None.
type NetworkStep struct {
	Name   string      `json:"name"`
	Action string      `json:"action"`
	Make   api.Network `json:"-"` // what is asked for, with Create
}

// checkNetworks refuses names that are none, are taken, or stand twice.
func (r *reader) checkNetworks(f *File) {
	seen := map[string]bool{}
	for i := range f.Networks {
		n, path := &f.Networks[i], fmt.Sprintf("networks[%d]", i)
		switch {
		case !label(n.Name):
			r.wrong(path+".name", "%s cannot be a name", clip(n.Name)).Help("use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")
		case n.Name == defaultNetwork || n.Name == noNetwork:
			r.wrong(path+".name", "the network %s is there without a file", n.Name).Help("choose another name, or leave it out")
		case seen[n.Name]:
			r.wrong(path+".name", "the network %s is described a second time", n.Name)
		}
		seen[n.Name] = true
		for field, text := range map[string]*string{"ipv4": &n.IPv4, "ipv6": &n.IPv6} {
			if *text == "" {
				continue
			}
			p, err := netip.ParsePrefix(*text)
			if err != nil || p.Addr().Is4() != (field == "ipv4") {
				r.wrong(path+"."+field, "%s is not a subnet", clip(*text)).Help("write an address and a length, such as 10.7.0.0/24")
				continue
			}
			*text = p.Masked().String()
		}
	}
}

// networks compares the networks of f with those that exist: what is made before the
// environments, and what of the project goes after them.
func networks(f File, o Options) (steps []NetworkStep, err error) {
	var bad []error
	for i, n := range f.Networks {
		have := slices.IndexFunc(o.Networks, func(h api.Network) bool { return h.Name == n.Name })
		if have < 0 {
			steps = append(steps, NetworkStep{n.Name, Create, api.Network{Name: n.Name, Isolated: n.Isolated, IPv4: n.IPv4, IPv6: n.IPv6, Project: f.Project}})
			continue
		}
		steps = append(steps, NetworkStep{Name: n.Name, Action: None})
		if says := differs(n, o.Networks[have], f.Project); says != "" {
			bad = append(bad, f.place(fmt.Sprintf("networks[%d]", i), fault.Conflictf("the network %s %s", n.Name, says).
				Help("a network keeps what it was made with: take the difference back, or remove it and what is on it: strata network rm %s", n.Name)))
		}
	}
	for i, e := range f.Environments {
		if !f.hasNetwork(e.Network, o) {
			bad = append(bad, f.place(fmt.Sprintf("environments[%d]", i), fault.Missingf("there is no network %q", e.Network).At("network").
				Help("describe it at the top of the file: networks: [{name: %s}]", e.Network)))
		}
	}
	for _, h := range o.Networks {
		named := slices.ContainsFunc(f.Networks, func(n Network) bool { return n.Name == h.Name })
		if o.Prune && h.Project != "" && h.Project == f.Project && !named {
			steps = append(steps, NetworkStep{Name: h.Name, Action: Remove})
		}
	}
	return steps, fault.Join(bad...)
}

// hasNetwork tells whether an environment can be put on a network.
func (f File) hasNetwork(name string, o Options) bool {
	return name == "" || name == defaultNetwork || name == noNetwork ||
		slices.ContainsFunc(f.Networks, func(n Network) bool { return n.Name == name }) ||
		slices.ContainsFunc(o.Networks, func(n api.Network) bool { return n.Name == name })
}

// differs says in what a network is not as the file has it, "" for nothing.
func differs(n Network, have api.Network, project string) string {
	var all []string
	if have.Project != "" && have.Project != project {
		all = append(all, fmt.Sprintf("is of the project %q", have.Project))
	}
	if have.Isolated != n.Isolated {
		all = append(all, map[bool]string{true: "is isolated", false: "is not isolated"}[have.Isolated])
	}
	for _, subnet := range [][2]string{{n.IPv4, have.IPv4}, {n.IPv6, have.IPv6}} {
		if subnet[0] != "" && subnet[0] != subnet[1] {
			all = append(all, "has the subnet "+subnet[1]+", and not "+subnet[0])
		}
	}
	return strings.Join(all, ", and ")
}

// WithNetworks returns f with those of have that its environments are on, as they are.
func (f File) WithNetworks(have []api.Network) File {
	for _, h := range have {
		used := slices.ContainsFunc(f.Environments, func(e Entry) bool { return e.Network == h.Name })
		if used && h.Name != defaultNetwork {
			f.Networks = append(f.Networks, Network{h.Name, h.Isolated, h.IPv4, h.IPv6})
		}
	}
	return f
}

// LocateNetwork is Locate for a fault of a network's.
func (f File) LocateNetwork(name string, err error) error {
	return f.locate("networks", slices.IndexFunc(f.Networks, func(n Network) bool { return n.Name == name }), err)
}
