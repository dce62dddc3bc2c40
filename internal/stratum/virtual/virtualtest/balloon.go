package virtualtest

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// ballooning is a run whose balloon can be asked for.
type ballooning interface {
	stratum.Live
	stratum.Limiter
	stratum.Reclaimer
	Execute(ctx context.Context, command string, args, result any, files ...*os.File) error
}

// Balloons has a driver's machine change its memory while it runs, and give back what it
// does not use.
func Balloons(t *testing.T, r *Root, d stratum.Driver) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*Patience)
	defer cancel()
	p := r.Plan(t)
	p.Cold = true
	p.Resources = api.Resources{Memory: 300 * unit.MiB}
	p.Main = stratum.Process{Env: []string{"PATH=/bin"}, Args: []string{"/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=100; sync; cat /big >/dev/null; exec sleep 1000"}}
	started, err := d.Start(ctx, p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's is over
		if err := started.Kill(ctx); err != nil {
			t.Error(err)
		}
		if _, err := started.Wait(ctx); err != nil {
			t.Error(err)
		}
		if _, err := d.Clean(ctx, p.ID); err != nil {
			t.Error(err)
		}
	})
	live := started.(ballooning)
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("it does not come to %s", what)
			}
		}
	}
	used := func() int64 {
		s, err := live.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Memory
	}
	until("a page cache", func() bool { return used() > 90<<20 })
	for _, limit := range []unit.Size{120 * unit.MiB, 300 * unit.MiB} {
		p.Resources.Memory = limit
		if err := live.SetLimits(ctx, p.Resources); err != nil {
			t.Fatal(err)
		}
		want := int64(limit + api.OwnShare)
		until(unit.Size(want).String(), func() bool {
			var have struct{ Actual int64 }
			if err := live.Execute(ctx, "query-balloon", nil, &have); err != nil {
				t.Fatal(err)
			}
			return have.Actual == want
		})
	}
	p.Resources.MemoryGuarantee = 100 * unit.MiB
	got, err := live.Reclaim(ctx, p.Resources)
	if err != nil {
		t.Fatal(err)
	}
	if freed := got.Before - got.After; freed < 40<<20 || !slices.Contains(got.By, "balloon") {
		t.Errorf("%d bytes came back, by %v", freed, got.By)
	}
	s, err := live.Stats(ctx)
	if err != nil || s.OOMKills != 0 {
		t.Errorf("afterwards %d were killed: %v", s.OOMKills, err)
	}
}
