package network

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/network/internal/fresh"
)

// BenchmarkConnect measures Connect with a published port, and Disconnect, one
// after the other; processes and namespaces are made beforehand.
func BenchmarkConnect(b *testing.B) {
	if !fresh.Namespace(b) {
		return
	}
	loopbackUp(b)
	h := open(b, "")
	join(b, h, Default, 0xffff)
	const rounds = 200
	var guests []*guest
	for i := range rounds {
		g := startGuest(b, fmt.Sprintf("%012x", i))
		var err error
		if g.address, err = h.Allocate(Default, g.id, g.id); err != nil {
			b.Fatal(err)
		}
		guests = append(guests, g)
	}
	if err := h.zone.flush(); err != nil {
		b.Fatal(err)
	}
	var connect, disconnect []time.Duration
	for i, g := range guests {
		began := time.Now()
		if _, err := h.Connect(b.Context(), g.id, g.pid, g.address, []Port{tcp(uint16(10000+i), 80)}); err != nil {
			b.Fatal(err)
		}
		connect = append(connect, time.Since(began))
	}
	for _, g := range guests {
		began := time.Now()
		if err := h.Disconnect(b.Context(), g.id); err != nil {
			b.Fatal(err)
		}
		disconnect = append(disconnect, time.Since(began))
	}
	slices.Sort(connect)
	slices.Sort(disconnect)
	fmt.Printf("connect 10th %v, median %v, 95th %v; disconnect median %v, 95th %v\n", connect[rounds/10], connect[rounds/2], connect[rounds*95/100], disconnect[rounds/2], disconnect[rounds*95/100])
	if err := h.Destroy(b.Context()); err != nil {
		b.Fatal(err)
	}
}
