package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

func kindIs(t *testing.T, err error, want fault.Kind, says ...string) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Errorf("%v; want kind %s", err, want)
		return
	}
	for _, words := range says {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
}

// nothingLeft tells whether all that was made is gone.
func (l *lab) nothingLeft() bool {
	trash, _ := os.ReadDir(filepath.Join(l.dir, "state", "trash"))
	folders, _ := os.ReadDir(filepath.Join(l.dir, "state", "environments"))
	claims, _ := os.ReadDir(filepath.Join(l.dir, "claims"))
	return len(l.host.Runs())+len(trash)+len(folders)+len(claims)+len(l.network.Names()) == 0
}

func TestCreateRefuses(t *testing.T) {
	l := newLab(t)
	l.create(api.Spec{Name: "taken"})
	_, err := l.CreateNetwork(t.Context(), api.Network{Name: "apart", Isolated: true})
	l.must(err)
	port := []api.Port{{HostPort: 8080, Port: 80}}
	for name, c := range map[string]struct {
		spec api.Spec
		kind fault.Kind
		says string
	}{
		"a name that is taken":                {api.Spec{Name: "taken", Template: "busybox"}, fault.Conflict, "taken"},
		"a template that is not there":        {api.Spec{Template: "no-such"}, fault.Missing, "no-such"},
		"a network that is not there":         {api.Spec{Template: "busybox", Network: "no-such"}, fault.Missing, "no-such"},
		"a need that nothing serves":          {api.Spec{Template: "busybox", Needs: []string{"own-kernel"}}, fault.Unable, "own-kernel"},
		"a volume that is not there":          {api.Spec{Template: "busybox", Volumes: []api.Volume{{Source: "/no/such", Target: "/v"}}}, fault.Missing, "/no/such"},
		"a malformed spec":                    {api.Spec{Template: "busybox", Name: "A", Env: []string{"x"}}, fault.Invalid, "DNS label"},
		"a program that neither side names":   {api.Spec{Template: "busybox", Entrypoint: []string{""}}, fault.Invalid, "command"},
		"a port by IPv6 of what has none":     {api.Spec{Template: "busybox", Ports: []api.Port{{HostIP: "::", HostPort: 8080, Port: 80}}}, fault.Invalid, "no IPv6"},
		"a port of an isolated network":       {api.Spec{Template: "busybox", Network: "apart", Ports: port}, fault.Invalid, "isolated"},
		"a disk that is smaller than allowed": {api.Spec{Template: "busybox", Resources: api.Resources{Disk: 1}}, fault.Invalid, "too small"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.Create(t.Context(), c.spec)
			kindIs(t, err, c.kind, c.says)
		})
	}
	l.pool.Fail = fault.Busyf("the disk is full")
	_, err = l.Create(t.Context(), api.Spec{Template: "busybox", Name: "full"})
	kindIs(t, err, fault.Busy, "full")
	l.pool.Fail = nil
	l.must(l.Remove(t.Context(), "taken", false))
	l.until("nothing is left", l.nothingLeft)
	l.create(api.Spec{Name: "full"})
}

func TestAWordForNothingIsNotKept(t *testing.T) {
	l := newLab(t)
	env := l.create(api.Spec{Resources: api.Resources{CPUSet: "all", Reclaim: "off"}})
	if r := l.get(env.ID).Spec.Resources; r != (api.Resources{}) {
		t.Errorf("kept: %+v", r)
	}
}

func TestBusyboxIsMadeWhenMissing(t *testing.T) {
	l := newLab(t)
	delete(l.templates.All, "busybox")
	l.create(api.Spec{})
}

