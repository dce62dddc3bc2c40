package network

import (
	"net/netip"
	"strings"
)

// resolvLimit is how many servers the C library asks. Source: resolv.h, MAXNS.
const resolvLimit = 3

// ResolvConf returns /etc/resolv.conf for an environment on n: the gateway's own
// service, or dns where it is not empty. search are further domains; strata's
// own comes first, so that a NAME is looked for as NAME.strata too.
func (h *Host) ResolvConf(n Network, dns []netip.Addr, search []string) []byte {
	var b strings.Builder
	servers := dns
	if len(servers) == 0 {
		search = append([]string{"strata"}, search...)
		servers = []netip.Addr{n.Gateway4}
	}
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for _, s := range servers[:min(len(servers), resolvLimit)] {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	if len(dns) == 0 {
		b.WriteString("options ndots:0\n")
	}
	return []byte(b.String())
}
