package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
)

// BenchmarkOverhead is what the engine itself adds to a whole `run --rm`: create,
// start, end, removal, on a driver that does nothing.
func BenchmarkOverhead(b *testing.B) {
	for name, spec := range map[string]api.Spec{"removed at its end": {AutoRemove: true}, "kept": {}} {
		b.Run(name, func(b *testing.B) {
			l := prepared(b)
			l.open()
			spec.Template = "busybox"
			for b.Loop() {
				env, err := l.Create(b.Context(), spec)
				if err != nil {
					b.Fatal(err)
				}
				if err := l.Start(b.Context(), env.ID, nil); err != nil {
					b.Fatal(err)
				}
				l.host.Run(env.ID).Signalled <- 15
				if spec.AutoRemove {
					l.Wait(b.Context(), env.ID, "removed")
					continue
				}
				l.Wait(b.Context(), env.ID, "stopped")
				if err := l.Remove(b.Context(), env.ID, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList500(b *testing.B) {
	l := prepared(b)
	l.open()
	for i := range 500 {
		l.create(api.Spec{Name: fmt.Sprint("e-", i), AutoRemove: true})
	}
	for b.Loop() {
		if n := len(l.List(b.Context(), engine.ListFilter{All: true})); n != 500 {
			b.Fatal(n)
		}
	}
}

// TestListIsQuick holds the bound with a wide margin for a busy machine.
func TestListIsQuick(t *testing.T) {
	l := newLab(t)
	for i := range 500 {
		l.create(api.Spec{Name: fmt.Sprint("e-", i), AutoRemove: true})
	}
	best := time.Hour
	for range 10 {
		began := time.Now()
		l.List(t.Context(), engine.ListFilter{All: true})
		best = min(best, time.Since(began))
	}
	if best > 5*time.Millisecond {
		t.Errorf("listing 500 environments took %v", best)
	}
}
