package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/nft"
)

// Port is one published port.
type Port struct {
	HostIP   netip.Addr // not valid: every address of both versions; 0.0.0.0 or ::, every one of that version; no IPv4 address in an IPv6 one
	HostPort uint16
	Port     uint16 // inside
	Protocol string // tcp or udp
}

// String prints p as users write it.
func (p Port) String() string {
	host := strconv.Itoa(int(p.HostPort))
	if p.HostIP.IsValid() {
		host = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	return fmt.Sprintf("%s:%d/%s", host, p.Port, p.Protocol)
}

// listens names the host's side of p.
func (p Port) listens() string {
	host := strconv.Itoa(int(p.HostPort))
	if p.HostIP.IsValid() {
		host = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	return p.Protocol + " port " + host
}

// clashes tells whether both cannot be published at a time.
func (p Port) clashes(o Port) bool {
	if p.HostPort != o.HostPort || p.Protocol != o.Protocol {
		return false
	}
	return addressesMeet(p.HostIP, o.HostIP)
}

// addressesMeet tells whether some packet is for both.
func addressesMeet(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() {
		return true
	}
	if a.Is4() != b.Is4() {
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

func (p Port) valid() error {
	if p.Protocol != "tcp" && p.Protocol != "udp" {
		return fault.Invalidf("%q is not a protocol that can be published", p.Protocol).At("ports").Help("use tcp or udp")
	}
	if p.HostPort == 0 || p.Port == 0 {
		return fault.Invalidf("port 0 cannot be published").At("ports").Help("use 1 to 65535")
	}
	return nil
}

// PortOwner returns the id of the connected environment that holds p or a part of it.
func (h *Host) PortOwner(p Port) (id string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.portHolder(p, "")
	if e == nil {
		return "", false
	}
	return e.id, true
}

// portHolder finds who holds p, but for one id, with h.mu held.
func (h *Host) portHolder(p Port, but string) *environment {
	for _, e := range h.environments {
		for _, held := range e.ports {
			if e.id != but && held.clashes(p) {
				return e
			}
		}
	}
	return nil
}

// CheckPort tells whether p could be published now. A conflict says who has it:
// an environment by its name, or a process of the host by its name and id.
// Kinds: Invalid, Conflict.
func (h *Host) CheckPort(p Port) error {
	if err := p.valid(); err != nil {
		return err
	}
	h.mu.Lock()
	e := h.portHolder(p, "")
	h.mu.Unlock()
	if e != nil {
		return heldBy(p, e)
	}
	if err := h.checkHost(p); err != nil {
		return err
	}
	root, err := h.table.Elsewhere(nft.Publish{
		HostIP: p.HostIP, HostPort: p.HostPort, Protocol: p.Protocol, IPv4: netip.IPv4Unspecified(), IPv6: netip.IPv6Unspecified(),
	})
	if err != nil {
		h.log.Debug("what other roots publish is not known", "err", err)
	}
	if root != "" {
		return fault.Conflictf("%s is published by another strata root on this host (nft table inet %s)", p.listens(), root).At("ports").Help("choose another port of the host")
	}
	return nil
}

func heldBy(p Port, e *environment) error {
	return fault.Conflictf("%s is published by the environment %s", p.listens(), e.name).At("ports").Help("choose another port of the host, or stop %s", e.name)
}

// checkHost looks whether a program of the host listens there. It tries to bind,
// which costs next to nothing, and looks for a name only if that fails.
func (h *Host) checkHost(p Port) error {
	for _, a := range p.binds() {
		err := tryBind(a, p)
		switch {
		case err == nil, errors.Is(err, unix.EAFNOSUPPORT):
			continue
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return fault.Invalidf("this host has no address %s", p.HostIP).At("ports").Help("use an address of this host, or none for all of them")
		case !errors.Is(err, unix.EADDRINUSE):
			return fault.Internalf("try %s: %w", p.listens(), err)
		}
		holder, ours := h.listener(a, p)
		if ours {
			continue
		}
		return fault.Conflictf("%s is taken by %s", p.listens(), holder).At("ports").Help("choose another port of the host, or stop that program")
	}
	return nil
}

// binds are the addresses to try.
func (p Port) binds() []netip.Addr {
	if p.HostIP.IsValid() {
		return []netip.Addr{p.HostIP}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func tryBind(a netip.Addr, p Port) error {
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(p.HostPort)}
	if a.Is4() {
		to = &unix.SockaddrInet4{Port: int(p.HostPort), Addr: a.As4()}
	} else {
		family = unix.AF_INET6
		to = &unix.SockaddrInet6{Port: int(p.HostPort), Addr: a.As16()}
	}
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if kind == unix.SOCK_STREAM { // connections that are closing do not count: socket(7)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, to)
}
