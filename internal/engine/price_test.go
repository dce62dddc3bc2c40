package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// keptPrice is a price of zones as an earlier daemon wrote it down.
const keptPrice = `{"form":1,"strata":{"zone":{"stratum":"zone","measured":"2026-11-20T10:00:00Z","host":{"kernel":"some-old","cpu":"c","cpus":1,"version":"test"},
"line":"","figures":[{"name":"start","means":"","unit":"ms","inside":{"median":31,"least":25,"most":44,"count":5}}]}}}`

func TestKeptPricesAreShownAndNoneIsMadeUp(t *testing.T) {
	l := prepared(t)
	if err := os.MkdirAll(filepath.Join(l.dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.must(os.WriteFile(filepath.Join(l.dir, "state", "price.json"), []byte(keptPrice), 0o600))
	l.open()
	p, err := l.Price(t.Context())
	l.must(err)
	if len(p.Strata) != 1 || len(p.Strata[0].Stale) == 0 || p.Strata[0].Age <= 0 || p.Host.CPUs == 0 || p.Host.Kernel == "" {
		t.Fatalf("price: %+v", p)
	}
	plan, err := l.Plan(t.Context(), api.Spec{Template: "busybox"})
	l.must(err)
	made := l.create(api.Spec{Name: "one"})
	why, err := l.Why(t.Context(), made.ID)
	l.must(err)
	for what, c := range map[string]api.Choice{"plan": plan.Choice, "why": why} {
		if !strings.HasPrefix(c.Price, "start 31.0 ms (measured 2026-11-20, stale: the kernel was some-old and is ") {
			t.Errorf("%s: %q", what, c.Price)
		}
		for _, o := range c.Others {
			if o.Price != "not measured" {
				t.Errorf("%s, %s: %q", what, o.Stratum, o.Price)
			}
		}
	}
	l.must(os.Remove(filepath.Join(l.dir, "state", "price.json")))
	l.restart()
	if why, err = l.Why(t.Context(), made.ID); err != nil || why.Price != "not measured" {
		t.Errorf("a price of what is kept no more: %q, %v", why.Price, err)
	}
}

func TestAPriceIsWhatAnEnvironmentIsCountedWith(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		kernel string
		median float64
		want   unit.Size
	}{
		"measured on this kernel":    {unix.ByteSliceToString(u.Release[:]), 7.5, 7<<20 + 1<<19},
		"measured on another kernel": {"some-old", 7.5, 2 << 20},
		"no figure that can be":      {unix.ByteSliceToString(u.Release[:]), -3, 2 << 20},
	} {
		l := prepared(t)
		text := fmt.Sprintf(`{"form":1,"strata":{"zone":{"stratum":"zone","measured":"2026-11-20T10:00:00Z","host":{"kernel":%q,"cpu":"c","cpus":1,"version":"test"},
"line":"","figures":[{"name":"memory","means":"","unit":"MiB","inside":{"median":%g,"least":1,"most":9,"count":5}}]}}}`, row.kernel, row.median)
		l.must(os.MkdirAll(filepath.Join(l.dir, "state"), 0o755))
		l.must(os.WriteFile(filepath.Join(l.dir, "state", "price.json"), []byte(text), 0o600))
		l.open()
		l.run(api.Spec{Name: "one"})
		if got := l.Capacity(t.Context()).Memory.Overhead; got != row.want {
			t.Errorf("%s: it is counted with %s; want %s", name, got, row.want)
		}
	}
}

func TestMeasuringChecksWhatIsAsked(t *testing.T) {
	l := newLab(t)
	_, err := l.MeasurePrice(t.Context(), api.PriceRequest{Strata: []string{"guest"}})
	kindIs(t, err, fault.Invalid, "guest")
	_, err = l.MeasurePrice(t.Context(), api.PriceRequest{Template: "no-such"})
	kindIs(t, err, fault.Missing, "no-such")
}

func TestWhatCannotBeMeasuredLeavesNothingBehind(t *testing.T) {
	t.Setenv("PATH", fakeAgent(t)+":"+os.Getenv("PATH"))
	l := newLab(t)
	l.host.Fail = func(stratum.Plan) error { return fault.Unablef("it is broken today") }
	p, err := l.MeasurePrice(t.Context(), api.PriceRequest{Quick: true})
	l.must(err)
	if s := p.Strata[0]; !strings.Contains(s.LeftOut, "it is broken today") || !s.Measured.IsZero() || s.Line != "not measured" {
		t.Errorf("price: %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.host.Fail = func(stratum.Plan) error { cancel(); return nil } // the client leaves
	if _, err := l.MeasurePrice(ctx, api.PriceRequest{Quick: true}); err == nil {
		t.Error("who left got a price")
	}
	l.until("all is removed", func() bool { return len(l.host.Runs()) == 0 })
	if left := l.List(t.Context(), engine.ListFilter{All: true}); len(left) > 0 || len(l.network.Names()) > 0 {
		t.Errorf("left: %+v, %v", left, l.network.Names())
	}
	if _, err := os.Stat(filepath.Join(l.dir, "state", "price.json")); err == nil {
		t.Error("a price was kept of what was not measured")
	}
}

// fakeAgent is a folder with a measuring program that says nothing.
func fakeAgent(t *testing.T) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "strata-agent"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