func TestStartFails(t *testing.T) {
	l := newLab(t)
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"not found":      {fault.Missingf("sh: not found").At("command"), 127},
		"not executable": {fault.Unablef("sh: permission denied").At("command"), 126},
		"anything else":  {errors.New("the host is on fire"), 125},
	} {
		t.Run(name, func(t *testing.T) {
			env := l.create(api.Spec{Restart: api.Restart{Policy: "always"}})
			l.host.Fail = func(stratum.Plan) error { return c.err }
			defer func() { l.host.Fail = nil }()
			err := l.Start(t.Context(), env.ID, nil)
			if fault.KindOf(err) != fault.KindOf(c.err) {
				t.Errorf("start: %v", err)
			}
			got := l.get(env.ID)
			if got.State != api.Stopped || got.Exit.Status != c.status || got.LastFailure == "" || got.Restarts != 0 {
				t.Errorf("%+v, exit %+v", got, got.Exit)
			}
			l.host.Fail = nil
			l.must(l.Start(t.Context(), env.ID, nil))
			if got := l.get(env.ID); got.LastFailure != "" {
				t.Errorf("after a good start: %q", got.LastFailure)
			}
			l.must(l.Remove(t.Context(), env.ID, true))
		})
	}
	l.host.Fail = func(stratum.Plan) error { return fault.Missingf("x: not found").At("command") }
	env := l.create(api.Spec{AutoRemove: true})
	if l.Start(t.Context(), env.ID, nil) == nil {
		t.Error("the start worked")
	}
	l.until("nothing is left", l.nothingLeft)
}

func TestStopAndKill(t *testing.T) {
	l := newLab(t)
	short := 20 * time.Millisecond
	deaf := func(r *enginetest.Run) api.Exit {
		for {
			select {
			case <-r.Signalled:
			case <-r.Killed:
				return api.Exit{Status: 137, Signal: 9}
			}
		}
	}
	env := l.run(api.Spec{Name: "web", Restart: api.Restart{Policy: "always"}})
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.stateIs("web", api.Stopped)
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{})) // stopped already
	kindIs(t, l.Kill(t.Context(), "web", ""), fault.Conflict, "stopped")
	l.must(l.Start(t.Context(), "web", nil))
	kindIs(t, l.Start(t.Context(), "web", nil), fault.Conflict, "running", "starting")
	kindIs(t, l.Remove(t.Context(), "web", false), fault.Conflict, "running", "being removed")
	kindIs(t, l.Kill(t.Context(), "web", "NO"), fault.Invalid)
	l.must(l.Kill(t.Context(), "web", ""))
	if got := l.get("web"); got.State != api.Stopped || got.Exit.Status != 137 || got.Restarts != 0 {
		t.Errorf("killed: %+v, %+v", got, got.Exit)
	}

	l.host.Program = deaf
	l.must(l.Start(t.Context(), "web", nil))
	began := time.Now()
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{Grace: &short}))
	if got := l.get("web"); got.Exit.Status != 137 || time.Since(began) < short {
		t.Errorf("after the grace: %+v in %v", got.Exit, time.Since(began))
	}

	// A stop with a long grace does not keep a second one with a short grace out.
	l.must(l.Start(t.Context(), "web", nil))
	first := make(chan error, 1)
	go func() { first <- l.Stop(context.Background(), "web", engine.StopOptions{}) }()
	l.until("the first stop has begun", func() bool { return l.get("web").State == api.Stopping })
	kindIs(t, l.Start(t.Context(), "web", nil), fault.Conflict, "stopping")
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{Grace: &short}))
	l.must(<-first)

	// What a request began goes on without it.
	l.must(l.Start(t.Context(), "web", nil))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		l.until("the stop has begun", func() bool { return l.get("web").State == api.Stopping })
		cancel()
	}()
	grace := 300 * time.Millisecond
	if err := l.Stop(ctx, "web", engine.StopOptions{Grace: &grace}); !errors.Is(err, context.Canceled) {
		t.Errorf("a stop whose client left: %v", err)
	}
	l.until("it has stopped all the same", func() bool { return l.get("web").State == api.Stopped })
	if l.get("web").IDBase != env.IDBase {
		t.Error("its ids changed")
	}
}

