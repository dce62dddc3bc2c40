package engine_test

import (
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func TestRatesOfTheNetworkAreOfTheRecord(t *testing.T) {
	l := newLab(t)
	spec := api.Spec{Name: "web", Resources: api.Resources{NetIn: 2 << 20}}
	env := l.run(spec)
	want := func(when string, r engine.Rate) {
		t.Helper()
		if got := l.network.Rate(env.ID); got != r {
			t.Errorf("%s: %+v; want %+v", when, got, r)
		}
	}
	want("after the start", engine.Rate{In: 2 << 20})
	out, none, little := unit.Size(1<<20), unit.Size(0), unit.Size(1)
	if _, err := l.Update(t.Context(), "web", api.Update{NetIn: &none, NetOut: &out}); err != nil {
		t.Fatal(err)
	}
	want("after a change", engine.Rate{Out: 1 << 20})
	_, err := l.Update(t.Context(), "web", api.Update{NetIn: &little})
	kindIs(t, err, fault.Invalid, "net_in")
	l.restart()
	if got := l.network.Synced[env.ID].Rate; got != (engine.Rate{Out: 1 << 20}) {
		t.Errorf("a new daemon has the network told %+v", got)
	}
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.must(l.Start(t.Context(), "web", nil))
	want("after another start", engine.Rate{Out: 1 << 20})
	l.until("a sample", func() bool {
		all, err := l.Resources(t.Context(), []string{"web"})
		l.must(err)
		c := counterOf(t, all[0], "net-out")
		return c.Limit != nil && *c.Limit == 1<<20 && c.Hits != nil && *c.Hits == 7
	})
	_, err = l.Create(t.Context(), api.Spec{Template: "busybox", Name: "alone", Network: "none", Resources: api.Resources{NetIn: 1 << 20}})
	kindIs(t, err, fault.Invalid, "network")
}
