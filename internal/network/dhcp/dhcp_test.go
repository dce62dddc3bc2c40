package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
)

var lease = Lease{
	MAC: net.HardwareAddr{2, 0, 10, 64, 16, 2}, Address: netip.MustParsePrefix("10.64.16.2/24"), Server: netip.MustParseAddr("10.64.16.1"),
	Router: true, MTU: 1500, Name: "win",
}

// ask makes a frame of a client's.
func ask(mac net.HardwareAddr, flags uint16, options ...byte) []byte {
	m := make([]byte, optionsAt)
	m[0], m[1], m[2] = 1, 1, 6
	copy(m[4:], "abcd")
	binary.BigEndian.PutUint16(m[10:], flags)
	copy(m[28:], mac)
	binary.BigEndian.PutUint32(m[bootpLen:], cookie)
	m = append(append(m, options...), optEnd)
	f := Lease{Server: netip.IPv4Unspecified()}.frame(m, [4]byte{255, 255, 255, 255}, net.HardwareAddr{255, 255, 255, 255, 255, 255})
	copy(f[6:], mac)
	binary.BigEndian.PutUint16(f[etherLen+ipLen:], clientPort)
	binary.BigEndian.PutUint16(f[etherLen+ipLen+2:], serverPort)
	return f
}

// told reads an answer: its type, the address that it gives, and its options.
func told(t *testing.T, f []byte) (kind byte, address netip.Addr, options map[byte][]byte) {
	t.Helper()
	if f == nil {
		return 0, netip.Addr{}, nil
	}
	if checksum(f[etherLen:etherLen+ipLen]) != 0 || int(binary.BigEndian.Uint16(f[etherLen+2:])) != len(f)-etherLen {
		t.Errorf("its IP header is wrong: %x", f[etherLen:etherLen+ipLen])
	}
	m := f[etherLen+ipLen+udpLen:]
	if m[0] != 2 || string(m[4:8]) != "abcd" || !bytes.Equal(m[28:34], lease.MAC) {
		t.Errorf("it answers another question: %x", m[:36])
	}
	options = map[byte][]byte{}
	for o := m[optionsAt:]; o[0] != optEnd; o = o[2+int(o[1]):] {
		options[o[0]] = o[2 : 2+int(o[1])]
	}
	return options[optType][0], netip.AddrFrom4([4]byte(m[16:20])), options
}

func TestACardIsToldItsAddress(t *testing.T) {
	wants := func(last byte) []byte { return []byte{optWanted, 4, 10, 64, 16, last} }
	from := func(last byte) []byte { return []byte{optServer, 4, 10, 64, 16, last} }
	say := func(kind byte, more ...[]byte) []byte {
		return append([]byte{optType, 1, kind}, bytes.Join(more, nil)...)
	}
	for what, c := range map[string]struct {
		frame []byte
		kind  byte // 0: no answer
		given bool
	}{
		"it looks for a server":                {ask(lease.MAC, 0, say(discover)...), offer, true},
		"it takes the offer":                   {ask(lease.MAC, 0, say(request, wants(2), from(1))...), ack, true},
		"it comes back with its address":       {ask(lease.MAC, 0, say(request, wants(2))...), ack, true},
		"it comes back with another's address": {ask(lease.MAC, 0, say(request, wants(3))...), nak, false},
		"it has taken another server's offer":  {ask(lease.MAC, 0, say(request, wants(2), from(9))...), 0, false},
		"it only asks for the rest":            {ask(lease.MAC, 0, say(inform)...), ack, false},
		"it gives the address back":            {ask(lease.MAC, 0, say(7)...), 0, false},
		"another card asks":                    {ask(net.HardwareAddr{2, 0, 10, 64, 16, 3}, 0, say(discover)...), 0, false},
		"it says nothing":                      {ask(lease.MAC, 0), 0, false},
		"an option is cut off":                 {ask(lease.MAC, 0, optType, 9), 0, false},
		"padding is between":                   {ask(lease.MAC, 0, append([]byte{optPad, optPad}, say(discover)...)...), offer, true},
	} {
		kind, address, options := told(t, lease.Answer(c.frame))
		if kind != c.kind || (address == lease.Address.Addr()) != c.given {
			t.Errorf("%s: answered by %d with %v", what, kind, address)
		}
		if c.given && (!bytes.Equal(options[optMask], []byte{255, 255, 255, 0}) || !bytes.Equal(options[optRouter], []byte{10, 64, 16, 1}) || !bytes.Equal(options[optDNS], []byte{10, 64, 16, 1}) || string(options[optName]) != "win") {
			t.Errorf("%s: it is told %v", what, options)
		}
	}
	if f := lease.Answer(ask(lease.MAC, broadcast, say(discover)...)); f == nil || f[0] != 255 || f[etherLen+16] != 255 {
		t.Error("one that hears only what is for all is not told so")
	}
	alone := lease
	alone.Router = false
	if _, _, options := told(t, alone.Answer(ask(lease.MAC, 0, say(discover)...))); options[optRouter] != nil || options[optDNS] == nil {
		t.Errorf("without a way out it is told %v", options)
	}
	fragmented := ask(lease.MAC, 0, say(discover)...)
	fragmented[etherLen+6] = 0x20
	if lease.Answer(fragmented) != nil {
		t.Error("a fragment is answered")
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(ask(lease.MAC, 0, optType, 1, discover))
	f.Add(ask(lease.MAC, broadcast, optType, 1, request, optWanted, 4, 10, 64, 16, 2))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if a := lease.Answer(frame); a != nil && (len(a) < etherLen+ipLen+udpLen+least || len(a) > 600) {
			t.Errorf("an answer of %d bytes", len(a))
		}
	})
}
