package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/nft"
	"github.com/strata-project/strata/internal/thread"
)

// Finding is one thing that Check looked at.
type Finding struct {
	Name   string
	OK     bool
	Needed bool   // zones with a network do not work without it
	Detail string // what was found
	How    string // how it was probed
	Lost   string // what is lost without it
	Fix    string // what the admin can do
}

// Check looks at what this host offers to networks. It changes nothing on it:
// what must be tried is tried in a network namespace that is thrown away.
func (h *Host) Check(ctx context.Context) []Finding {
	return []Finding{probe(), h.checkUplink(), h.checkForwarding(), h.checkForeign(), h.checkNames()}
}

// probe makes strata's own tables in a namespace that is thrown away.
func probe() Finding {
	f := Finding{Name: "strata's rules", Needed: true, How: "made strata's tables (inet and bridge: filter, nat, fib, masquerade) in a new network namespace",
		Lost: "environments have no network", Fix: "modprobe -a nf_tables nft_chain_nat nft_nat nft_masq nft_fib_inet nft_ct nft_meta_bridge, or a kernel with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_BRIDGE"}
	var failed error
	err := inThrowaway(func() {
		table := nft.Open("strata-probe")
		defer table.Close()
		_, failed = table.Ensure(func() []nft.Element { return nil })
	})
	switch {
	case err != nil:
		f.Detail, f.Fix = err.Error(), "run it as root"
	case failed != nil:
		f.Detail = failed.Error()
	default:
		f.OK = true
	}
	return f
}

func (h *Host) checkNames() Finding {
	f := Finding{Name: "name service", How: "asked each gateway for a name", Detail: "it was not needed yet",
		Lost: "environments do not find each other by name; other names are asked of the host's servers",
		Fix:  "let the program that listens on port 53 of every address listen on the addresses that need it (bind: listen-on; dnsmasq: bind-interfaces), then restart stratad"}
	err := h.NamesFault()
	h.mu.Lock()
	var gateways []netip.Addr
	for _, n := range h.networks {
		if n.index != 0 && len(h.o.DNSCommand) > 0 {
			gateways = append(gateways, n.Gateway4)
		}
	}
	h.mu.Unlock()
	for _, g := range gateways {
		if err == nil {
			err = answers(g)
			f.Detail = "it answers"
		}
	}
	if f.OK = err == nil; !f.OK {
		f.Detail = err.Error()
	}
	return f
}

// answers asks the name service at a gateway's address, which has some answer for the host too.
func answers(gateway netip.Addr) error {
	question := new(dns.Msg)
	question.SetQuestion("strata.", dns.TypeSOA)
	client := dns.Client{Timeout: 2 * time.Second}
	_, _, err := client.Exchange(question, netip.AddrPortFrom(gateway, dnsPort).String())
	return fault.Wrap(err, "ask the name service")
}

// dnsPort is where the gateways answer names. Source: RFC 1035 4.2.
const dnsPort = 53

// inThrowaway runs f on a thread with a new network namespace; both end with it.
func inThrowaway(f func()) error {
	return thread.Spare(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		f()
		return nil
	})
}

func (h *Host) checkUplink() Finding {
	f := Finding{Name: "uplink", How: "looked for default routes", Lost: "environments reach each other and this host only", Fix: "give the host a default route; strata sees it by itself when the next environment starts"}
	var names []string
	for _, u := range uplinks() {
		version := "IPv4"
		if u.ipv6 {
			version = "IPv6"
		}
		names = append(names, version+" by "+u.name)
	}
	f.OK, f.Detail = len(names) > 0, strings.Join(names, ", ")
	return f
}

func (h *Host) checkForwarding() Finding {
	f := Finding{Name: "forwarding", How: "read /proc/sys/net/ipv4/ip_forward, and whether it can be written",
		Lost: "environments reach each other and this host only, and published ports are reached from this host only", Fix: "sysctl net.ipv4.ip_forward=1"}
	f.OK = sysctl("ipv4/ip_forward") == "1"
	if f.OK {
		return f
	}
	if err := unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.OK, f.Detail = true, "off; strata switches it on with the first network"
	return f
}