func TestRestartPolicy(t *testing.T) {
	l := newLab(t)
	l.host.Program = func(*enginetest.Run) api.Exit { return api.Exit{Status: 9} }
	l.run(api.Spec{Name: "thrice", Restart: api.Restart{Policy: "on-failure", Max: 2}})
	l.until("it gave up", func() bool {
		env := l.get("thrice")
		return env.State == api.Stopped && env.Restarts == 2 && env.Exit.Status == 9
	})
	if n := l.host.Starts(); n != 3 {
		t.Errorf("%d starts; want 3", n)
	}
	l.run(api.Spec{Name: "once"})
	l.until("it stopped", func() bool { return l.get("once").State == api.Stopped })

	l.run(api.Spec{Name: "always", Restart: api.Restart{Policy: "always"}})
	l.until("it was started again", func() bool { return l.get("always").Restarts >= 2 })
	// The third wait is 400 ms long: stop comes into it.
	l.until("it waits", func() bool { return l.get("always").State == api.Starting })
	l.must(l.Stop(t.Context(), "always", engine.StopOptions{}))
	starts := l.host.Starts()
	l.stateIs("always", api.Stopped)
	time.Sleep(500 * time.Millisecond) // that nothing happens takes a while to see
	if l.host.Starts() != starts {
		t.Error("it was started after a stop")
	}
	// A start of the user ends the wait, and counts anew.
	l.must(l.Start(t.Context(), "always", nil))
	l.until("it waits", func() bool { return l.get("always").State == api.Starting })
	l.host.Program = nil
	l.must(l.Start(t.Context(), "always", nil))
	if env := l.get("always"); env.State != api.Running || env.Restarts != 0 {
		t.Errorf("%s, %d restarts", env.State, env.Restarts)
	}
	// A start by the policy that fails is tried again.
	l.host.Fail = func(stratum.Plan) error { return fault.Busyf("not now") }
	l.host.Run(l.get("always").ID).Signalled <- syscall.SIGTERM
	l.until("it failed", func() bool { return l.get("always").LastFailure != "" })
	l.host.Fail = nil
	l.until("it runs", func() bool { return l.get("always").State == api.Running })
	// A change of the policy ends the wait.
	l.host.Program = func(*enginetest.Run) api.Exit { return api.Exit{} }
	l.host.Run(l.get("always").ID).Signalled <- syscall.SIGTERM
	l.until("it waits", func() bool { return l.get("always").State == api.Starting })
	if _, err := l.Update(t.Context(), "always", api.Update{Restart: &api.Restart{}}); err != nil {
		t.Fatal(err)
	}
	l.until("it stopped", func() bool { return l.get("always").State == api.Stopped })
}

func TestRestart(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "web", AutoRemove: true})
	l.must(l.Restart(t.Context(), "web", engine.StopOptions{}))
	if now := l.get("web"); now.State != api.Running || l.host.Starts() != 2 {
		t.Errorf("%s, %d starts", now.State, l.host.Starts())
	}
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.until("it is removed", l.nothingLeft)
}

func TestAWaitForTheEndGoesOnOverARestart(t *testing.T) {
	l := newLab(t)
	id := l.run(api.Spec{Name: "web"}).ID
	ended := make(chan error, 1)
	go func() {
		_, err := l.Wait(t.Context(), "web", "stopped")
		ended <- err
	}()
	held, release := make(chan struct{}), make(chan struct{})
	l.host.Fail = func(stratum.Plan) error { close(held); <-release; return nil }
	restarted := make(chan error, 1)
	go func() { restarted <- l.Restart(t.Context(), id, engine.StopOptions{}) }()
	<-held
	close(release)
	l.must(<-restarted)
	select {
	case err := <-ended:
		t.Errorf("it is over: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.must(<-ended)
}

func TestPause(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "web"})
	kindIs(t, l.Resume(t.Context(), "web"), fault.Conflict, "running")
	l.must(l.Pause(t.Context(), "web"))
	l.stateIs("web", api.Paused)
	kindIs(t, l.Pause(t.Context(), "web"), fault.Conflict, "paused")
	kindIs(t, l.Exec(t.Context(), "web", api.Process{Command: []string{"true"}}, nil), fault.Conflict, "paused")
	l.must(l.Resume(t.Context(), "web"))
	l.stateIs("web", api.Running)
	l.must(l.Pause(t.Context(), "web"))
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	if got := l.get("web"); got.State != api.Stopped || got.Exit.Status != 0 {
		t.Errorf("stopped while paused: %+v", got.Exit)
	}
	l.must(l.Start(t.Context(), "web", nil))
	l.must(l.Pause(t.Context(), "web"))
	l.must(l.Remove(t.Context(), "web", true))

	l = prepared(t)
	l.driver = enginetest.Plain(l.host)
	l.open()
	l.run(api.Spec{Name: "web"})
	kindIs(t, l.Pause(t.Context(), "web"), fault.Unable, "zone cannot pause")
	memory := 64 * unit.Size(unit.MiB)
	_, err := l.Update(t.Context(), "web", api.Update{Memory: &memory})
	kindIs(t, err, fault.Unable, "limits")
}

