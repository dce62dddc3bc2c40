package engine_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

func (l *lab) savedDir(id string) string {
	return filepath.Join(l.dir, "state", "environments", id, "suspended")
}

func TestASuspendedEnvironmentGoesOnWithWhatItHad(t *testing.T) {
	for name, goOn := range map[string]func(*lab) error{
		"by resume":                   func(l *lab) error { return l.Resume(l.t.Context(), "web") },
		"by a start":                  func(l *lab) error { return l.Start(l.t.Context(), "web", nil) },
		"by a daemon after this one":  func(l *lab) error { l.restart(); return l.Resume(l.t.Context(), "web") },
		"after it was paused as well": func(l *lab) error { return l.Resume(l.t.Context(), "web") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			before := l.run(api.Spec{Name: "web", Restart: api.Restart{Policy: "always"}, Ports: []api.Port{{HostPort: 8080, Port: 80}}})
			if name == "after it was paused as well" {
				l.must(l.Pause(t.Context(), "web"))
			}
			l.must(l.Suspend(t.Context(), "web"))
			l.stateIs("web", api.Suspended)
			if len(l.host.Runs()) != 0 {
				t.Error("its run is still there")
			}
			if got := l.get("web"); got.Exit != nil {
				t.Errorf("its program has ended, with %+v", got.Exit)
			}
			l.must(goOn(l))
			got := l.get("web")
			if got.State != api.Running || got.Network != before.Network || got.IDBase != before.IDBase {
				t.Errorf("before %+v, after %+v", before, got)
			}
			if saved := l.host.Run(got.ID).Plan.Saved; saved != l.savedDir(got.ID) {
				t.Errorf("it went on from %q", saved)
			}
			l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
			l.must(l.Start(t.Context(), "web", nil))
			if saved := l.host.Run(got.ID).Plan.Saved; saved != "" {
				t.Errorf("and again from %q", saved)
			}
		})
	}
}

func TestWhatIsSuspendedClaimsNothing(t *testing.T) {
	l := small(t)
	l.run(api.Spec{Name: "web", Resources: api.Resources{MemoryGuarantee: unit.GiB}})
	l.must(l.Suspend(t.Context(), "web"))
	if held := l.Capacity(t.Context()).Held; len(held) != 0 {
		t.Errorf("it holds %+v", held)
	}
	l.run(api.Spec{Name: "other", Resources: api.Resources{MemoryGuarantee: 5 * unit.GiB / 2}})
	kindIs(t, l.Resume(t.Context(), "web"), fault.Full, "other 2.5G")
	waited := make(chan error, 1)
	go func() { waited <- l.Queue(t.Context(), "web", api.Next{}, time.Minute) }()
	l.until("it waits", func() bool { return len(l.Capacity(t.Context()).Waiting) == 1 })
	l.must(l.Kill(t.Context(), "other", "KILL"))
	l.must(<-waited)
	l.must(l.Resume(t.Context(), "web"))
	if held := l.Capacity(t.Context()).Held; len(held) != 1 {
		t.Errorf("what goes on holds %+v", held)
	}
	l.must(l.Remove(t.Context(), "web", true))
}

func TestWhatIsSuspendedIsKeptUntilItIsUsed(t *testing.T) {
	l := newLab(t)
	id := l.run(api.Spec{Name: "web"}).ID
	l.must(l.Suspend(t.Context(), "web"))
	l.host.Fail = func(stratum.Plan) error { return fault.Conflictf("another QEMU") }
	kindIs(t, l.Resume(t.Context(), "web"), fault.Conflict, "another QEMU")
	l.stateIs("web", api.Suspended)
	if got := l.get("web"); got.LastFailure == "" {
		t.Error("the failure is not told")
	}
	l.host.Fail = nil
	grown := unit.Size(20 * unit.GiB)
	zero := time.Duration(0)
	for what, err := range map[string]error{
		"suspend again": l.Suspend(t.Context(), "web"),
		"stop":          l.Stop(t.Context(), "web", engine.StopOptions{Grace: &zero}),
		"restart":       l.Restart(t.Context(), "web", engine.StopOptions{}),
		"pause":         l.Pause(t.Context(), "web"),
		"copy":          l.CopyOut(t.Context(), "web", "/etc", io.Discard),
		"grow its disk": func() error { _, err := l.Update(t.Context(), "web", api.Update{Disk: &grown}); return err }(),
	} {
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("%s: %v; want a conflict", what, err)
		}
	}
	l.stateIs("web", api.Suspended)
	l.must(l.Kill(t.Context(), "web", ""))
	l.stateIs("web", api.Stopped)
	if _, err := os.Stat(l.savedDir(id)); err == nil {
		t.Error("it is still there after a kill")
	}
	l.must(l.Start(t.Context(), "web", nil))
	if saved := l.host.Run(id).Plan.Saved; saved != "" {
		t.Errorf("a start goes on from %q after a kill", saved)
	}
	l.must(l.Suspend(t.Context(), "web"))
	l.must(l.Remove(t.Context(), "web", false))
	l.until("nothing is left", l.nothingLeft)
}