// checkForeign looks whether somebody else's rules drop what is forwarded, as
// Docker's do. A packet must pass everybody's chains, so strata's own accept is
// of no help.
func (h *Host) checkForeign() Finding {
	f := Finding{Name: "other firewalls", OK: true, How: "read the policies of all chains at the forward hook, and iptables' older interface, and whether DOCKER-USER lets strata's bridges pass"}
	droppers, user, err := h.foreignChains()
	if err != nil {
		f.Detail = "not known: " + err.Error()
		return f
	}
	if legacyForwardDrops() {
		droppers = append(droppers, "iptables-legacy FORWARD")
	}
	if len(droppers) == 0 {
		return f
	}
	h.mu.Lock()
	bridges := h.bridges()
	h.mu.Unlock()
	if len(bridges) == 0 {
		bridges = []string{h.bridgeName(Default)}
	}
	var lost []string
	for _, b := range bridges {
		if !user.lets(b) {
			lost = append(lost, b)
		}
	}
	f.Detail = strings.Join(droppers, ", ") + " drops by default"
	if f.OK = len(lost) == 0; f.OK {
		f.Detail += ", but lets " + strings.Join(bridges, ", ") + " pass"
		return f
	}
	f.Lost = "environments on " + strings.Join(lost, ", ") + " do not reach the world, and their published ports are reached from this host only"
	if sysctl("bridge/bridge-nf-call-iptables") == "1" {
		f.Lost += "; nor do they reach each other, since br_netfilter is on"
	}
	chain := "FORWARD"
	if user.there {
		chain = "DOCKER-USER"
	}
	var fix []string
	for _, b := range lost {
		fix = append(fix, fmt.Sprintf("iptables -I %s -i %s -j ACCEPT", chain, b), fmt.Sprintf("iptables -I %s -o %s -j ACCEPT", chain, b))
	}
	f.Fix = strings.Join(fix, "\n")
	if chain == "FORWARD" {
		f.Fix += "\n(Docker keeps a chain DOCKER-USER for such rules; strata never changes rules of others)"
	}
	return f
}

// userChain is what was found of accepting rules for links by name.
type userChain struct {
	there   bool
	in, out map[string]bool
}

func (u userChain) lets(bridge string) bool { return u.in[bridge] && u.out[bridge] }

// foreignChains finds forward chains of others that drop by default, and what
// rules that admins make let pass.
func (h *Host) foreignChains() (droppers []string, user userChain, err error) {
	user = userChain{in: map[string]bool{}, out: map[string]bool{}}
	conn, err := nftables.New()
	if err != nil {
		return nil, user, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, user, err
	}
	for _, c := range chains {
		if strings.HasPrefix(c.Table.Name, "strata") || c.Table.Family != nftables.TableFamilyIPv4 && c.Table.Family != nftables.TableFamilyINet {
			continue
		}
		forward := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward
		if forward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			droppers = append(droppers, "chain "+c.Name+" of nft table "+c.Table.Name)
		}
		if !forward && c.Name != "DOCKER-USER" {
			continue
		}
		user.there = user.there || c.Name == "DOCKER-USER"
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, user, err
		}
		for _, r := range rules {
			user.note(r.Exprs)
		}
	}
	return droppers, user, nil
}

// note takes down a rule that accepts all from, or all to, one link.
func (u userChain) note(rule []expr.Any) {
	var into map[string]bool
	name, accepts, further := "", false, false
	for i, e := range rule {
		switch e := e.(type) {
		case *expr.Meta:
			if e.Key == expr.MetaKeyIIFNAME {
				into = u.in
			} else if e.Key == expr.MetaKeyOIFNAME {
				into = u.out
			} else {
				further = true
			}
		case *expr.Cmp:
			_, afterMeta := rule[max(i-1, 0)].(*expr.Meta)
			if e.Op != expr.CmpOpEq || !afterMeta || name != "" {
				further = true
			}
			name = string(bytes.TrimRight(e.Data, "\x00"))
		case *expr.Verdict:
			accepts = e.Kind == expr.VerdictAccept
		case *expr.Counter:
		default:
			further = true
		}
	}
	if accepts && !further && into != nil && name != "" {
		into[name] = true
	}
}

// legacyForwardDrops tells whether iptables' older interface has a FORWARD
// policy of DROP. Looking must not load the module, so it is asked only if it is
// there.
func legacyForwardDrops() bool {
	names, err := readFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !strings.Contains(names, "filter") {
		return false
	}
	policy, err := legacyPolicy()
	return err == nil && policy == legacyDrop
}

var errShort = errors.New("the kernel's answer is too short")