func TestAutoRemove(t *testing.T) {
	l := newLab(t)
	l.host.Program = func(r *enginetest.Run) api.Exit { <-r.Signalled; return api.Exit{Status: 3} }
	for range 20 { // the name is free at once, whatever is still being cleaned
		env := l.run(api.Spec{Name: "once", AutoRemove: true})
		exit := make(chan api.Exit, 1)
		go func() {
			got, err := l.Wait(context.Background(), "once", "removed")
			if err != nil {
				t.Error(err)
			}
			exit <- got
		}()
		time.Sleep(10 * time.Millisecond) // until it waits
		l.host.Run(env.ID).Signalled <- syscall.SIGTERM
		if got := <-exit; got.Status != 3 {
			t.Errorf("exit %+v", got)
		}
		_, err := l.Get(t.Context(), "once")
		kindIs(t, err, fault.Missing, "once")
	}
	l.until("nothing is left", l.nothingLeft)
}

// A disk that goes with its environment is not written out first.
func TestWhatIsUnwantedIsDropped(t *testing.T) {
	l := newLab(t)
	var drops, whole atomic.Int32
	l.host.Program = func(r *enginetest.Run) api.Exit {
		<-r.Signalled
		close(r.Told)
		select {
		case <-r.Dropped:
			drops.Add(1)
		case <-time.After(200 * time.Millisecond):
			whole.Add(1)
		}
		return api.Exit{Status: 3}
	}
	end := func(env api.Environment) {
		t.Helper()
		r := l.host.Run(env.ID)
		r.Signalled <- syscall.SIGTERM
		<-r.Ended
	}
	env := l.run(api.Spec{Name: "once", AutoRemove: true})
	l.must(l.Restart(t.Context(), "once", engine.StopOptions{}))
	if drops.Load() != 0 || whole.Load() != 1 {
		t.Errorf("one that starts again: %d were dropped, %d not", drops.Load(), whole.Load())
	}
	end(env)
	if drops.Load() != 1 || whole.Load() != 1 {
		t.Errorf("one that goes: %d were dropped, %d not", drops.Load(), whole.Load())
	}
	end(l.run(api.Spec{Name: "kept"}))
	if drops.Load() != 1 || whole.Load() != 2 {
		t.Errorf("one that stays: %d were dropped, %d not", drops.Load(), whole.Load())
	}
	l.until("the one that goes has gone", func() bool { _, err := l.Get(t.Context(), "once"); return fault.Is(err, fault.Missing) })
}

