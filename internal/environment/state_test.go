package environment_test

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
)

// TestEveryMove walks every pair of state and event; the table below is written
// from docs and the package's comment, not from the code's.
func TestEveryMove(t *testing.T) {
	legal := map[string]map[environment.Event]environment.State{
		"created": {environment.Start: environment.Starting, environment.Remove: environment.Removing},
		"starting": {environment.Started: environment.Running, environment.Failed: environment.Stopped,
			environment.Again: environment.Waiting, environment.Back: environment.Suspended},
		"running": {environment.Suspend: environment.Suspended, environment.Pause: environment.Paused, environment.Stop: environment.Stopping,
			environment.Ended: environment.Stopped, environment.Again: environment.Waiting},
		"suspended": {environment.Start: environment.Starting, environment.Stop: environment.Stopped, environment.Remove: environment.Removing},
		"paused": {environment.Suspend: environment.Suspended, environment.Resume: environment.Running, environment.Stop: environment.Stopping,
			environment.Ended: environment.Stopped, environment.Again: environment.Waiting},
		"stopping":               {environment.Ended: environment.Stopped},
		"waiting to start again": {environment.Start: environment.Starting, environment.Stop: environment.Stopped},
		"stopped": {environment.Start: environment.Starting, environment.Remove: environment.Removing,
			environment.Again: environment.Waiting},
		"being removed": {environment.Vanish: environment.Gone, environment.Keep: environment.Stopped},
		"removed":       {},
	}
	seen := 0
	for s := environment.Made; s <= environment.Gone; s++ {
		for e := environment.Start; e <= environment.Back; e++ {
			to, err := s.Next(e)
			want, ok := legal[s.String()][e]
			if ok {
				seen++
				if err != nil || to != want {
					t.Errorf("%s, event %d: %s, %v; want %s", s, e, to, err, want)
				}
				continue
			}
			if !fault.Is(err, fault.Conflict) || to != s {
				t.Errorf("%s, event %d: went to %s, %v; want a conflict", s, e, to, err)
				continue
			}
			if !strings.Contains(err.Error(), `"`+s.String()+`"`) || strings.Count(err.Error(), `"`) != 4 {
				t.Errorf("%q does not name both states", err)
			}
		}
	}
	if seen != 27 {
		t.Errorf("%d legal moves; want 27", seen)
	}
}

func TestPublicStates(t *testing.T) {
	for s, want := range map[environment.State]api.State{
		environment.Made: api.Created, environment.Starting: api.Starting, environment.Running: api.Running,
		environment.Paused: api.Paused, environment.Stopping: api.Stopping, environment.Waiting: api.Starting,
		environment.Stopped: api.Stopped, environment.Suspended: api.Suspended, environment.Removing: api.Removing, environment.Gone: api.Removing,
	} {
		if s.Public() != want {
			t.Errorf("%s is shown as %s; want %s", s, s.Public(), want)
		}
	}
}
