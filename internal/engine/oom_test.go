package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/oom"
)

// watched opens an engine on a host whose kernel kills what is sent.
func (l *lab) watched() chan<- oom.Kill {
	l.t.Helper()
	o := l.options()
	kills := make(chan oom.Kill)
	o.Kills = func(ctx context.Context, tell func(oom.Kill)) error {
		for {
			select {
			case k := <-kills:
				tell(k)
			case <-ctx.Done():
				return nil
			}
		}
	}
	e, err := engine.Open(l.t.Context(), o)
	l.must(err)
	l.Engine = e
	l.t.Cleanup(func() { e.Close(context.Background()) })
	return kills
}

// TestKillsAreToldAndNoted: a process beside the main one is killed; many of them are
// told once a second; what nobody here has is nobody's.
func TestKillsAreToldAndNoted(t *testing.T) {
	l := prepared(t)
	kills := l.watched()
	env := l.run(api.Spec{Name: "web", Resources: api.Resources{Memory: 256 << 20}})
	events := l.Subscribe(t.Context(), engine.Filter{Names: []string{"web"}, Types: []string{"environment"}})
	kill := oom.Kill{ID: env.ID, Process: "python3", PID: 1 << 30, Held: 240<<20 + 4096, Short: oom.Limit}
	kills <- oom.Kill{ID: "000000000000", Process: "other", PID: 1, Short: oom.Limit}
	for range 1000 {
		kills <- kill
	}
	const want = "killed python3 (240M) at the memory limit of 256M"
	select {
	case ev := <-events:
		if ev.Action != "oom" || ev.Detail["text"] != want || ev.Detail["process"] != "python3" || ev.Detail["limit"] != "256M" {
			t.Errorf("%+v", ev)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is told")
	}
	l.stateIs("web", api.Running)
	l.until("the last kill is noted", func() bool { o := l.get("web").OOM; return o != nil && o.String() == want })
	told := 0
	for end := time.After(300 * time.Millisecond); ; {
		select {
		case ev := <-events:
			if ev.Action == "oom" {
				told++
			}
			continue
		case <-end:
		}
		break
	}
	if told > 10 { // on a busy host they may have taken some seconds
		t.Errorf("a thousand kills are told %d times more", told)
	}
	l.restart()
	if o := l.get("web").OOM; o == nil || o.String() != want {
		t.Errorf("after a restart of the daemon: %+v", o)
	}
}

// TestAKillInAGroupOfAnotherNameIsToldOfWhoIsInIt has one whose group was made before it
// was known for whom.
func TestAKillInAGroupOfAnotherNameIsToldOfWhoIsInIt(t *testing.T) {
	l := prepared(t)
	l.host.Group = func(r *enginetest.Run) string {
		if r.Plan.Name == "spare" {
			return "standby-1"
		}
		return r.Plan.ID
	}
	kills := l.watched()
	for _, name := range []string{"web", "spare", "db"} {
		l.run(api.Spec{Name: name})
	}
	kills <- oom.Kill{ID: "standby-1", Process: "qemu", PID: 1 << 30, Held: 1 << 30, Short: oom.Whole}
	l.until("the kill is noted", func() bool { return l.get("spare").OOM != nil })
	if l.get("web").OOM != nil || l.get("db").OOM != nil {
		t.Error("it is told of others as well")
	}
}

func TestAKillIsSaidInWords(t *testing.T) {
	for want, o := range map[string]api.OOM{
		"killed python3 (pid 12 inside, 240M) at the memory limit of 256M": {Process: "python3", PID: 12, Held: 240 << 20, Short: api.OOMLimit, Limit: 256 << 20},
		"killed a (240M) at a memory limit that was set inside":            {Process: "a", Held: 240 << 20, Short: api.OOMGroup},
		"killed qemu (1G): its machine was out of memory":                  {Process: "qemu", Held: 1 << 30, Short: api.OOMMachine},
		"killed a (12K): the host was out of memory":                       {Process: "a", Held: 12 << 10, Short: api.OOMHost},
	} {
		if got := o.String(); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}
