package engine_test

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

func TestPlanSaysWhatRunWouldDoAndDoesNothing(t *testing.T) {
	l := newLab(t)
	p, err := l.Plan(t.Context(), api.Spec{Template: "busybox", Needs: []string{"isolation"}, Tmpfs: []api.Tmpfs{{Target: "/t"}}})
	l.must(err)
	if p.Choice.Stratum != "zone" || p.Choice.Price != "not measured" || len(p.Choice.Others) != 2 || p.Disk != "10G" || len(p.Mounts) != 2 {
		t.Errorf("plan: %+v", p)
	}
	if len(l.network.Names()) > 0 || len(l.List(t.Context(), engine.ListFilter{All: true})) > 0 {
		t.Error("a plan left something")
	}
	_, err = l.Plan(t.Context(), api.Spec{Template: "no-such"})
	kindIs(t, err, fault.Missing, "no-such")
	_, err = l.Plan(t.Context(), api.Spec{Template: "busybox", Needs: []string{"foreign-os"}})
	kindIs(t, err, fault.Unable, "foreign-os")
	_, err = l.Plan(t.Context(), api.Spec{Template: "busybox", Network: "no-such"})
	kindIs(t, err, fault.Missing, "no-such")
	_, err = l.Plan(t.Context(), api.Spec{Template: "busybox", Network: "none"})
	l.must(err)
	_, err = l.CreateNetwork(t.Context(), api.Network{Name: "apart", Isolated: true})
	l.must(err)
	_, err = l.Plan(t.Context(), api.Spec{Template: "busybox", Network: "apart", Ports: []api.Port{{HostPort: 8080, Port: 80}}})
	kindIs(t, err, fault.Invalid, "isolated")
}

func TestWhatWasForcedIsKept(t *testing.T) {
	l := newLab(t)
	made, err := l.Create(t.Context(), api.Spec{Name: "forced", Template: "busybox", Stratum: "zone", Force: true, Needs: []string{"untrusted-code"}})
	l.must(err)
	if !made.Spec.Force || !strings.Contains(strings.Join(made.Notes, " "), "untrusted-code") {
		t.Errorf("made: %+v", made)
	}
	l.restart()
	why, err := l.Why(t.Context(), "forced")
	l.must(err)
	if len(why.Unmet) != 1 || why.Unmet[0] != "untrusted-code" || !strings.Contains(why.Reason, "forced") {
		t.Errorf("why: %+v", why)
	}
}
