package engine_test

import (
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// TestASystemThatBootsIsToldToStopOnceItListens: its kernel has dropped the first signal.
func TestASystemThatBootsIsToldToStopOnceItListens(t *testing.T) {
	l := newLab(t)
	l.host.Program = func(r *enginetest.Run) api.Exit {
		<-r.Signalled // dropped
		close(r.Booted)
		select {
		case <-r.Signalled:
			return api.Exit{}
		case <-r.Killed:
			return api.Exit{Status: 137, Signal: 9}
		}
	}
	grace := time.Minute
	l.run(api.Spec{Name: "os", Template: "debian", StopGrace: new(unit.Duration(grace))})
	begun := time.Now()
	l.must(l.Stop(t.Context(), "os", engine.StopOptions{}))
	if got := l.get("os"); got.Exit == nil || got.Exit.Status != 0 || time.Since(begun) >= grace {
		t.Errorf("it ended after %v: %+v", time.Since(begun), got.Exit)
	}
}

// TestWhatDoesNotRunSaysWhatToDo: what has ended is started, what is about to start is waited for.
func TestWhatDoesNotRunSaysWhatToDo(t *testing.T) {
	l := newLab(t)
	hint := func(err error) string {
		if all := fault.All(err); len(all) == 1 && all[0].Kind == fault.Conflict {
			return all[0].Hint
		}
		return ""
	}
	l.create(api.Spec{Name: "off", Template: "busybox"})
	if got := hint(l.Kill(t.Context(), "off", "TERM")); got != "start it first: strata start off" {
		t.Errorf("kill: %q", got)
	}
	if got := hint(l.Resume(t.Context(), "off")); got != "start it" {
		t.Errorf("resume: %q", got)
	}
	l.host.Program = func(*enginetest.Run) api.Exit { return api.Exit{Status: 1} }
	l.run(api.Spec{Name: "again", Template: "busybox", Restart: api.Restart{Policy: "always"}})
	l.until("what waits to be started again says so", func() bool {
		return hint(l.Kill(t.Context(), "again", "HUP")) == "wait until it runs: strata wait --ready again"
	})
}