func TestWait(t *testing.T) {
	l := newLab(t)
	l.create(api.Spec{Name: "web"})
	if exit, err := l.Wait(t.Context(), "web", ""); err != nil || exit.Status != 0 {
		t.Errorf("never started: %+v, %v", exit, err)
	}
	_, err := l.Wait(t.Context(), "web", "whenever")
	kindIs(t, err, fault.Invalid, "whenever")
	l.host.Program = func(r *enginetest.Run) api.Exit { <-r.Signalled; return api.Exit{Status: 4} }
	next := make(chan api.Exit, 1)
	go func() {
		exit, _ := l.Wait(context.Background(), "web", "next-exit")
		next <- exit
	}()
	time.Sleep(5 * time.Millisecond)
	l.must(l.Start(t.Context(), "web", nil))
	select {
	case exit := <-next:
		t.Errorf("it ended: %+v", exit)
	case <-time.After(20 * time.Millisecond):
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = l.Wait(short, "web", "stopped")
	kindIs(t, err, fault.Busy, "web")
	l.host.Run(l.get("web").ID).Signalled <- syscall.SIGTERM
	if exit := <-next; exit.Status != 4 {
		t.Errorf("next exit: %+v", exit)
	}
}

func TestPortsAreForOne(t *testing.T) {
	l := newLab(t)
	web := api.Spec{Name: "one", Ports: []api.Port{{HostPort: 8080, Port: 80}}}
	l.run(web)
	web.Name = "two"
	l.create(web)
	kindIs(t, l.Start(t.Context(), "two", nil), fault.Conflict, "8080/tcp", "one")
	l.must(l.Stop(t.Context(), "one", engine.StopOptions{}))
	l.must(l.Start(t.Context(), "two", nil))
	l.restart()
	kindIs(t, l.Start(t.Context(), "one", nil), fault.Conflict, "8080/tcp", "two")
	l.must(l.Remove(t.Context(), "two", true))
	l.network.Taken = 8080
	kindIs(t, l.Start(t.Context(), "one", nil), fault.Conflict, "8080")
	l.network.Taken = 0
	l.must(l.Start(t.Context(), "one", nil))
}

func TestRename(t *testing.T) {
	l := newLab(t)
	env := l.run(api.Spec{Name: "one"})
	l.create(api.Spec{Name: "two"})
	kindIs(t, l.Rename(t.Context(), "one", "two"), fault.Conflict, "two")
	kindIs(t, l.Rename(t.Context(), "one", "No"), fault.Invalid, "DNS label")
	l.must(l.Rename(t.Context(), "one", "three"))
	if got := l.get("three"); got.ID != env.ID {
		t.Errorf("three is %s", got.ID)
	}
	_, err := l.Get(t.Context(), "one")
	kindIs(t, err, fault.Missing)
	if names := fmt.Sprint(l.network.Names()); names != "[three two]" {
		t.Errorf("the network knows %s", names)
	}
	l.create(api.Spec{Name: "one"})
	l.restart()
	if got := l.get("three"); got.ID != env.ID || got.State != api.Running {
		t.Errorf("after a new daemon: %+v", got)
	}
}

func TestFind(t *testing.T) {
	l := newLab(t)
	env := l.create(api.Spec{Name: "web"})
	for _, ref := range []string{"web", env.ID, env.ID[:4]} {
		if got := l.get(ref); got.ID != env.ID {
			t.Errorf("%s is %s", ref, got.ID)
		}
	}
	for _, ref := range []string{"", "we", env.ID[:3], "*", strings.Repeat("x", 10000)} {
		_, err := l.Get(t.Context(), ref)
		kindIs(t, err, fault.Missing)
	}
}

func TestList(t *testing.T) {
	l := newLab(t)
	l.create(api.Spec{Name: "made", Labels: map[string]string{"tier": "a"}})
	l.run(api.Spec{Name: "up-1", Labels: map[string]string{"tier": "b"}})
	l.run(api.Spec{Name: "up-2"})
	l.must(l.Pause(t.Context(), "up-2"))
	for want, f := range map[string]engine.ListFilter{
		"[up-1 up-2]":      {},
		"[made up-1 up-2]": {All: true},
		"[up-2]":           {States: []api.State{api.Paused}},
		"[made]":           {States: []api.State{api.Created}},
		"[up-1]":           {Labels: []engine.LabelFilter{{Name: "tier"}}},
		"[]":               {Labels: []engine.LabelFilter{{Name: "tier", Value: "c"}}, All: true},
		"[ ]":              {Labels: []engine.LabelFilter{{Name: "tier", Value: "a"}, {Name: "tier", Value: "b"}}, All: true},
		"[up-1  up-2]":     {Names: []string{"up"}},
	} {
		var names []string
		for _, env := range l.List(t.Context(), f) {
			names = append(names, env.Name)
		}
		if got := fmt.Sprint(names); got != strings.NewReplacer("  ", " ", "[ ]", "[]").Replace(want) {
			t.Errorf("%+v lists %s; want %s", f, got, want)
		}
	}
}

func TestUpdate(t *testing.T) {
	l := newLab(t)
	env := l.run(api.Spec{Name: "web"})
	memory, big, small := unit.Size(64*unit.MiB), unit.Size(20*unit.GiB), unit.Size(1)
	got, err := l.Update(t.Context(), "web", api.Update{Memory: &memory, Labels: map[string]string{"a": "b"}})
	if err != nil || got.Spec.Resources.Memory != memory || got.Spec.Labels["a"] != "b" {
		t.Errorf("%+v, %v", got.Spec, err)
	}
	if limits := l.host.Run(env.ID).Limits(); limits.Memory != memory {
		t.Errorf("limits: %+v", limits)
	}
	_, err = l.Update(t.Context(), "web", api.Update{Memory: &small})
	kindIs(t, err, fault.Invalid, "memory")
	own := l.host.Run(env.ID).Plan.Disk
	for _, size := range []unit.Size{big, 2 * big} { // while it runs, and stopped
		if _, err = l.Update(t.Context(), "web", api.Update{Disk: &size}); err != nil {
			t.Error(err)
		}
		if file, err := os.Stat(own); err != nil || unit.Size(file.Size()) != size {
			t.Errorf("the disk: %v, %v", file, err)
		}
		l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	}
	none := unit.Size(0)
	_, err = l.Update(t.Context(), "web", api.Update{Disk: &none})
	kindIs(t, err, fault.Invalid, "size")
	big *= 2
	l.restart()
	if got := l.get("web").Spec; got.Resources.Disk != big || got.Resources.Memory != memory {
		t.Errorf("after a new daemon: %+v", got.Resources)
	}
}

// TestADiskThatHasGrownIsNoted, though a limit that was asked for with it is refused.
func TestADiskThatHasGrownIsNoted(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "web"})
	l.host.Limit = func(*enginetest.Run) error { return fault.Busyf("it has no room") }
	big, memory := unit.Size(20*unit.GiB), unit.Size(64*unit.MiB)
	_, err := l.Update(t.Context(), "web", api.Update{Disk: &big, Memory: &memory})
	kindIs(t, err, fault.Busy, "no room")
	for range 2 {
		if got := l.get("web").Spec.Resources; got.Disk != big || got.Memory != 0 {
			t.Errorf("%+v", got)
		}
		l.restart()
	}
}

