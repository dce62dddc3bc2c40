// Package dhcp tells a foreign system its address: over its own cable, of which strata
// holds the other end, and to its own card alone. It is all of DHCP that takes: one
// address, given for life. Source: RFC 2131 and 2132.
//
// It listens on the tap itself and not on the bridge. So who asks is certain, the filter
// that drops whoever sends without an address needs no hole, and isolated networks are
// served as well.
//
// Every frame is from a hostile system: what is read is bounded, one answer is made for
// one question, and only so many each second. What makes no sense is not answered.
package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
)

// Lease is what one system is told.
type Lease struct {
	MAC     net.HardwareAddr // of its card
	Address netip.Prefix     // IPv4
	Server  netip.Addr       // strata's own address on the network, where names are answered
	Router  bool             // the way out leads there
	MTU     uint16
	Name    string // "": none
}

// The form of frames and messages. Source: RFC 894, 791, 768; RFC 2131, section 2.
const (
	etherLen   = 14
	ipLen      = 20
	udpLen     = 8
	bootpLen   = 236
	cookie     = 0x63825363
	optionsAt  = bootpLen + 4
	serverPort = 67
	clientPort = 68
	etherIPv4  = 0x0800
	udp        = 17
	fragment   = 0x3fff // more fragments, or an offset
	broadcast  = 0x8000 // of the flags
	least      = 300    // a message, as BOOTP has it
)

// The options, and the types of messages. Source: RFC 2132.
const (
	optMask, optRouter, optDNS, optName, optDomain, optMTU      = 1, 3, 6, 12, 15, 26
	optWanted, optTime, optType, optServer, optPad, optEnd      = 50, 51, 53, 54, 0, 255
	discover, offer, request, ack, nak, inform             byte = 1, 2, 3, 5, 6, 8
	forever                                                     = 0xffffffff
)

// question is what is of use of a message.
type question struct {
	kind     byte
	id       [4]byte
	flags    uint16
	client   [4]byte // its address, as it says
	wanted   [4]byte // that it asks for; zero: none
	server   [4]byte // that it asks; zero: any
	relayed  bool
	hardware []byte
}

// Answer returns the frame that answers a frame from the system, nil where none does. It
// is pure.
func (l Lease) Answer(frame []byte) []byte {
	q, ok := l.read(frame)
	if !ok || q.relayed || !bytes.Equal(q.hardware, l.MAC) {
		return nil
	}
	own, server := l.Address.Addr().As4(), l.Server.As4()
	none := [4]byte{}
	switch q.kind {
	case discover:
		return l.reply(q, offer, own)
	case inform:
		return l.reply(q, ack, none)
	case request:
		if q.server != none && q.server != server {
			return nil // it has chosen another, of which there is none
		}
		asked := q.wanted
		if asked == none {
			asked = q.client
		}
		if asked == own {
			return l.reply(q, ack, own)
		}
		return l.reply(q, nak, none)
	}
	return nil
}

// read takes a frame apart.
func (l Lease) read(f []byte) (q question, ok bool) {
	be := binary.BigEndian
	if len(f) < etherLen+ipLen || !bytes.Equal(f[6:12], l.MAC) || be.Uint16(f[12:]) != etherIPv4 {
		return q, false
	}
	ip := f[etherLen:]
	head, total := int(ip[0]&15)*4, int(be.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || head < ipLen || total > len(ip) || total < head+udpLen || ip[9] != udp || be.Uint16(ip[6:])&fragment != 0 {
		return q, false
	}
	u := ip[head:total]
	size := int(be.Uint16(u[4:]))
	if be.Uint16(u[2:]) != serverPort || size > len(u) || size < udpLen+optionsAt {
		return q, false
	}
	m := u[udpLen:size]
	if m[0] != 1 || m[1] != 1 || m[2] != 6 || be.Uint32(m[bootpLen:]) != cookie { // a question, by Ethernet
		return q, false
	}
	q.id, q.flags, q.client = [4]byte(m[4:8]), be.Uint16(m[10:]), [4]byte(m[12:16])
	q.relayed, q.hardware = [4]byte(m[24:28]) != [4]byte{}, m[28:34]
	for o := m[optionsAt:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			return q, false
		}
		switch v := o[2 : 2+int(o[1])]; {
		case o[0] == optType && len(v) == 1:
			q.kind = v[0]
		case o[0] == optWanted && len(v) == 4:
			q.wanted = [4]byte(v)
		case o[0] == optServer && len(v) == 4:
			q.server = [4]byte(v)
		}
		o = o[2+int(o[1]):]
	}
	return q, q.kind != 0
}

// reply makes the frame of an answer that gives address.
func (l Lease) reply(q question, kind byte, address [4]byte) []byte {
	be := binary.BigEndian
	server := l.Server.As4()
	m := make([]byte, optionsAt, 512)
	m[0], m[1], m[2] = 2, 1, 6
	copy(m[4:8], q.id[:])
	be.PutUint16(m[10:], q.flags)
	if kind == ack {
		copy(m[12:16], q.client[:])
	}
	copy(m[16:20], address[:])
	copy(m[28:34], l.MAC)
	be.PutUint32(m[bootpLen:], cookie)
	option := func(code byte, value ...byte) { m = append(append(m, code, byte(len(value))), value...) }
	option(optType, kind)
	option(optServer, server[:]...)
	if kind != nak {
		if address != [4]byte{} {
			option(optTime, be.AppendUint32(nil, forever)...)
		}
		option(optMask, net.CIDRMask(l.Address.Bits(), 32)...)
		if l.Router {
			option(optRouter, server[:]...)
		}
		option(optDNS, server[:]...)
		option(optMTU, be.AppendUint16(nil, l.MTU)...)
		option(optDomain, []byte("strata")...)
		if l.Name != "" && len(l.Name) < 64 {
			option(optName, []byte(l.Name)...)
		}
	}
	m = append(m, optEnd)
	for len(m) < least {
		m = append(m, optPad)
	}
	to, hardware := address, l.MAC
	if to == [4]byte{} {
		to = q.client
	}
	if q.flags&broadcast != 0 || kind == nak || to == [4]byte{} {
		to, hardware = [4]byte{255, 255, 255, 255}, net.HardwareAddr{255, 255, 255, 255, 255, 255}
	}
	return l.frame(m, to, hardware)
}

// frame puts a message into UDP, IP and Ethernet.
func (l Lease) frame(m []byte, to [4]byte, hardware net.HardwareAddr) []byte {
	be := binary.BigEndian
	from := l.Server.As4()
	f := make([]byte, etherLen+ipLen+udpLen, etherLen+ipLen+udpLen+len(m))
	copy(f, hardware)
	// A card of nobody's: the bridge's own is learned when it is asked for.
	copy(f[6:], []byte{0x02, 0, from[0], from[1], from[2], from[3]})
	be.PutUint16(f[12:], etherIPv4)
	ip := f[etherLen:]
	ip[0], ip[8], ip[9] = 4<<4|ipLen/4, 64, udp
	be.PutUint16(ip[2:], uint16(ipLen+udpLen+len(m)))
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	be.PutUint16(ip[10:], checksum(ip[:ipLen]))
	u := ip[ipLen:]
	be.PutUint16(u, serverPort)
	be.PutUint16(u[2:], clientPort)
	be.PutUint16(u[4:], uint16(udpLen+len(m))) // no checksum: RFC 768 leaves it to the sender
	return append(f, m...)
}

// checksum is the Internet's. Source: RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
