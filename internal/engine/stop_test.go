package engine_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
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

// TestAStartThatHangsIsEndedByAStop, in the stop's time, and by a removal by force.
func TestAStartThatHangsIsEndedByAStop(t *testing.T) {
	short := 20 * time.Millisecond
	stop := func(l *lab) error { return l.Stop(t.Context(), "web", engine.StopOptions{Grace: &short}) }
	for name, c := range map[string]struct {
		spec api.Spec
		end  func(*lab) error
		left bool
	}{
		"stop":            {api.Spec{}, stop, true},
		"stop, with --rm": {api.Spec{AutoRemove: true}, stop, false},
		"rm -f":           {api.Spec{}, func(l *lab) error { return l.Remove(t.Context(), "web", true) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			c.spec.Name, c.spec.Template = "web", "busybox"
			l.create(c.spec)
			l.host.Slow = time.Hour
			started := make(chan error)
			go func() { started <- l.Start(t.Context(), "web", nil) }()
			l.until("it starts", func() bool { return l.get("web").State == api.Starting })
			l.must(c.end(l))
			kindIs(t, <-started, fault.Conflict, "start web", "it was stopped before its program ran")
			if _, err := l.Get(t.Context(), "web"); c.left != (err == nil) {
				t.Errorf("it is left: %v", err)
			}
			if c.left {
				l.stateIs("web", api.Stopped)
			}
		})
	}
}

// TestAStartThatHangsIsEndedByWhoCameBefore: it waited for somebody else, as did who ends it.
func TestAStartThatHangsIsEndedByWhoCameBefore(t *testing.T) {
	short := 20 * time.Millisecond
	for name, end := range map[string]func(*lab) error{
		"stop":  func(l *lab) error { return l.Stop(t.Context(), "web", engine.StopOptions{Grace: &short}) },
		"rm -f": func(l *lab) error { return l.Remove(t.Context(), "web", true) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			copies, over := make(chan struct{}), make(chan struct{})
			l.host.Exec = program(t, func(conn *os.File) { close(copies); <-over; exits(conn, 0) })
			l.create(api.Spec{Name: "web", Template: "busybox"})
			go l.CopyOut(t.Context(), "web", "/", io.Discard)
			<-copies
			l.host.Slow = time.Hour
			started, ended := make(chan error, 1), make(chan error, 1)
			go func() { started <- l.Start(t.Context(), "web", nil) }()
			time.Sleep(short) // for the start to wait in front
			go func() { ended <- end(l) }()
			time.Sleep(3 * short) // for the grace to be over
			close(over)
			select {
			case err := <-ended:
				l.must(err)
			case <-time.After(require.Patience(10 * time.Second)):
				t.Fatal("it waits for the start")
			}
			kindIs(t, <-started, fault.Conflict, "start web", "it was stopped before its program ran")
		})
	}
}

// TestWhatWaitsForOtherStartsIsStopped: the restart policy makes so many at once.
func TestWhatWaitsForOtherStartsIsStopped(t *testing.T) {
	l := newLab(t)
	const atOnce = 16
	end, hang := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(hang) })
	l.host.Program = func(*enginetest.Run) api.Exit { <-end; return api.Exit{Status: 1} }
	var names []string
	for i := range atOnce + 1 {
		names = append(names, fmt.Sprintf("web%d", i))
		l.run(api.Spec{Name: names[i], Restart: api.Restart{Policy: "always"}})
	}
	hung := make(chan string, len(names))
	l.host.Fail = func(p stratum.Plan) error { hung <- p.Name; <-hang; return fault.Busyf("it hung") }
	close(end)
	l.until("all but one hang", func() bool { return len(hung) == atOnce })
	time.Sleep(2 * environment.FirstDelay) // for the one to be due as well
	for range atOnce {
		one := <-hung
		names = slices.DeleteFunc(names, func(name string) bool { return name == one })
	}
	short := 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(10*time.Second))
	defer cancel()
	l.must(l.Stop(ctx, names[0], engine.StopOptions{Grace: &short}))
	l.stateIs(names[0], api.Stopped)
}

// TestAStopIsInTimeWhereNobodyTakesItsSignal, as where QEMU hangs that presses a power button.
func TestAStopIsInTimeWhereNobodyTakesItsSignal(t *testing.T) {
	l := newLab(t)
	l.host.Program = func(r *enginetest.Run) api.Exit {
		<-r.Killed
		return api.Exit{Status: 137, Signal: 9}
	}
	r := l.host.Run(l.run(api.Spec{Name: "web"}).ID)
	for range cap(r.Signalled) {
		r.Signalled <- syscall.SIGHUP
	}
	grace := 20 * time.Millisecond
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{Grace: &grace}))
	l.stateIs("web", api.Stopped)
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
		return hint(l.Kill(t.Context(), "again", "HUP")) == "wait until it runs: strata wait --ready again; or end the start: strata stop again"
	})
}

// TestARestartKeepsWhatItGivesUp, where --rm removes what ends otherwise.
func TestARestartKeepsWhatItGivesUp(t *testing.T) {
	l := newLab(t)
	l.create(api.Spec{Name: "web", Template: "busybox", AutoRemove: true})
	hangs, over := make(chan struct{}, 2), make(chan struct{})
	l.host.Fail = func(stratum.Plan) error {
		hangs <- struct{}{}
		<-over
		if len(hangs) == 1 {
			return context.Canceled
		}
		return nil
	}
	started, restarted := make(chan error, 1), make(chan error, 1)
	go func() { started <- l.Start(t.Context(), "web", nil) }()
	l.until("it starts", func() bool { return len(hangs) == 1 })
	short := 20 * time.Millisecond
	go func() { restarted <- l.Restart(t.Context(), "web", engine.StopOptions{Grace: &short}) }()
	time.Sleep(500 * time.Millisecond) // for the grace to be over
	close(over)
	kindIs(t, <-started, fault.Conflict, "it was stopped before its program ran")
	l.must(<-restarted)
	l.stateIs("web", api.Running)
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{Grace: &short}))
	l.until("nothing is left", l.nothingLeft)
}
