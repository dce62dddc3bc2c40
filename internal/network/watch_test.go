package network

import (
	"slices"
	"testing"

	"github.com/strata-project/strata/internal/network/internal/fresh"
)

func TestWhatOthersTakeAwayIsPutRight(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	a, b := join(t, h, Default, 1, tcp(8080, 80)), join(t, h, Default, 2)
	card, _ := plug(t, h, Default, 3, udpPort(8081, 81))
	n, _ := h.Network(Default)
	if _, err := h.Create(t.Context(), Network{Name: "idle"}); err != nil {
		t.Fatal(err)
	}
	idle, _ := h.Network("idle")
	a.serve("tcp", ":80", "a")
	w := watch{h: h, missing: map[string]string{}, told: map[string]string{}}
	look := func(whole bool, lost ...string) {
		t.Helper()
		if got := w.look(t.Context(), whole); !slices.Equal(got, lost) {
			t.Errorf("lost are %q; want %q", got, lost)
		}
	}
	works := func() {
		t.Helper()
		b.wants("tcp", at(a.address, "4", 80), "a from "+b.address.IPv4.String())
		b.wants("tcp", at(a.address, "6", 80), "a from "+addr(b.address, "6"))
		wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
		a.wants("tcp", n.Gateway4.String()+":8080", "a from "+n.Gateway4.String()) // to itself: hairpin
		card.meet(n)
		card.talks("127.0.0.1:8081", 81)
	}
	works()
	look(true)
	for _, away := range [][]string{
		{"ip", "link", "del", n.Bridge},
		{"ip", "link", "set", h.linkOf(a.id), "nomaster"},
		{"nft", "flush", "ruleset"},
		{"nft", "delete", "table", "inet", "strata"},
	} {
		host(t, away...)
		look(away[2] == "set")
		works()
	}
	host(t, "ip", "link", "del", idle.Bridge)
	look(true)
	if hasLink(idle.Bridge) {
		t.Error("a bridge that nobody uses was made again")
	}
	host(t, "ip", "link", "del", h.linkOf(b.id))
	look(false)
	look(true)
	look(false, b.id) // it was missing twice
	look(false)
	look(true)
	if err := h.Disconnect(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	look(true)
	if len(w.missing)+len(w.told) > 0 {
		t.Errorf("kept of who is gone: %v, %v", w.missing, w.told)
	}
}

func (h *Host) linkOf(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.environments[id].link
}
