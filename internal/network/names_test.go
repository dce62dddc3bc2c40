package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/strata-project/strata/internal/network/internal/fresh"
)

// withNames opens a Host whose names are answered by this test's own program.
func withNames(t *testing.T, servers ...string) *Host {
	t.Helper()
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for _, s := range servers {
		conf.WriteString("nameserver " + s + "\n")
	}
	if err := os.WriteFile(filepath.Join(run, "resolv.conf"), []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(actAsDNS, run)
	h, err := Open(t.Context(), Options{Dir: dir + "/networks", RunDir: run, DNSCommand: []string{"/proc/self/exe"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func (g *guest) query(protocol, server, name string, kind uint16) (said string, err error) {
	err = g.within(func() error {
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), kind)
		client := dns.Client{Net: protocol, Timeout: 5 * time.Second}
		reply, _, err := client.Exchange(q, server)
		if err != nil {
			return err
		}
		said = dns.RcodeToString[reply.Rcode]
		if len(reply.Answer) > 0 {
			fields := strings.Fields(reply.Answer[0].String())
			said = fields[len(fields)-1]
		}
		return nil
	})
	return said, err
}

func TestNamesAreAnswered(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	o := outside(t)
	err := o.within(func() error {
		serve := func(s *dns.Server) {
			s.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg)
				m.SetReply(q)
				rr, _ := dns.NewRR(q.Question[0].Name + " 60 A 203.0.113.7")
				m.Answer = []dns.RR{rr}
				_ = w.WriteMsg(m)
			})
			t.Cleanup(func() { _ = s.Shutdown() })
			go func() { _ = s.ActivateAndServe() }()
		}
		var udp, tcp dns.Server
		var err error
		if udp.PacketConn, err = listenPacket("192.0.2.1:53"); err != nil {
			return err
		}
		if tcp.Listener, err = listen("192.0.2.1:53"); err != nil {
			return err
		}
		serve(&udp)
		serve(&tcp)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h := withNames(t, "192.0.2.111", "192.0.2.1")
	a, b := join(t, h, Default, 1), join(t, h, Default, 2)
	n, _ := h.Network(Default)
	if conf := string(h.ResolvConf(n, nil, nil)); !strings.Contains(conf, "nameserver "+n.Gateway4.String()+"\n") || !strings.HasPrefix(conf, "search strata\n") {
		t.Error(conf)
	}
	if conf := string(h.ResolvConf(n, []netip.Addr{netip.MustParseAddr("1.1.1.1")}, []string{"x"})); conf != "search x\nnameserver 1.1.1.1\n" {
		t.Error(conf)
	}
	wants := func(g *guest, protocol, server, name string, kind uint16, want string) {
		t.Helper()
		if said, err := g.query(protocol, server, name, kind); err != nil || said != want {
			t.Errorf("%s asks %s for %s: %q, %v; want %q", g.id, server, name, said, err, want)
		}
	}
	four, six := n.Gateway4.String()+":53", "["+n.Gateway6.String()+"]:53"
	for _, protocol := range []string{"udp", "tcp"} {
		for _, server := range []string{four, six} {
			wants(a, protocol, server, "guest2", dns.TypeA, b.address.IPv4.String())
			wants(a, protocol, server, "guest2.strata", dns.TypeAAAA, b.address.IPv6.String())
		}
		wants(a, protocol, four, "example.org", dns.TypeA, "203.0.113.7")
	}
	if err := h.Rename(b.id, "other"); err != nil {
		t.Fatal(err)
	}
	wants(a, "udp", four, "other.strata", dns.TypeA, b.address.IPv4.String())
	wants(a, "udp", four, "guest2.strata", dns.TypeA, "NXDOMAIN")
	c := join(t, h, Default, 3)
	wants(a, "udp", four, "guest3.strata", dns.TypeA, c.address.IPv4.String())

	// A further network, an isolated one, and no names across.
	if _, err := h.Create(t.Context(), Network{Name: "alone", Isolated: true}); err != nil {
		t.Fatal(err)
	}
	d := join(t, h, "alone", 4)
	alone, _ := h.Network("alone")
	wants(d, "udp", alone.Gateway4.String()+":53", "guest4", dns.TypeA, d.address.IPv4.String())
	wants(d, "udp", alone.Gateway4.String()+":53", "guest3.strata", dns.TypeA, "NXDOMAIN")
	wants(d, "udp", alone.Gateway4.String()+":53", "example.org", dns.TypeA, "NXDOMAIN")
	d.must("ip", "route", "add", n.IPv4.String(), "via", alone.Gateway4.String())
	wants(d, "udp", four, "guest3", dns.TypeA, "REFUSED")

	// A new daemon keeps the process; it is replaced when it was lost.
	first, err := os.ReadFile(filepath.Join(h.o.RunDir, pidFile))
	if err != nil {
		t.Fatal(err)
	}
	h = reopen(t, h)
	for _, g := range []*guest{a, b, c, d} {
		if err := h.Reserve(g.id, "again-"+g.id, g.address); err != nil {
			t.Fatal(err)
		}
	}
	running := map[string]Running{}
	for _, g := range []*guest{a, b, c, d} {
		running[g.id] = Running{PID: g.pid, Address: g.address}
	}
	if err := h.Sync(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(filepath.Join(h.o.RunDir, pidFile)); err != nil || string(again) != string(first) {
		t.Errorf("the process was replaced: %s, then %s, %v", first, again, err)
	}
	wants(a, "udp", four, "again-"+b.id, dns.TypeA, b.address.IPv4.String())
	process, err := openRecorded(filepath.Join(h.o.RunDir, pidFile))
	if err != nil || process < 0 {
		t.Fatal(process, err)
	}
	host(t, "kill", "-9", strings.Fields(string(first))[0])
	if !waitEnd(process, 5*time.Second) {
		t.Fatal("not killed")
	}
	if err := h.EnsureDNS(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(a, "udp", four, "again-"+b.id, dns.TypeA, b.address.IPv4.String())
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.tellDNS(t.Context(), "sync"); err == nil {
		t.Error("the process is still there")
	}
	nothingLeft(t)
}

func TestEnvironmentsStartWhereNamesCannotBeAnswered(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	taken, err := listenPacket("0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	h := withNames(t)
	a, b := join(t, h, Default, 1), join(t, h, Default, 2)
	b.serve("tcp", ":80", "b")
	a.wants("tcp", at(b.address, "4", 80), "b from "+a.address.IPv4.String())
	if err := h.NamesFault(); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Error(err)
	}
	for _, f := range h.Check(t.Context()) {
		if f.Name == "name service" && f.OK {
			t.Errorf("%+v", f)
		}
	}
	taken.Close()
	if err := h.EnsureDNS(t.Context()); err != nil || h.NamesFault() != nil {
		t.Error(err, h.NamesFault())
	}
	n, _ := h.Network(Default)
	if said, err := a.query("udp", n.Gateway4.String()+":53", "guest2", dns.TypeA); err != nil || said != b.address.IPv4.String() {
		t.Error(said, err)
	}
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheNameServiceIsStartedAnewWhenItEnds(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := withNames(t)
	answered := func() bool {
		for _, f := range h.Check(t.Context()) {
			if f.Name == "name service" {
				return f.OK
			}
		}
		return false
	}
	a, b := join(t, h, Default, 1), join(t, h, Default, 2)
	n, _ := h.Network(Default)
	// The second time it is one that this Host did not start.
	for _, when := range []string{"of its own", "kept"} {
		path := filepath.Join(h.o.RunDir, pidFile)
		first, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		number := strings.Fields(string(first))[0]
		if !answered() {
			t.Error(when, "it answers, which was not seen")
		}
		host(t, "kill", "-STOP", number)
		if answered() {
			t.Error(when, "it does not answer, which was not seen")
		}
		host(t, "kill", "-KILL", number)
		eventually(t, "another is started", func() bool {
			now, err := os.ReadFile(path)
			return err == nil && string(now) != string(first) && h.NamesFault() == nil
		})
		if said, err := a.query("udp", n.Gateway4.String()+":53", "guest2", dns.TypeA); err != nil || said != b.address.IPv4.String() {
			t.Error(when, said, err)
		}
		h = reopen(t, h)
		running := map[string]Running{}
		for i, g := range []*guest{a, b} {
			if err := h.Reserve(g.id, "guest"+itoa(i+1), g.address); err != nil {
				t.Fatal(err)
			}
			running[g.id] = Running{PID: g.pid, Address: g.address}
		}
		if err := h.Sync(t.Context(), running); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * shortestWait) // for what must not happen there is no event
	if exists(filepath.Join(h.o.RunDir, pidFile)) {
		t.Error("one that was ended on purpose was started anew")
	}
}
