package network

import (
	"net/netip"
	"os"
	"strings"

	names "github.com/strata-project/strata/internal/network/dns"
)

// resolvLimit is how many servers the C library asks. Source: resolv.h, MAXNS.
const resolvLimit = 3

// ResolvConf returns /etc/resolv.conf for an environment on n: the gateway's own
// service, or dns where it is not empty. search are further domains; strata's
// own comes first, so that a NAME is looked for as NAME.strata too. While names
// are not answered (NamesFault), the host's own servers stand in.
func (h *Host) ResolvConf(n Network, dns []netip.Addr, search []string) []byte {
	var b strings.Builder
	servers := dns
	if len(servers) == 0 && !n.Isolated && h.NamesFault() != nil {
		servers = hostServers()
	}
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
	if servers[0] == n.Gateway4 {
		b.WriteString("options ndots:0\n")
	}
	return []byte(b.String())
}

// hostServers are those that the host asks and that can be reached from elsewhere.
func hostServers() []netip.Addr {
	var found []netip.Addr
	for _, path := range []string{"/etc/resolv.conf", names.ResolvedConf} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, s := range names.ParseResolvConf(data) {
			if !s.Addr().IsLoopback() && s.Addr().Zone() == "" {
				found = append(found, s.Addr())
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}
