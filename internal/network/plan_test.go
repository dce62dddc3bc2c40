package network

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

// planned is a network as it would be made on a host with nothing else on it.
func planned(t *testing.T, n Network, f *facts) *networkState {
	t.Helper()
	if err := complete(&n, "", f, "strata0"); err != nil {
		t.Fatal(err)
	}
	s := newState(n)
	s.index, s.mtu = 7, 1500
	return s
}

func TestLinkPlanPrintsAsWrittenDown(t *testing.T) {
	six := netip.MustParsePrefix("fd12:3456:789a:1::/64")
	var b bytes.Buffer
	for _, c := range []struct {
		name string
		n    Network
		ipv6 bool
		pin  bool
	}{
		{"both versions, ports", Network{Name: Default, IPv6: six}, true, true},
		{"isolated", Network{Name: "alone", IPv4: netip.MustParsePrefix("10.99.0.0/24"), IPv6: six, Isolated: true}, true, false},
		{"a host without IPv6", Network{Name: Default}, false, false},
	} {
		s := planned(t, c.n, &facts{ipv6: c.ipv6})
		a := Address{Network: c.n.Name, IPv4: addressAt(s.IPv4, 2)}
		a.MAC = hardwareAddress(a.IPv4).String()
		if c.ipv6 {
			a.IPv6 = addressAt(s.IPv6, 2)
		}
		p, err := s.plan("sv0123456789ab0", a)
		if err != nil {
			t.Fatal(err)
		}
		p.Hairpin = c.pin
		fmt.Fprintf(&b, "# %s\n%s", c.name, p)
		for _, q := range append(append(p.requests(9), p.station(8)), p.inner(2)...) {
			fmt.Fprintf(&b, "%-40s type %d flags %#x %x\n", q.what, q.kind, q.flags, q.body)
		}
	}
	golden(t, "testdata/links.txt", b.String())
}

func TestSubnetsKeepClearOfTheHost(t *testing.T) {
	free, ok := chooseSubnet("/default", &facts{})
	if !ok || !pool.Contains(free.Addr()) || free.Bits() != subnetBits {
		t.Fatal(free, ok)
	}
	f := &facts{}
	f.add(netip.PrefixFrom(free.Addr(), 24), "the route of a VPN")
	next, ok := chooseSubnet("/default", f)
	if !ok || next.Overlaps(free) {
		t.Error(next, "is in the way of", free)
	}
	if other, _ := chooseSubnet("1a2b3c/default", &facts{}); other == free {
		t.Error("two roots start at the same place")
	}
	f.add(pool, "everything")
	if _, ok := chooseSubnet("/default", f); ok {
		t.Error("found one where none is free")
	}
	n := Network{Name: "x", IPv4: netip.PrefixFrom(free.Addr(), 26)}
	if err := complete(&n, "", f, "b"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "the route of a VPN") {
		t.Error(err)
	}
	for _, good := range []string{"10.0.0.0/8", "172.16.0.0/12", "172.31.255.0/29", "192.168.7.9/24"} {
		n := Network{Name: "x", IPv4: netip.MustParsePrefix(good)}
		if err := complete(&n, "", &facts{}, "b"); err != nil || n.IPv4 != netip.MustParsePrefix(good).Masked() {
			t.Errorf("%s: %v, %v", good, n.IPv4, err)
		}
	}
	for _, bad := range []string{"8.8.8.0/24", "10.0.0.0/30", "10.0.0.0/7", "172.16.0.0/8", "172.16.0.0/11", "172.32.0.0/12", "192.168.0.0/12", "169.254.0.0/24", "fd00::/64"} {
		n := Network{Name: "x", IPv4: netip.MustParsePrefix(bad)}
		if err := complete(&n, "", &facts{}, "b"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{"fd00::/48", "fe80::/64", "10.1.0.0/24"} {
		n := Network{Name: "x", IPv6: netip.MustParsePrefix(bad)}
		if err := complete(&n, "", &facts{ipv6: true}, "b"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestAddressesAreForLifeAndGivenOnce(t *testing.T) {
	h, err := Open(t.Context(), Options{Dir: t.TempDir(), RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	n := Network{Name: "small", IPv4: netip.MustParsePrefix("10.99.0.0/29")}
	if err := complete(&n, "", &facts{ipv6: true}, "st-1"); err != nil {
		t.Fatal(err)
	}
	h.networks["small"] = newState(n)
	id := func(i int) string { return fmt.Sprintf("%012x", i) }
	var given []Address
	for i := range 5 { // .2 to .6
		a, err := h.Allocate("small", id(i), id(i))
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, a)
	}
	if _, err := h.Allocate("small", id(9), "nine"); !fault.Is(err, fault.Conflict) {
		t.Error("given out more than there are:", err)
	}
	if _, err := h.Allocate("small", id(1), "one"); !fault.Is(err, fault.Conflict) {
		t.Error("two addresses for one:", err)
	}
	if _, err := h.Allocate("nowhere", id(9), "nine"); !fault.Is(err, fault.Missing) {
		t.Error(err)
	}
	h.Release(t.Context(), id(2))
	h.Release(t.Context(), id(2))
	if a, err := h.Allocate("small", id(9), "nine"); err != nil || a != given[2] {
		t.Error(a, err)
	}
	if err := h.Reserve(id(9), "nine", given[2]); err != nil {
		t.Error("reserving what one has:", err)
	}
	if err := h.Reserve(id(8), "eight", given[2]); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	wrong := given[0]
	wrong.IPv4 = netip.MustParseAddr("10.98.0.2")
	if err := h.Reserve(id(8), "eight", wrong); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if err := h.Rename(id(7), "x"); !fault.Is(err, fault.Missing) {
		t.Error(err)
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	dir := t.TempDir()
	n := planned(t, Network{Name: "a", Isolated: true}, &facts{ipv6: true}).Network
	if err := saveRecord(dir, n); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".b.json"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := loadRecords(dir)
	if err != nil || len(got) != 1 || got[0] != n {
		t.Errorf("%+v, %v; want %+v", got, err, n)
	}
	if exists(filepath.Join(dir, ".b.json")) {
		t.Error("half-written file is still there")
	}
	for _, bad := range []string{"", "{}", `{"version":2}`, `{"version":1,"name":"../x"}`} {
		if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadRecords(dir); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestNamesOfNetworks(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "my-net": true, "": false, "none": false, "host": false, "-a": false, "a-": false, "A": false, "a.b": false, strings.Repeat("a", 64): false} {
		if err := validName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseSocket(line); ok && !s.address.IsValid() {
			t.Errorf("%+v", s)
		}
	})
}
