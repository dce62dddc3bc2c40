package network

import (
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/network/internal/fresh"
	"github.com/strata-project/strata/internal/require"
)

// flow sends by one connection for as long as read wants, and returns how many bytes
// arrived in each second once the first ones, which a quiet link has saved up, are over.
func flow(t *testing.T, from, to *guest, at string, settle, measure time.Duration) float64 {
	t.Helper()
	var l net.Listener
	var c net.Conn
	if err := to.within(func() (err error) { l, err = net.Listen("tcp", at); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := from.within(func() (err error) { c, err = net.DialTimeout("tcp", at, require.Patience(10*time.Second)); return err }); err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	go func() {
		defer c.Close()
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	read := func(d time.Duration) float64 {
		b := make([]byte, 64<<10)
		n, start := 0, time.Now()
		if err := in.SetReadDeadline(start.Add(d)); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := in.Read(b)
			n += got
			if err != nil {
				if ne, ok := err.(net.Error); !ok || !ne.Timeout() || err == io.EOF {
					t.Fatal(err)
				}
				return float64(n) / time.Since(start).Seconds()
			}
		}
	}
	read(settle)
	return read(measure)
}

// about wants a rate within a fifth. What was sent while the machine was away comes
// later, so a busy one gets another try.
func about(t *testing.T, what string, want float64, measure func() float64) {
	t.Helper()
	got := measure()
	if math.Abs(got-want) > want/5 {
		t.Logf("%s: %.0f bytes a second, want %.0f; once more", what, got, want)
		got = measure()
	}
	if math.Abs(got-want) > want/5 {
		t.Errorf("%s: %.0f bytes a second, want %.0f", what, got, want)
	}
	t.Logf("%s: %.0f of %.0f bytes a second", what, got, want)
}

func TestRatesHoldInBothDirectionsAndEndWhenTheyAreTakenAway(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	limited, other, outside := join(t, h, Default, 1), join(t, h, Default, 2), onHost(t)
	r := Rate{In: 4 << 20, Out: 1 << 20}
	if err := h.SetRate(limited.id, r); err != nil {
		t.Fatal(err)
	}
	const settle, measure = 1200 * time.Millisecond, 2 * time.Second
	gateway := net.JoinHostPort(h.networks[Default].Gateway4.String(), "7001")
	about(t, "from the host in", float64(r.In), func() float64 { return flow(t, outside, limited, at(limited.address, "4", 7000), settle, measure) })
	about(t, "out to the host", float64(r.Out), func() float64 { return flow(t, limited, outside, gateway, settle, measure) })
	about(t, "out to a neighbour", float64(r.Out), func() float64 { return flow(t, limited, other, at(other.address, "6", 7002), settle, measure) })
	if d := h.Dropped(limited.id); d.In == 0 || d.Out == 0 {
		t.Errorf("dropped: %+v; want both counted", d)
	}

	// A change holds at once, also of one way only.
	if err := h.SetRate(limited.id, Rate{In: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	about(t, "in, changed", 1<<20, func() float64 { return flow(t, outside, limited, at(limited.address, "4", 7003), settle, measure) })
	if free := flow(t, limited, outside, gateway, 0, time.Second); free < 10*float64(r.Out) {
		t.Errorf("out, unlimited: %.0f bytes a second", free)
	}
	if err := h.SetRate(limited.id, Rate{}); err != nil {
		t.Fatal(err)
	}
	if free := flow(t, outside, limited, at(limited.address, "4", 7004), 0, time.Second); free < 10*float64(r.In) {
		t.Errorf("in, unlimited: %.0f bytes a second", free)
	}
	if said := host(t, "nft", "list", "tables"); strings.Contains(said, "rates") {
		t.Error("without a limit there is still a table:", said)
	}
}

// rateTable is what nft says, "" where there is none.
func rateTable(t *testing.T) string {
	t.Helper()
	if !strings.Contains(host(t, "nft", "list", "tables"), "strata-rates") {
		return ""
	}
	return host(t, "nft", "list", "table", "bridge", "strata-rates")
}

func TestRatesAreFoundAgainAndGoWithTheLink(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	a, b := join(t, h, Default, 1), join(t, h, Default, 2)
	ra, rb := Rate{In: 3000000, Out: 2000000}, Rate{Out: 5000000}
	for id, r := range map[string]Rate{a.id: ra, b.id: rb} {
		if err := h.SetRate(id, r); err != nil {
			t.Fatal(err)
		}
	}
	before := rateTable(t)
	for _, want := range []string{"3000000 bytes/second", "2000000 bytes/second", "5000000 bytes/second"} {
		if !strings.Contains(before, want) {
			t.Errorf("no limit of %s:\n%s", want, before)
		}
	}
	// A new daemon finds what is so already, changes what its records have otherwise, and
	// takes away what is nobody's.
	h = reopen(t, h)
	for _, g := range []*guest{a, b} {
		if err := h.Reserve(g.id, "guest"+g.id, g.address); err != nil {
			t.Fatal(err)
		}
	}
	now := Rate{In: 3000000, Out: 7000000}
	running := map[string]Running{a.id: {PID: a.pid, Address: a.address, Rate: now}, b.id: {PID: b.pid, Address: b.address}}
	if err := h.Sync(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	after := rateTable(t)
	if strings.Count(after, "limit rate over") != 2 || !strings.Contains(after, "7000000 bytes/second") || !strings.Contains(after, "3000000 bytes/second") {
		t.Errorf("after a restart:\n%s", after)
	}
	// Somebody else's hand is put right with the next change of the filter.
	host(t, "nft", "flush", "ruleset")
	join(t, h, Default, 3)
	if said := rateTable(t); strings.Count(said, "limit rate over") != 2 {
		t.Errorf("after a flush:\n%s", said)
	}
	if err := h.Disconnect(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	if said := rateTable(t); said != "" {
		t.Errorf("after the last link with a limit:\n%s", said)
	}
}
