package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/internal/fresh"
	"github.com/strata-project/strata/internal/require"
)

// card is a system with a network card, as far as a test needs one: it speaks
// Ethernet, ARP and UDP over IPv4 at the descriptor of a tap.
type card struct {
	t       *testing.T
	id      string
	tap     *Tap
	mac     net.HardwareAddr
	ip      netip.Addr
	gateway net.HardwareAddr
}

// virtioHeader is the size of struct virtio_net_hdr. Source: linux/virtio_net.h.
const virtioHeader = 10

// plug gives a card an address and connects it.
func plug(t *testing.T, h *Host, network string, number int, ports ...Port) (*card, Address) {
	t.Helper()
	id := fmt.Sprintf("%012x", number)
	a, err := h.Allocate(network, id, fmt.Sprintf("guest%d", number))
	if err != nil {
		t.Fatal(err)
	}
	return plugAgain(t, h, id, a, ports...), a
}

func plugAgain(t *testing.T, h *Host, id string, a Address, ports ...Port) *card {
	t.Helper()
	_, err := os.Stat(tunDevice)
	require.Host(t, "tun", err == nil, "there is no "+tunDevice)
	tap, err := h.ConnectTap(t.Context(), id, a, ports, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.File.Close() })
	mac, err := net.ParseMAC(tap.MAC)
	if err != nil {
		t.Fatal(err)
	}
	return &card{t: t, id: id, tap: tap, mac: mac, ip: a.IPv4}
}

func (c *card) write(to net.HardwareAddr, kind uint16, payload []byte) {
	c.t.Helper()
	frame := append(make([]byte, virtioHeader), to...)
	frame = append(frame, c.mac...)
	frame = binary.BigEndian.AppendUint16(frame, kind)
	if _, err := c.tap.File.Write(append(frame, payload...)); err != nil {
		c.t.Errorf("%s sends: %v", c.id, err)
	}
}

// read waits for a frame that match likes, and answers for its own address meanwhile.
func (c *card) read(patience time.Duration, match func(kind uint16, payload []byte) bool) bool {
	c.t.Helper()
	if err := c.tap.File.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 4096)
	for {
		n, err := c.tap.File.Read(b)
		if err != nil {
			return false
		}
		if n < virtioHeader+14 {
			continue
		}
		from, kind, payload := net.HardwareAddr(b[virtioHeader+6:virtioHeader+12]), binary.BigEndian.Uint16(b[virtioHeader+12:]), b[virtioHeader+14:n]
		if kind == 0x0806 && len(payload) >= 28 && payload[7] == 1 && bytes.Equal(payload[24:28], c.ip.AsSlice()) {
			asker, _ := netip.AddrFromSlice(payload[14:18])
			c.write(from, 0x0806, c.arp(2, from, asker))
		}
		if match(kind, payload) {
			return true
		}
	}
}

// arp is a packet of RFC 826.
func (c *card) arp(operation byte, to net.HardwareAddr, target netip.Addr) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, operation}, c.mac...)
	b = append(b, c.ip.AsSlice()...)
	b = append(b, to...)
	return append(b, target.AsSlice()...)
}

// find asks who has an address.
func (c *card) find(target netip.Addr, patience time.Duration) (mac net.HardwareAddr) {
	c.t.Helper()
	c.write(net.HardwareAddr{255, 255, 255, 255, 255, 255}, 0x0806, c.arp(1, make([]byte, 6), target))
	c.read(patience, func(kind uint16, p []byte) bool {
		if kind == 0x0806 && len(p) >= 28 && p[7] == 2 && bytes.Equal(p[14:18], target.AsSlice()) {
			mac = bytes.Clone(p[8:14])
		}
		return mac != nil
	})
	return mac
}

// udp sends a datagram by the gateway's hardware address.
func (c *card) udp(from uint16, to netip.AddrPort, data []byte) {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(data)))
	b = append(append(b, c.ip.AsSlice()...), to.Addr().AsSlice()...)
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum&0xffff+sum>>16))
	b = binary.BigEndian.AppendUint16(b, from)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	c.write(c.gateway, 0x0800, append(append(b, 0, 0), data...)) // no checksum: RFC 768
}

