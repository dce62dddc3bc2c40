package engine_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// TestWhoseAgentIsSilentIsToldWithItsReason has one agent that gets no time, one system
// that stands still, and one that has just gone.
func TestWhoseAgentIsSilentIsToldWithItsReason(t *testing.T) {
	l := newLab(t)
	l.host.Stats = func(ctx context.Context, r *enginetest.Run) (api.Stats, error) {
		switch r.Plan.Name {
		case "web":
			return api.Stats{CPUTime: 5, Memory: 6, PIDs: 7}, nil
		case "gone":
			return api.Stats{}, fault.Missingf("the control group is gone")
		case "broken", "still":
			return api.Stats{CPUTime: 5}, fault.Internalf("it talks nonsense")
		}
		<-ctx.Done()
		return api.Stats{CPUTime: 5}, ctx.Err()
	}
	l.host.Tasks = func(context.Context, *enginetest.Run) ([]stratum.Task, bool, error) {
		return nil, false, fault.Unablef("it cannot be asked")
	}
	l.host.Counts = func(context.Context, *enginetest.Run) (stratum.Counts, error) {
		return stratum.Counts{Silent: "it cannot be asked"}, nil
	}
	l.host.Stalled = func(r *enginetest.Run) bool { return r.Plan.Name == "still" }
	for name, want := range map[string]string{
		"web": "", "broken": "it talks nonsense", "starved": "it did not answer in time", "still": "it stands still",
	} {
		l.run(api.Spec{Name: name})
		s, err := l.Stats(t.Context(), name)
		if err != nil || s.CPUTime != 5 || s.Name != name || want == "" && s.Missing != "" || !strings.HasPrefix(s.Missing, want) {
			t.Errorf("%s: %+v, %v; want it to say %q", name, s, err, want)
		}
		if name == "starved" { // that takes its time
			continue
		}
		e, err := l.Get(t.Context(), name)
		if told := strings.HasPrefix(e.Trouble, "it stands still") && strings.Contains(e.Trouble, "make room in /"); err != nil || told != (name == "still") {
			t.Errorf("%s has the trouble %q, %v", name, e.Trouble, err)
		}
	}
	for name, want := range map[string]string{"web": "it cannot be asked", "still": "it stands still: the host has no room"} {
		list, err := l.Tasks(t.Context(), []string{name})
		if err != nil || len(list.Processes) != 1 || list.Processes[0].Missing != want {
			t.Errorf("the processes of %s: %+v, %v; want it to say %q", name, list.Processes, err, want)
		}
		tables, err := l.Resources(t.Context(), []string{name})
		if err != nil || len(tables) != 1 || tables[0].Missing != want {
			t.Errorf("the resources of %s: %+v, %v; want it to say %q", name, tables, err, want)
		}
	}
	for _, e := range l.List(t.Context(), engine.ListFilter{}) {
		if told := e.Trouble != ""; told != (e.Name == "still") {
			t.Errorf("%s is listed with the trouble %q", e.Name, e.Trouble)
		}
	}
	l.run(api.Spec{Name: "gone"})
	if s, err := l.Stats(t.Context(), "gone"); !fault.Is(err, fault.Missing) {
		t.Errorf("of one that is gone: %+v, %v", s, err)
	}
}

// TestAStandstillIsAnEvent has one stand still and go on; what is told twice is one event.
func TestAStandstillIsAnEvent(t *testing.T) {
	l := newLab(t)
	var stalled atomic.Bool
	l.host.Stalled = func(*enginetest.Run) bool { return stalled.Load() }
	e := l.run(api.Spec{Name: "web"})
	events := l.Subscribe(t.Context(), engine.Filter{Names: []string{"web"}})
	r := l.host.Run(e.ID)
	for _, now := range []bool{false, true, true, false} {
		stalled.Store(now)
		r.Stalls <- struct{}{}
	}
	for _, want := range []string{"stall", "unstall"} {
		if ev := <-events; ev.Action != want || want == "stall" && !strings.Contains(ev.Detail["text"], "make room in /") {
			t.Errorf("%+v, want %s", ev, want)
		}
	}
	select {
	case ev := <-events:
		t.Errorf("%+v came besides", ev)
	default:
	}
}
