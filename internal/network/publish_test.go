package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/internal/fresh"
	"github.com/strata-project/strata/internal/require"
)

// outside is a machine beyond the host's uplink: 192.0.2.1, fd00:99::1; the host is .2.
func outside(t *testing.T) *guest {
	t.Helper()
	o := startGuest(t, "outside")
	pid := itoa(o.pid)
	host(t, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", pid)
	host(t, "ip", "address", "add", "192.0.2.2/24", "dev", "up0")
	host(t, "ip", "address", "add", "fd00:99::2/64", "dev", "up0", "nodad")
	host(t, "ip", "link", "set", "up0", "up")
	o.must("ip", "link", "set", "lo", "up")
	o.must("ip", "link", "set", "eth0", "up")
	o.must("ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
	o.must("ip", "address", "add", "fd00:99::1/64", "dev", "eth0", "nodad")
	host(t, "ip", "route", "add", "default", "via", "192.0.2.1")
	host(t, "ip", "-6", "route", "add", "default", "via", "fd00:99::1")
	o.serve("tcp", ":80", "outside")
	o.serve("udp", "192.0.2.1:80", "outside")
	return o
}

func tcp(hostPort, port uint16) Port { return Port{HostPort: hostPort, Port: port, Protocol: "tcp"} }

func TestPublishedPortsAreReachedFromEverywhere(t *testing.T) {
	if fresh.Namespace(t) {
		reachEverywhere(t)
	}
}

func TestWhatIsPublishedOnLoopbackIsTheHostsOwn(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	o := outside(t)
	h := open(t, "")
	a := join(t, h, Default, 1, Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8083, Port: 80, Protocol: "tcp"})
	a.serve("tcp", ":80", "a")
	n, err := h.Network(Default)
	if err != nil {
		t.Fatal(err)
	}
	// A neighbour on the uplink that sends to 127.0.0.1 over the wire.
	o.must("ip", "address", "flush", "dev", "lo")
	if err := o.within(func() error { return setSysctl("ipv4/conf/all/route_localnet", "1") }); err != nil {
		t.Fatal(err)
	}
	o.must("ip", "rule", "add", "pref", "0", "table", "main")
	o.must("ip", "route", "add", "127.0.0.1/32", "via", "192.0.2.2", "src", "192.0.2.1")
	o.fails("tcp", "127.0.0.1:8083")
	wants(t, "tcp", "127.0.0.1:8083", "a from "+n.Gateway4.String())
	// The rule it is that kept it out.
	handle := strings.Fields(host(t, "sh", "-c", "nft -a list chain inet strata prerouting | grep 127.0.0.0/8"))
	host(t, "nft", "delete", "rule", "inet", "strata", "prerouting", "handle", handle[len(handle)-1])
	o.wants("tcp", "127.0.0.1:8083", "a from 192.0.2.1")
}

// Where br_netfilter is loaded, as Docker may do, what stays on the bridge passes the filters for
// routed packets too. It is on by default in a new namespace if the kernel has it at all.
func TestPublishedPortsAreReachedFromEverywhereWithoutBridgeFilters(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	for _, version := range []string{"ip", "ip6"} {
		err := setSysctl("bridge/bridge-nf-call-"+version+"tables", "0")
		require.Host(t, "br_netfilter", err == nil, "this kernel filters no bridges anyway")
	}
	reachEverywhere(t)
}

func reachEverywhere(t *testing.T) {
	loopbackUp(t)
	o := outside(t)
	h := open(t, "")
	a := join(t, h, Default, 1, tcp(8080, 80), Port{HostPort: 8081, Port: 81, Protocol: "udp"},
		Port{HostIP: netip.MustParseAddr("192.0.2.2"), HostPort: 8082, Port: 80, Protocol: "tcp"},
		Port{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8083, Port: 80, Protocol: "tcp"})
	b := join(t, h, Default, 2)
	a.serve("tcp", ":80", "a")
	a.serve("udp", a.address.IPv4.String()+":81", "a")
	a.serve("udp", "["+a.address.IPv6.String()+"]:81", "a")
	n, err := h.Network(Default)
	if err != nil {
		t.Fatal(err)
	}
	gateway := n.Gateway4.String()
	// The host by its loopback, its own address, and the gateway's.
	wants(t, "tcp", "127.0.0.1:8080", "a from "+gateway)
	wants(t, "udp", "127.0.0.1:8081", "a from "+gateway)
	wants(t, "tcp", "127.0.0.1:8083", "a from "+gateway)
	wants(t, "tcp", "192.0.2.2:8080", "a from 192.0.2.2")
	wants(t, "tcp", "192.0.2.2:8082", "a from 192.0.2.2")
	wants(t, "tcp", "[fd00:99::2]:8080", "a from fd00:99::2")
	if _, err := onHost(t).ask("tcp", "[::1]:8080"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error("not refused at once, so localhost is slow:", err)
	}
	wants(t, "tcp", "localhost:8080", "a from "+gateway)
	onHost(t).fails("tcp", "127.0.0.1:8082")
	onHost(t).fails("tcp", "192.0.2.2:8083")
	// Outside.
	o.wants("tcp", "192.0.2.2:8080", "a from 192.0.2.1")
	o.wants("udp", "192.0.2.2:8081", "a from 192.0.2.1")
	o.wants("tcp", "192.0.2.2:8082", "a from 192.0.2.1")
	o.wants("tcp", "[fd00:99::2]:8080", "a from fd00:99::1")
	o.fails("tcp", "192.0.2.2:8083")
	// Another environment, and itself, by the host's address.
	b.wants("tcp", "192.0.2.2:8080", "a from "+gateway)
	a.wants("tcp", "192.0.2.2:8080", "a from "+gateway)
	b.wants("tcp", gateway+":8080", "a from "+gateway)
	// The way out.
	a.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	a.wants("udp", "192.0.2.1:80", "outside from 192.0.2.2")
	a.wants("tcp", "[fd00:99::1]:80", "outside from fd00:99::2")
	// Who knows the private address from outside does not get in.
	o.must("ip", "route", "add", n.IPv4.String(), "via", "192.0.2.2")
	o.fails("tcp", a.address.IPv4.String()+":80")
	if id, ok := h.PortOwner(tcp(8080, 1)); !ok || id != a.id {
		t.Error(id, ok)
	}
	if err := h.Disconnect(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	onHost(t).fails("tcp", "127.0.0.1:8080")
	o.fails("tcp", "192.0.2.2:8080")
	b.fails("tcp", a.address.IPv4.String()+":80")
}

func TestWhoGoesOnSendingDatagramsFindsWhatIsPublished(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	o := outside(t)
	h := open(t, "")
	port := Port{HostPort: 8081, Port: 81, Protocol: "udp"}
	a, b := join(t, h, Default, 1, port), join(t, h, Default, 2)
	for _, g := range []*guest{a, b} {
		g.serve("udp", g.address.IPv4.String()+":81", g.id)
		g.serve("udp", "["+g.address.IPv6.String()+"]:81", g.id)
	}
	for _, way := range []struct {
		from   *guest
		to, as string
	}{{o, "192.0.2.2:8081", "192.0.2.1"}, {o, "[fd00:99::2]:8081", "fd00:99::1"}, {onHost(t), "127.0.0.1:8081", gatewayOf(h, a).IPv4.String()}} {
		var c net.Conn
		if err := way.from.within(func() (err error) { c, err = net.Dial("udp", way.to); return err }); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answer := func() string {
			buffer := make([]byte, 100)
			for late := error(nil); late == nil; { // answers to what was given up
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, late = c.Read(buffer)
			}
			_, _ = c.Write([]byte("?"))
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, _ := c.Read(buffer)
			return string(buffer[:n])
		}
		reached := func(by string) {
			t.Helper()
			want := by + " from " + way.as
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
				if answer() == want {
					return
				}
			}
			t.Errorf("%s does not reach %s by %s", way.from.id, by, way.to)
		}
		move := func(from, to *guest) {
			t.Helper()
			if err := h.Disconnect(t.Context(), from.id); err != nil {
				t.Fatal(err)
			}
			said := answer()
			for end := time.Now().Add(3 * time.Second); said != "" && time.Now().Before(end); { // the kernel is told beside it
				said = answer()
			}
			if said != "" {
				t.Errorf("by %s what is not published says %q", way.to, said)
			}
			for _, g := range []*guest{a, b} {
				_ = h.Disconnect(t.Context(), g.id)
				again := startGuest(t, g.id)
				again.address = g.address
				var ports []Port
				if g == to {
					ports = []Port{port}
				}
				if _, err := h.Connect(t.Context(), again.id, again.pid, again.address, ports); err != nil {
					t.Fatal(err)
				}
				again.serve("udp", g.address.IPv4.String()+":81", g.id)
				again.serve("udp", "["+g.address.IPv6.String()+"]:81", g.id)
			}
		}
		reached(a.id)
		move(a, a)
		reached(a.id)
		move(a, b)
		reached(b.id)
		move(b, a)
	}
}

func TestPortThatIsTakenSaysByWhom(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	join(t, h, Default, 1, tcp(8080, 80))
	onHost(t).serve("tcp", "127.0.0.1:9090", "host")
	onHost(t).serve("udp", "[::]:9091", "host")
	own := "network.test (process " + itoa(os.Getpid()) + ")"
	for p, want := range map[Port]string{
		tcp(8080, 1): "tcp port 8080 is published by the environment guest1",
		{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8080, Port: 1, Protocol: "tcp"}: "tcp port 127.0.0.1:8080 is published by the environment guest1",
		tcp(9090, 1): "tcp port 9090 is taken by " + own,
		{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 9091, Port: 1, Protocol: "udp"}:    "udp port 127.0.0.1:9091 is taken by " + own,
		{HostIP: netip.MustParseAddr("127.0.0.2"), HostPort: 9090, Port: 1, Protocol: "tcp"}:    "",
		{HostPort: 8080, Port: 1, Protocol: "udp"}:                                              "",
		{HostIP: netip.MustParseAddr("198.51.100.1"), HostPort: 9090, Port: 1, Protocol: "tcp"}: "this host has no address 198.51.100.1",
	} {
		err := h.CheckPort(p)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; want %q", p, err, want)
		}
	}
	g := startGuest(t, "000000000002")
	address, err := h.Allocate(Default, g.id, "second")
	if err != nil {
		t.Fatal(err)
	}
	for _, ports := range [][]Port{{tcp(9090, 80)}, {tcp(8080, 80)}, {tcp(7070, 80), tcp(7070, 81)}} {
		if _, err := h.Connect(t.Context(), g.id, g.pid, address, ports); err == nil {
			t.Errorf("%v was published", ports)
		}
	}
	if links, err := portsOf([]string{"strata0"}); err != nil || len(links) != 1 {
		t.Error("a failed Connect left a link:", links, err)
	}
	if _, err := h.Connect(t.Context(), g.id, g.pid, address, []Port{tcp(7070, 80)}); err != nil {
		t.Error("after failures:", err)
	}
	if _, err := h.Connect(t.Context(), g.id, g.pid, address, nil); !fault.Is(err, fault.Conflict) {
		t.Error("connected twice:", err)
	}
}