// hears waits for a datagram at a port.
func (c *card) hears(at uint16, patience time.Duration) (data []byte, from netip.AddrPort, ok bool) {
	c.t.Helper()
	ok = c.read(patience, func(kind uint16, p []byte) bool {
		if kind != 0x0800 || len(p) < 28 || p[9] != 17 || binary.BigEndian.Uint16(p[22:]) != at {
			return false
		}
		ip, _ := netip.AddrFromSlice(p[12:16])
		data, from = bytes.Clone(p[28:]), netip.AddrPortFrom(ip, binary.BigEndian.Uint16(p[20:]))
		return true
	})
	return data, from, ok
}

// meet finds the gateway.
func (c *card) meet(n Network) {
	c.t.Helper()
	if c.gateway = c.find(n.Gateway4, 5*time.Second); c.gateway == nil {
		c.t.Fatalf("%s finds no gateway", c.id)
	}
}

// asks sends a datagram and wants an answer, or none.
func (c *card) asks(to netip.AddrPort, want string) {
	c.t.Helper()
	patience := 5 * time.Second
	if want == "" {
		patience = 300 * time.Millisecond
	}
	c.udp(4000, to, []byte("?"))
	if said, _, _ := c.hears(4000, patience); string(said) != want {
		c.t.Errorf("%s asks %s: %q; want %q", c.id, to, said, want)
	}
}

// talks sends a datagram to at from the host, answers it at the card, and wants
// the answer to come back.
func (c *card) talks(at string, port uint16) {
	c.t.Helper()
	conn, err := net.Dial("udp", at)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		c.t.Fatal(err)
	}
	said, from, ok := c.hears(port, 5*time.Second)
	if !ok || string(said) != "hello" {
		c.t.Errorf("%s hears %q, %v", c.id, said, ok)
		return
	}
	c.udp(port, from, []byte("welcome"))
	b := make([]byte, 100)
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "welcome" {
		c.t.Errorf("%s answers %s: %q, %v", c.id, at, b[:n], err)
	}
}

func udpPort(hostPort, port uint16) Port {
	return Port{HostPort: hostPort, Port: port, Protocol: "udp"}
}

