package engine_test

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/stratum"
)

// TestTheMostIsOfTheRunAndNotOfTheDaemon has a program that is busy, and rests when the next
// daemon looks at it.
func TestTheMostIsOfTheRunAndNotOfTheDaemon(t *testing.T) {
	l := newLab(t)
	l.must(os.MkdirAll(l.options().Places.Run, 0o700))
	var rests atomic.Bool
	l.host.Sample = func(*enginetest.Run) stratum.Sample {
		s := stratum.Sample{CPU: time.Now().UnixNano() / 2, Memory: 1 << 20, Processes: 2}
		if rests.Load() {
			s.CPU = 0
		}
		return s
	}
	l.run(api.Spec{Name: "web"})
	busiest := func() (most, held int64) {
		all, err := l.Resources(t.Context(), []string{"web"})
		l.must(err)
		if c := counterOf(t, all[0], "cpu"); c.Most != nil {
			return *c.Most, *c.Held
		}
		return 0, -1
	}
	l.until("it is seen to be busy", func() bool { most, _ := busiest(); return most > 450 })
	marks := filepath.Join(l.options().Places.Run, "marks.json")
	for i := range 2 {
		rests.Store(true)
		l.restart()
		l.until("the next daemon has seen it rest", func() bool { _, held := busiest(); return held == 0 })
		if most, _ := busiest(); most < 450 {
			t.Errorf("after %d restarts of the daemon the most is %d", i+1, most)
		}
		if file, err := os.Stat(marks); err != nil || file.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", file, err)
		}
	}
	l.must(l.Restart(t.Context(), "web", engine.StopOptions{}))
	l.until("its next run is looked at", func() bool { _, held := busiest(); return held == 0 })
	if most, _ := busiest(); most != 0 {
		t.Errorf("the most of a run that rests is %d", most)
	}
	l.must(l.Close(t.Context()))
	l.must(os.WriteFile(marks, []byte(`{"x`), 0o600))
	l.open()
	l.until("it is looked at without what was kept", func() bool { _, held := busiest(); return held == 0 })
}