func TestLoopbackOfTheHostIsOutOfReach(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	n, err := h.Network(Default)
	if err != nil {
		t.Fatal(err)
	}
	a := join(t, h, Default, 1)
	// What arrives at a service that listens on the host's loopback only.
	listen := func(port int) (got chan string) {
		got = make(chan string, 1)
		err := onHost(t).within(func() error {
			c, err := net.ListenPacket("udp", "127.0.0.1:"+itoa(port))
			if err != nil {
				return err
			}
			go func() {
				defer c.Close()
				b := make([]byte, 100)
				_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				n, _, _ := c.ReadFrom(b)
				got <- string(b[:n])
			}()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	a.must("ip", "link", "set", "lo", "down")
	a.must("ip", "address", "flush", "dev", "lo")
	a.must("ip", "route", "add", "127.0.0.1/32", "via", n.Gateway4.String(), "table", "main")
	_ = a.within(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0) })
	a.must("ip", "rule", "add", "pref", "0", "table", "main")
	got := listen(9999)
	_, _ = a.ask("udp", "127.0.0.1:9999")
	if said := <-got; said != "" {
		t.Errorf("a packet came in on the host's loopback: %q", said)
	}
	// The guard it is that kept it out: without it, it comes in (CVE-2020-8558).
	host(t, "nft", "flush", "chain", "inet", "strata", "guard")
	got = listen(9998)
	_, _ = a.ask("udp", "127.0.0.1:9998")
	if said := <-got; said == "" {
		t.Error("this test tests nothing: without the guard the packet does not come in either")
	}
}

func TestNobodySendsAsSomebodyElse(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	a, b, c := join(t, h, Default, 1), join(t, h, Default, 2), join(t, h, Default, 3)
	b.serve("tcp", ":80", "b")
	b.serve("udp", b.address.IPv4.String()+":81", "b")
	a.wants("tcp", at(b.address, "4", 80), "b from "+a.address.IPv4.String())
	// c's address, while c says nothing
	if err := h.Disconnect(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	a.must("ip", "address", "add", c.address.IPv4.String()+"/20", "dev", "eth0")
	a.must("ip", "-6", "address", "add", c.address.IPv6.String()+"/64", "dev", "eth0", "nodad")
	a.must("ip", "route", "add", b.address.IPv4.String(), "dev", "eth0", "src", c.address.IPv4.String())
	a.must("ip", "-6", "route", "add", b.address.IPv6.String(), "dev", "eth0", "src", c.address.IPv6.String())
	a.fails("tcp", at(b.address, "4", 80))
	a.fails("udp", at(b.address, "4", 81))
	a.fails("tcp", at(b.address, "6", 80))
	a.must("ip", "route", "del", b.address.IPv4.String())
	a.wants("tcp", at(b.address, "4", 80), "b from "+a.address.IPv4.String())
	// another hardware address
	a.must("ip", "link", "set", "eth0", "down")
	a.must("ip", "link", "set", "eth0", "address", c.address.MAC)
	a.must("ip", "link", "set", "eth0", "up")
	a.fails("tcp", at(b.address, "4", 80))
}

func TestNetworksAreKeptApart(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	o := outside(t)
	h := open(t, "")
	other, err := h.Create(t.Context(), Network{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	alone, err := h.Create(t.Context(), Network{Name: "alone", Isolated: true, IPv4: netip.MustParsePrefix("10.99.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	a, b := join(t, h, Default, 1, tcp(8080, 80)), join(t, h, "other", 2)
	c, d := join(t, h, "alone", 3), join(t, h, "alone", 4)
	onHost(t).serve("tcp", ":99", "host")
	for _, g := range []*guest{a, b, c, d} {
		g.serve("tcp", ":80", g.id)
	}
	for _, version := range []string{"4", "6"} {
		for _, from := range []*guest{a, b, c} {
			for _, to := range []*guest{a, b, c} {
				if from != to {
					from.fails("tcp", at(to.address, version, 80))
				}
			}
			wants(t, "tcp", at(from.address, version, 80), from.id+" from "+addr(gatewayOf(h, from), version))
		}
		c.wants("tcp", at(d.address, version, 80), d.id+" from "+addr(c.address, version))
	}
	b.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	b.wants("tcp", other.Gateway4.String()+":99", "host from "+b.address.IPv4.String())
	b.wants("tcp", "192.0.2.2:8080", a.id+" from "+gatewayOf(h, a).IPv4.String()) // published is published
	c.fails("tcp", "192.0.2.1:80")
	c.fails("tcp", "192.0.2.2:8080")
	c.fails("tcp", alone.Gateway4.String()+":99")
	o.must("ip", "route", "add", "10.99.0.0/24", "via", "192.0.2.2")
	o.fails("tcp", at(c.address, "4", 80))
	g := startGuest(t, "000000000009")
	address, err := h.Allocate("alone", g.id, "nine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Connect(t.Context(), g.id, g.pid, address, []Port{tcp(7000, 80)}); !fault.Is(err, fault.Invalid) {
		t.Error("published on an isolated network:", err)
	}
	if err := h.Remove(t.Context(), "other", nil); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "guest2") {
		t.Error(err)
	}
	h.Release(t.Context(), b.id)
	if err := h.Remove(t.Context(), "other", nil); err != nil {
		t.Error(err)
	}
	if exec.Command("ip", "link", "show", other.Bridge).Run() == nil {
		t.Error("the bridge is still there")
	}
	a.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
}

func gatewayOf(h *Host, g *guest) Address {
	n, _ := h.Network(g.address.Network)
	return Address{IPv4: n.Gateway4, IPv6: n.Gateway6}
}