func TestACardBehindATapIsOnTheNetwork(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := withNames(t)
	zone := join(t, h, Default, 2)
	zone.serve("udp", zone.address.IPv4.String()+":90", "zone")
	c, a := plug(t, h, Default, 1, udpPort(8081, 81))
	n, _ := h.Network(Default)
	if c.tap.MTU == 0 || c.tap.MAC != a.MAC || len(c.tap.Address) != 2 || c.tap.Address[0] != netip.PrefixFrom(a.IPv4, n.IPv4.Bits()) ||
		len(c.tap.Gateways) != 2 || c.tap.Gateways[0] != n.Gateway4 || !strings.HasPrefix(c.tap.Link, linkPrefix+c.id) {
		t.Errorf("%+v", c.tap)
	}
	c.meet(n)
	at := netip.AddrPortFrom(zone.address.IPv4, 90)
	c.asks(at, "zone from "+c.ip.String()) // by the gateway, which sends it on
	c.talks("127.0.0.1:8081", 81)
	// Names, both ways.
	q, err := new(dns.Msg).SetQuestion("guest2.strata.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	c.udp(4001, netip.AddrPortFrom(n.Gateway4, 53), q)
	reply := new(dns.Msg)
	said, _, _ := c.hears(4001, 5*time.Second)
	if err := reply.Unpack(said); err != nil || len(reply.Answer) != 1 || reply.Answer[0].(*dns.A).A.String() != zone.address.IPv4.String() {
		t.Errorf("%v, %v", reply, err)
	}
	if said, err := zone.query("udp", n.Gateway4.String()+":53", "guest1", dns.TypeA); err != nil || said != a.IPv4.String() {
		t.Error(said, err)
	}
	if s, err := h.Stats(c.id); err != nil || s.TxPackets == 0 || s.RxBytes == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := h.ConnectTap(t.Context(), c.id, a, nil, nil); !fault.Is(err, fault.Conflict) {
		t.Error("connected twice:", err)
	}
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
}

func TestACardCannotSendAsSomebodyElse(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	victim, _ := plug(t, h, Default, 2)
	c, _ := plug(t, h, Default, 1)
	zone := join(t, h, Default, 3)
	zone.serve("udp", zone.address.IPv4.String()+":90", "zone")
	n, _ := h.Network(Default)
	c.meet(n)
	at := netip.AddrPortFrom(zone.address.IPv4, 90)
	c.asks(at, "zone from "+c.ip.String())
	own, mac := c.ip, c.mac
	c.ip = victim.ip
	c.asks(at, "")
	if c.find(n.Gateway4, 300*time.Millisecond) != nil {
		t.Error("ARP as somebody else was answered")
	}
	c.ip, c.mac = own, victim.mac
	c.asks(at, "")
	c.mac = mac
	c.asks(at, "zone from "+c.ip.String())
	// Cut: nothing more comes from it, though the device is still there for a moment.
	if err := h.Disconnect(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	c.asks(at, "")
	eventually(t, "a disconnected tap is removed", func() bool { return !hasLink(c.tap.Link) })
}

func TestATapIsGoneWithItsDescriptor(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	first, a := plug(t, h, Default, 1, udpPort(8081, 81))
	n, _ := h.Network(Default)
	first.meet(n)
	first.talks("127.0.0.1:8081", 81)
	first.tap.File.Close()
	if hasLink(first.tap.Link) {
		t.Error("the tap outlives its descriptor")
	}
	if err := h.Disconnect(t.Context(), first.id); err != nil {
		t.Fatal(err)
	}
	// The next run is another link, reached at once.
	again := plugAgain(t, h, first.id, a, udpPort(8081, 81))
	again.meet(n)
	again.talks("127.0.0.1:8081", 81)
	if again.tap.Link == first.tap.Link {
		t.Error("a run has the link name of the one before")
	}
	// What fails leaves nothing.
	onHost(t).serve("tcp", "127.0.0.1:9090", "host")
	b, err := h.Allocate(Default, "000000000009", "nine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ConnectTap(t.Context(), "000000000009", b, []Port{tcp(9090, 80)}, nil); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if ports, err := portsOf([]string{n.Bridge}); err != nil || len(ports) != 1 {
		t.Error(ports, err)
	}
	// A bridge that somebody removed is made again.
	host(t, "ip", "link", "del", n.Bridge)
	c := plugAgain(t, h, "000000000009", b)
	c.meet(n)
}

func TestTapsOutliveTheDaemon(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h, other := open(t, ""), open(t, "1a2b3c")
	kept, a := plug(t, h, Default, 1, udpPort(8081, 81))
	stray, b := plug(t, h, Default, 2, udpPort(8082, 81))
	foreign, _ := plug(t, other, Default, 0xb2, udpPort(8083, 81))
	n, _ := h.Network(Default)
	kept.meet(n)
	on, _ := other.Network(Default)
	foreign.meet(on)
	running := map[string]Running{kept.id: {PID: os.Getpid(), Tap: true, Address: a, Ports: []Port{udpPort(8081, 81)}}}
	again := func() {
		t.Helper()
		h = reopen(t, h)
		for id, address := range map[string]Address{kept.id: a, stray.id: b} {
			if err := h.Reserve(id, id, address); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Sync(t.Context(), running); err != nil {
			t.Fatal(err)
		}
	}
	again()
	kept.talks("127.0.0.1:8081", 81)
	if hasLink(stray.tap.Link) {
		t.Error("a tap of nobody's was left")
	}
	// The bridge was removed while no daemon ran: the tap is put on the new one.
	host(t, "ip", "link", "del", n.Bridge)
	again()
	kept.meet(n)
	kept.talks("127.0.0.1:8081", 81)
	if hasLink("eth0") {
		t.Error("the process of a tap was given a link of its own")
	}
	if err := h.Disconnect(t.Context(), kept.id); err != nil {
		t.Fatal(err)
	}
	kept.asks(netip.AddrPortFrom(n.Gateway4, 53), "")
	// A tap that is gone cannot be had back, and is said to be.
	host(t, "ip", "link", "del", kept.tap.Link)
	h = reopen(t, h)
	if err := h.Reserve(kept.id, "kept", a); err != nil {
		t.Fatal(err)
	}
	if err := h.Sync(t.Context(), running); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "network card is gone") {
		t.Error(err)
	}
	foreign.talks("127.0.0.1:8083", 81)
}