func TestWhatCannotBeSuspendedGoesOn(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "fleeting", AutoRemove: true})
	kindIs(t, l.Suspend(t.Context(), "fleeting"), fault.Conflict, "--rm")
	l.run(api.Spec{Name: "full"})
	l.host.Suspend = func(*enginetest.Run) error { return fault.Unablef("no room") }
	kindIs(t, l.Suspend(t.Context(), "full"), fault.Unable, "no room")
	l.create(api.Spec{Name: "still"})
	kindIs(t, l.Suspend(t.Context(), "still"), fault.Conflict, "created")
	kindIs(t, l.Reset(t.Context(), "still"), fault.Conflict, "not running")
	kindIs(t, l.Interrupt(t.Context(), "still"), fault.Conflict, "not running")
	l.stateIs("fleeting", api.Running)
	l.stateIs("full", api.Running)
	plain := prepared(t)
	plain.driver = enginetest.Plain(plain.host)
	plain.open()
	plain.run(api.Spec{Name: "web"})
	for what, do := range map[string]func(context.Context, string) error{"suspended": plain.Suspend, "reset button": plain.Reset, "cannot be masked": plain.Interrupt} {
		kindIs(t, do(t.Context(), "web"), fault.Unable, "zone", what)
	}
	plain.stateIs("web", api.Running)
}

// TestAKillBesideTheEndOfASuspensionIsAKill: the system is written down, and its run has not ended.
func TestAKillBesideTheEndOfASuspensionIsAKill(t *testing.T) {
	l := newLab(t)
	written, end := make(chan struct{}), make(chan struct{})
	l.host.Program = func(r *enginetest.Run) api.Exit {
		<-r.Killed
		close(written)
		<-end
		return api.Exit{Status: 137, Signal: 9}
	}
	id := l.run(api.Spec{Name: "web"}).ID
	events := l.Subscribe(t.Context(), engine.Filter{Types: []string{"environment"}})
	suspended, killed := make(chan error), make(chan error)
	go func() { suspended <- l.Suspend(t.Context(), "web") }()
	<-written
	go func() { killed <- l.Kill(t.Context(), "web", "") }()
	for ev := range events {
		if ev.Action == "kill" {
			break
		}
	}
	close(end)
	l.must(<-suspended)
	l.must(<-killed)
	l.stateIs("web", api.Stopped)
	if _, err := os.Stat(l.savedDir(id)); err == nil {
		t.Error("what was suspended is still there")
	}
}

func TestAResetIsAnotherRun(t *testing.T) {
	l := newLab(t)
	id := l.run(api.Spec{Name: "web", AutoRemove: true}).ID
	first := l.host.Run(id)
	l.must(l.Interrupt(t.Context(), "web"))
	if n := first.Interrupts(); n != 1 {
		t.Errorf("interrupted %d times", n)
	}
	l.must(l.Reset(t.Context(), "web"))
	if again := l.host.Run(id); again == first || l.get("web").State != api.Running {
		t.Errorf("it is %s, and in another run: %v", l.get("web").State, again != first)
	}
	l.must(l.Pause(t.Context(), "web"))
	kindIs(t, l.Reset(t.Context(), "web"), fault.Conflict, "paused")
}

// TestADaemonThatIsKilledWhileItSuspends goes through what it can leave.
func TestADaemonThatIsKilledWhileItSuspends(t *testing.T) {
	for name, c := range map[string]struct {
		phase       environment.Phase
		live, saved bool
		rebooted    bool
		want        api.State
		keeps       bool
	}{
		"before it was written down as a whole": {phase: environment.PhaseRunning, live: true, saved: true, want: api.Running},
		"before its run ended":                  {phase: environment.PhaseSuspended, live: true, saved: true, want: api.Suspended, keeps: true},
		"when all was done":                     {phase: environment.PhaseSuspended, saved: true, want: api.Suspended, keeps: true},
		"and the host rebooted":                 {phase: environment.PhaseSuspended, saved: true, rebooted: true, want: api.Suspended, keeps: true},
		"while it went on":                      {phase: environment.PhaseStarting, saved: true, want: api.Suspended, keeps: true},
		"when it had gone on":                   {phase: environment.PhaseStarting, live: true, want: api.Running},
		"when it had gone on, and it is lost":   {phase: environment.PhaseStarting, want: api.Stopped},
		"when it was given up":                  {phase: environment.PhaseStopped, saved: true, want: api.Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			id := l.create(api.Spec{Name: "web"}).ID
			if c.live {
				l.must(l.Start(t.Context(), "web", nil))
			}
			l.must(l.Close(t.Context()))
			l.put(id, func(r *environment.Record) { r.Phase = c.phase })
			if c.saved {
				l.must(os.Mkdir(l.savedDir(id), 0o700))
			}
			if c.rebooted {
				l.must(os.WriteFile(filepath.Join(l.dir, "state", "boot"), []byte("another\n"), 0o600))
			}
			l.open()
			l.until("it is "+string(c.want), func() bool { return l.get("web").State == c.want })
			if _, err := os.Stat(l.savedDir(id)); (err == nil) != c.keeps {
				t.Errorf("what was suspended: %v; want it kept: %v", err, c.keeps)
			}
			if runs := len(l.host.Runs()); (runs == 1) != (c.want == api.Running) {
				t.Errorf("%d runs on the host, and it is %s", runs, c.want)
			}
		})
	}
}