// TestADiskThatIsForgottenDoesNotGrow: what runs has a copy of it.
func TestADiskThatIsForgottenDoesNotGrow(t *testing.T) {
	l := newLab(t)
	own := l.host.Run(l.run(api.Spec{Name: "web", UndoDisk: true}).ID).Plan.Disk
	before, err := os.Stat(own)
	l.must(err)
	big := unit.Size(20 * unit.GiB)
	_, err = l.Update(t.Context(), "web", api.Update{Disk: &big})
	kindIs(t, err, fault.Conflict, "copy")
	if after, err := os.Stat(own); err != nil || after.Size() != before.Size() {
		t.Errorf("the copy has %v, %v", after, err)
	}
}

// TestAnUpdateThatCannotBeWrittenDownChangesNothing has a folder where the record is.
func TestAnUpdateThatCannotBeWrittenDownChangesNothing(t *testing.T) {
	l := newLab(t)
	before, memory := unit.Size(512*unit.MiB), unit.Size(64*unit.MiB)
	env := l.run(api.Spec{Name: "web", Resources: api.Resources{Memory: before}})
	record := filepath.Join(l.dir, "state", "environments", env.ID, "record.json")
	l.until("the start is written down", func() bool {
		text, err := os.ReadFile(record)
		return err == nil && strings.Contains(string(text), `"phase":"running"`)
	})
	l.must(os.Remove(record))
	l.must(os.Mkdir(record, 0o700))
	if _, err := l.Update(t.Context(), "web", api.Update{Memory: &memory}); err == nil {
		t.Error("it is said to be done")
	}
	if got, limits := l.get("web").Spec.Resources.Memory, l.host.Run(env.ID).Limits(); got != before || limits.Memory != before {
		t.Errorf("it has %s by its record, and %s by what runs", got, limits.Memory)
	}
	l.must(os.Remove(record))
	l.must(l.Remove(t.Context(), "web", true))
}

