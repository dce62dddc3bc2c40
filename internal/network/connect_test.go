package network

import (
	"testing"

	"github.com/strata-project/strata/internal/network/internal/fresh"
)

func TestTwoEnvironmentsReachEachOtherAndTheHost(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	a, b := join(t, h, Default, 1), join(t, h, Default, 2)
	t.Log(a.must("ip", "address"), a.must("ip", "route"), a.must("ip", "-6", "route"))
	n, err := h.Network(Default)
	if err != nil {
		t.Fatal(err)
	}
	server := onHost(t)
	for _, version := range []string{"4", "6"} {
		b.serve("tcp", ":80", "b")
		a.wants("tcp", at(b.address, version, 80), "b from "+addr(a.address, version))
		wants(t, "tcp", at(b.address, version, 80), "b from "+addr(Address{IPv4: n.Gateway4, IPv6: n.Gateway6}, version))
	}
	server.serve("tcp", ":81", "host")
	a.wants("tcp", n.Gateway4.String()+":81", "host from "+a.address.IPv4.String())
	a.wants("tcp", "["+n.Gateway6.String()+"]:81", "host from "+a.address.IPv6.String())
	s, err := h.Stats(a.id)
	if err != nil || s.TxPackets == 0 || s.RxBytes == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestANewRunIsReachedAtOnceThoughTheOldOneLingers(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	asker := join(t, h, Default, 2)
	g := join(t, h, Default, 1, tcp(8080, 80))
	g.serve("tcp", ":80", "first")
	n, _ := h.Network(Default)
	wants(t, "tcp", "127.0.0.1:8080", "first from "+n.Gateway4.String())
	asker.wants("tcp", at(g.address, "4", 80), "first from "+asker.address.IPv4.String())
	for range 3 {
		if err := h.Disconnect(t.Context(), g.id); err != nil {
			t.Fatal(err)
		}
		again := startGuest(t, g.id)
		again.address = g.address
		again.serve("tcp", ":80", "again")
		if _, err := h.Connect(t.Context(), again.id, again.pid, again.address, []Port{tcp(8080, 80)}); err != nil {
			t.Fatal(err)
		}
		asker.wants("tcp", at(g.address, "4", 80), "again from "+asker.address.IPv4.String())
		wants(t, "tcp", "127.0.0.1:8080", "again from "+n.Gateway4.String())
	}
	eventually(t, "links of earlier runs are gone", func() bool {
		ports, err := portsOf([]string{n.Bridge})
		return err == nil && len(ports) == 2
	})
	asker.wants("tcp", at(g.address, "4", 80), "again from "+asker.address.IPv4.String())
}
