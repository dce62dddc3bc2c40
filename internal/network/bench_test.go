package network

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/network/internal/fresh"
)

// BenchmarkConnect measures one Connect with a published port, and the Disconnect
// after it; the process and its namespace are made beforehand.
func BenchmarkConnect(b *testing.B) {
	if !fresh.Namespace(b) {
		return
	}
	loopbackUp(b)
	h := open(b, "")
	join(b, h, Default, 0xffff)
	const rounds = 200
	var connect, disconnect []time.Duration
	for i := range rounds {
		g := startGuest(b, fmt.Sprintf("%012x", i))
		address, err := h.Allocate(Default, g.id, g.id)
		if err != nil {
			b.Fatal(err)
		}
		if err := h.zone.flush(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if _, err := h.Connect(b.Context(), g.id, g.pid, address, []Port{tcp(8080, 80)}); err != nil {
			b.Fatal(err)
		}
		connected := time.Now()
		if err := h.Disconnect(b.Context(), g.id); err != nil {
			b.Fatal(err)
		}
		connect, disconnect = append(connect, connected.Sub(began)), append(disconnect, time.Since(connected))
	}
	slices.Sort(connect)
	slices.Sort(disconnect)
	fmt.Printf("connect median %v, 95th %v; disconnect median %v, 95th %v\n", connect[rounds/2], connect[rounds*95/100], disconnect[rounds/2], disconnect[rounds*95/100])
	if err := h.Destroy(b.Context()); err != nil {
		b.Fatal(err)
	}
}