// TestParallelStarts holds that starts do not wait for one another.
func TestParallelStarts(t *testing.T) {
	l := newLab(t)
	const many = 100
	var inside, most atomic.Int64
	all := make(chan struct{})
	l.host.Fail = func(stratum.Plan) error {
		if n := inside.Add(1); n == many {
			close(all)
		} else {
			most.Store(max(most.Load(), n))
		}
		select {
		case <-all: // only when all of them are inside a start does any go on
			return nil
		case <-time.After(20 * time.Second):
			return errors.New("the starts wait for one another")
		}
	}
	var group sync.WaitGroup
	for i := range many {
		group.Go(func() {
			env, err := l.Create(t.Context(), api.Spec{Template: "busybox", Name: fmt.Sprint("e-", i)})
			if err == nil {
				err = l.Start(t.Context(), env.ID, nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	bases, addresses := map[uint32]bool{}, map[string]bool{}
	for _, env := range l.List(t.Context(), engine.ListFilter{}) {
		bases[env.IDBase], addresses[env.Network.IPv4] = true, true
	}
	if len(bases) != many || len(addresses) != many {
		t.Errorf("%d id ranges, %d addresses for %d environments", len(bases), len(addresses), many)
	}
	l.must(l.DestroyAll(t.Context()))
	if !l.nothingLeft() {
		t.Error("something is left")
	}
}

// TestEverythingAtOnce is for the race detector: every operation on the same few
// environments. What is left must be whole.
func TestEverythingAtOnce(t *testing.T) {
	l := newLab(t)
	grace := time.Millisecond
	ctx := t.Context()
	ops := []func(name string){
		func(name string) { l.Create(ctx, api.Spec{Template: "busybox", Name: name}) },
		func(name string) { l.Create(ctx, api.Spec{Template: "busybox", Name: name, AutoRemove: true}) },
		func(name string) {
			l.Create(ctx, api.Spec{Template: "busybox", Name: name, Restart: api.Restart{Policy: "always"}})
		},
		func(name string) { l.Start(ctx, name, nil) },
		func(name string) { l.Start(ctx, name, nil) },
		func(name string) { l.Stop(ctx, name, engine.StopOptions{Grace: &grace}) },
		func(name string) { l.Kill(ctx, name, "") },
		func(name string) { l.Kill(ctx, name, "TERM") },
		func(name string) { l.Restart(ctx, name, engine.StopOptions{Grace: &grace}) },
		func(name string) { l.Pause(ctx, name) },
		func(name string) { l.Resume(ctx, name) },
		func(name string) { l.Remove(ctx, name, false) },
		func(name string) { l.Remove(ctx, name, true) },
		func(name string) { l.Rename(ctx, name, name+"x") },
		func(name string) { l.Rename(ctx, name+"x", name) },
		func(name string) { l.Get(ctx, name) },
		func(name string) { l.List(ctx, engine.ListFilter{All: true}) },
		func(name string) { l.StatPath(ctx, name, "/etc") },
		func(name string) { l.Update(ctx, name, api.Update{Labels: map[string]string{"a": name}}) },
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 150 {
				ops[(i*7+worker*5+i/len(ops))%len(ops)](fmt.Sprint("e-", (i+worker)%3))
			}
		})
	}
	group.Wait()
	l.restart()
	l.must(l.DestroyAll(ctx))
	if !l.nothingLeft() {
		t.Errorf("left: runs %v, names %v", l.host.Runs(), l.network.Names())
	}
}
