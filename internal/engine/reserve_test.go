package engine

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/unit"
)

// TestTheReserveOfProcessorsIsMeasured has a host of 4 processors whose other programs use
// half a processor, and strata's a whole one.
func TestTheReserveOfProcessorsIsMeasured(t *testing.T) {
	dir := t.TempDir()
	var ours time.Duration
	daemon := func() *Engine {
		e := &Engine{log: slog.New(slog.DiscardHandler), o: Options{
			Places:  place.Places{State: dir},
			Host:    admission.Host{CPUs: 4000, ReserveCPUs: 200},
			Reserve: Reserve{CPUs: "a twentieth", Spent: func() (time.Duration, bool) { return ours, true }},
		}}
		e.book = admission.New(e.o.Host)
		e.openOutside()
		return e
	}
	now, used := time.Now(), time.Hour // since the host booted
	pass := func(e *Engine, minutes int, others float64) {
		for range minutes * 60 {
			now, ours = now.Add(time.Second), ours+time.Second
			used += time.Second + time.Duration(others*float64(time.Second))
			e.lookOutside(now, used)
		}
	}
	is := func(e *Engine, want unit.CPUs, words ...string) {
		t.Helper()
		c := e.Capacity(t.Context()).CPUs
		if c.Reserve != want || c.Capacity != c.Host-want || c.Guaranteed > c.Capacity {
			t.Errorf("%+v; want a reserve of %s", c, want)
		}
		for _, w := range words {
			if !strings.Contains(c.ReserveFrom, w) {
				t.Errorf("it comes from %q, want %q in it", c.ReserveFrom, w)
			}
		}
	}
	e := daemon()
	is(e, 200, "a twentieth", "0 minutes")
	pass(e, 59, 0.5)
	is(e, 200, "a twentieth")
	pass(e, 3, 0.5)
	is(e, 600, "measured", "within 0.6 ") // in whole twentieths of the host
	is(daemon(), 600, "measured")         // a next one knows it
	pass(e, 200, 3)
	is(e, 1000, "within 3", "a quarter of the processors is kept at most")
	e = daemon()
	e.book = admission.New(e.o.Host) // of before that was seen
	if err := e.book.Take(admission.Claim{ID: "a", Name: "a", CPUs: 3500}); err != nil {
		t.Fatal(err)
	}
	e.measured()
	is(e, 500, "0.5 of it are guaranteed already")
	e.book.Give("a")
	e.measured()
	is(e, 1000)
	if err := os.WriteFile(filepath.Join(dir, loadName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	is(daemon(), 200, "0 minutes")
}
