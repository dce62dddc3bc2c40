package engine_test

import (
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
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
