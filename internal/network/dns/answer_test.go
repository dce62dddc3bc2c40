package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

func testZone() Zone {
	network := func(name, four, six string, isolated bool) Network {
		p4, p6 := netip.MustParsePrefix(four), netip.MustParsePrefix(six)
		return Network{Name: name, Link: "st-" + name, IPv4: p4, IPv6: p6, Gateway4: p4.Addr().Next(), Gateway6: p6.Addr().Next(), Isolated: isolated, Up: true}
	}
	z := Zone{Networks: []Network{network("default", "10.64.0.0/20", "fd01::/64", false), network("alone", "10.99.0.0/24", "fd02::/64", true)}}
	host := func(network, name, four, six string) {
		h := Host{Network: network, Name: name, IPv4: netip.MustParseAddr(four)}
		if six != "" {
			h.IPv6 = netip.MustParseAddr(six)
		}
		z.Hosts = append(z.Hosts, h)
	}
	host("default", "web", "10.64.0.2", "fd01::2")
	host("default", "old", "10.64.0.3", "")
	host("alone", "web", "10.99.0.2", "fd02::2")
	host("alone", "db", "10.99.0.3", "fd02::3")
	return z
}

func TestZoneIsReadAsItWasWritten(t *testing.T) {
	z := testZone()
	got, err := ParseZone(z.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(z, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "strata-names 2\n", header + "\nhost a b\n", header + "\nhost a b 300.1.1.1 -\n", header + "\nwhat\n"} {
		if _, err := ParseZone([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestAnswers(t *testing.T) {
	x := newIndex(testZone())
	const upstream = "asks others"
	for name, c := range map[string]struct {
		network, asker, question string
		kind                     uint16
		want                     string
	}{
		"a name":                                     {"default", "10.64.0.9", "web.", dns.TypeA, "10.64.0.2"},
		"whatever case":                              {"default", "10.64.0.9", "wEb.", dns.TypeA, "10.64.0.2"},
		"a name below strata":                        {"default", "10.64.0.9", "web.strata.", dns.TypeAAAA, "fd01::2"},
		"asked by IPv6":                              {"default", "fd01::9", "web.", dns.TypeA, "10.64.0.2"},
		"the same name on another network":           {"alone", "10.99.0.9", "web.", dns.TypeA, "10.99.0.2"},
		"no IPv6 there":                              {"default", "10.64.0.9", "old.", dns.TypeAAAA, "NOERROR"},
		"another type":                               {"default", "10.64.0.9", "web.", dns.TypeMX, "NOERROR"},
		"a name of another network":                  {"default", "10.64.0.9", "db.strata.", dns.TypeA, "NXDOMAIN"},
		"a name of another network, bare":            {"default", "10.64.0.9", "db.", dns.TypeA, upstream},
		"the top":                                    {"default", "10.64.0.9", "strata.", dns.TypeA, "NOERROR"},
		"below a name":                               {"default", "10.64.0.9", "x.web.strata.", dns.TypeA, "NXDOMAIN"},
		"localhost":                                  {"default", "10.64.0.9", "localhost.", dns.TypeA, "127.0.0.1"},
		"the world":                                  {"default", "10.64.0.9", "example.org.", dns.TypeA, upstream},
		"the world, from an isolated network":        {"alone", "10.99.0.9", "example.org.", dns.TypeA, "NXDOMAIN"},
		"an address":                                 {"default", "10.64.0.9", "2.0.64.10.in-addr.arpa.", dns.TypePTR, "web.strata."},
		"an IPv6 address":                            {"default", "10.64.0.9", "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa.", dns.TypePTR, "web.strata."},
		"an address that nobody has":                 {"default", "10.64.0.9", "77.0.64.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		"an address of another network":              {"default", "10.64.0.9", "2.0.99.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		"an address of the world":                    {"default", "10.64.0.9", "1.2.0.192.in-addr.arpa.", dns.TypePTR, upstream},
		"asked from another network":                 {"default", "10.99.0.2", "web.", dns.TypeA, "REFUSED"},
		"asked on a network that is not there":       {"gone", "10.64.0.9", "web.", dns.TypeA, "REFUSED"},
		"everything of a zone":                       {"default", "10.64.0.9", "strata.", dns.TypeAXFR, "REFUSED"},
		"a reverse name that is none, of the world":  {"default", "10.64.0.9", "x.0.64.10.in-addr.arpa.", dns.TypePTR, upstream},
		"a reverse name that is none, from isolated": {"alone", "10.99.0.9", "300.0.64.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(dns.Msg)
			q.SetQuestion(c.question, c.kind)
			reply, further := x.answer(q, c.network, netip.MustParseAddr(c.asker))
			got := dns.RcodeToString[reply.Rcode]
			if len(reply.Answer) > 0 {
				fields := strings.Fields(reply.Answer[0].String())
				got = fields[len(fields)-1]
				if !strings.EqualFold(fields[0], c.question) {
					t.Error("the answer is about", fields[0])
				}
			}
			if further {
				got = upstream
			}
			if got != c.want {
				t.Errorf("%s %s: %s, want %s", c.question, dns.TypeToString[c.kind], got, c.want)
			}
			if _, err := reply.Pack(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestResolvConfIsReadAsTheLibraryDoes(t *testing.T) {
	got := ParseResolvConf([]byte("# nameserver 1.1.1.1\nsearch a b\nnameserver 192.0.2.53\nnameserver\nnameserver nonsense\n nameserver fe80::1%eth0 x\nnameserver 192.0.2.53\nnameserver ::1"))
	want := []string{"192.0.2.53:53", "[fe80::1%eth0]:53", "[::1]:53"}
	var said []string
	for _, a := range got {
		said = append(said, a.String())
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
}

func TestAFloodGetsNoAnswerAndOthersDo(t *testing.T) {
	l := newLimits()
	now := time.Now()
	l.now = func() time.Time { return now }
	bad, good := netip.MustParseAddr("10.64.0.2"), netip.MustParseAddr("10.64.0.3")
	for range askerBurst {
		if !l.allow(bad) {
			t.Fatal("refused within its burst")
		}
	}
	if l.allow(bad) || !l.allow(good) {
		t.Error("the flood is not told from others")
	}
	now = now.Add(time.Second)
	if !l.allow(bad) {
		t.Error("never forgiven")
	}
	for range askerUnder {
		if !l.begin(bad) {
			t.Fatal("refused within its share")
		}
	}
	if l.begin(bad) || !l.begin(good) {
		t.Error("one takes the share of others")
	}
	a := netip.MustParseAddr("fd01::")
	for range 3 * askersKept {
		a = a.Next()
		l.allow(a)
	}
	if len(l.askers) > askersKept {
		t.Error("askers are kept without bound:", len(l.askers))
	}
}

// packetWriter is a dns.ResponseWriter that checks what it is given.
type packetWriter struct {
	t    testing.TB
	from net.Addr
	sent *dns.Msg
}

func (w *packetWriter) LocalAddr() net.Addr  { return w.from }
func (w *packetWriter) RemoteAddr() net.Addr { return w.from }
func (w *packetWriter) WriteMsg(m *dns.Msg) error {
	w.sent = m
	b, err := m.Pack()
	if err == nil && len(b) > maxMessage {
		w.t.Errorf("an answer of %d bytes", len(b))
	}
	return nil // a question that cannot be printed gets no answer
}
func (w *packetWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *packetWriter) Close() error                { return nil }
func (w *packetWriter) TsigStatus() error           { return nil }
func (w *packetWriter) TsigTimersOnly(bool)         {}
func (w *packetWriter) Hijack()                     {}

func FuzzServe(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, NamesFile), testZone().Append(nil), 0o600); err != nil {
		f.Fatal(err)
	}
	s := newServer(Config{Dir: dir, ResolvConf: filepath.Join(dir, "none"), Log: slog.New(slog.DiscardHandler)})
	s.limits.now = func() time.Time { return time.Unix(0, 0) }
	for _, question := range []string{"web.", "2.0.64.10.in-addr.arpa.", "example.org.", "."} {
		q := new(dns.Msg)
		q.SetQuestion(question, dns.TypeA)
		q.SetEdns0(1232, true)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	from := &net.UDPAddr{IP: net.IPv4(10, 64, 0, 9), Port: 5}
	f.Fuzz(func(t *testing.T, b []byte) {
		s.limits = newLimits()
		var q dns.Msg
		if len(b) < 12 || q.Unpack(b) != nil {
			return
		}
		w := &packetWriter{t: t, from: from}
		s.serve(w, &q, "default")
		if w.sent == nil {
			t.Fatal("no answer")
		}
		if w.sent.Id != q.Id || !w.sent.Response {
			t.Errorf("the answer is not one to the question: %v", w.sent)
		}
	})
}

func FuzzParseZone(f *testing.F) {
	f.Add(testZone().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := ParseZone(b)
		if err != nil {
			return
		}
		printed := z.Append(nil)
		again, err := ParseZone(printed)
		if err != nil {
			t.Fatalf("%q cannot be read again: %v", printed, err)
		}
		if got := again.Append(nil); string(got) != string(printed) {
			t.Errorf("%q became %q", printed, got)
		}
	})
}
