package dns

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// Domain is the top of the names of environments.
const Domain = "strata"

// Zone is all that can be answered without asking others.
type Zone struct {
	Networks []Network
	Hosts    []Host
}

// Network is where names are answered and whose they are.
type Network struct {
	Name     string
	Link     string // bridge
	IPv4     netip.Prefix
	IPv6     netip.Prefix // not valid: none
	Gateway4 netip.Addr
	Gateway6 netip.Addr
	Isolated bool // nothing is asked of servers outside
	Up       bool // its bridge is there, so it is listened on
}

// Host is one name.
type Host struct {
	Network string
	Name    string
	IPv4    netip.Addr
	IPv6    netip.Addr // not valid: none
}

// header is the first line of the file of names.
const header = "strata-names 1"

// maxZone bounds the file of names. Unit: bytes.
const maxZone = 16 << 20

// Append prints z in the format of the file of names: a header and a line for each.
func (z Zone) Append(b []byte) []byte {
	b = append(b, header+"\n"...)
	for _, n := range z.Networks {
		b = fmt.Appendf(b, "network %s %s %s %s %s %s %t %t\n", n.Name, n.Link, n.IPv4, optional(n.IPv6), n.Gateway4, optional(n.Gateway6), n.Isolated, n.Up)
	}
	for _, h := range z.Hosts {
		b = append(b, "host "...)
		b = append(b, h.Network...)
		b = append(b, ' ')
		b = append(b, h.Name...)
		b = append(b, ' ')
		b = h.IPv4.AppendTo(b)
		b = append(b, ' ')
		if h.IPv6.IsValid() {
			b = h.IPv6.AppendTo(b)
		} else {
			b = append(b, '-')
		}
		b = append(b, '\n')
	}
	return b
}

func optional(v interface {
	IsValid() bool
	String() string
}) string {
	if !v.IsValid() {
		return "-"
	}
	return v.String()
}

// ParseZone reads what Append prints.
func ParseZone(data []byte) (Zone, error) {
	if len(data) > maxZone {
		return Zone{}, fmt.Errorf("read names: more than %d bytes", maxZone)
	}
	var z Zone
	lines := bufio.NewScanner(bytes.NewReader(data))
	if !lines.Scan() || lines.Text() != header {
		return Zone{}, fmt.Errorf("read names: the first line is not %q", header)
	}
	for number := 2; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		var err error
		switch {
		case len(fields) == 9 && fields[0] == "network":
			var n Network
			n, err = parseNetwork(fields[1:])
			z.Networks = append(z.Networks, n)
		case len(fields) == 5 && fields[0] == "host":
			var h Host
			h, err = parseHost(fields[1:])
			z.Hosts = append(z.Hosts, h)
		default:
			err = fmt.Errorf("not a network and not a host")
		}
		if err != nil {
			return Zone{}, fmt.Errorf("read names: line %d: %w", number, err)
		}
	}
	return z, lines.Err()
}

func parseNetwork(f []string) (n Network, err error) {
	n = Network{Name: f[0], Link: f[1], Isolated: f[6] == "true", Up: f[7] == "true"}
	if n.IPv4, err = netip.ParsePrefix(f[2]); err != nil {
		return n, err
	}
	if n.Gateway4, err = netip.ParseAddr(f[4]); err != nil {
		return n, err
	}
	if f[3] == "-" {
		return n, nil
	}
	if n.IPv6, err = netip.ParsePrefix(f[3]); err != nil {
		return n, err
	}
	n.Gateway6, err = netip.ParseAddr(f[5])
	return n, err
}

func parseHost(f []string) (h Host, err error) {
	h = Host{Network: f[0], Name: strings.ToLower(f[1])}
	if h.IPv4, err = netip.ParseAddr(f[2]); err != nil {
		return h, err
	}
	if f[3] != "-" {
		h.IPv6, err = netip.ParseAddr(f[3])
	}
	return h, err
}
