package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// depths is an engine with a host for each of two strata.
type depths struct {
	*lab
	below *enginetest.Host // of guests
	room  admission.Host   // what can be guaranteed
	life  *mortality
	armed atomic.Bool // see failTimes
	lacks error       // what rehearsals of guests say
	heard []stratum.Plan
}

func (d *depths) rehearse(p stratum.Plan) error {
	d.heard = append(d.heard, p)
	return d.lacks
}

func newDepths(t testing.TB) *depths {
	t.Helper()
	d := &depths{lab: prepared(t), below: enginetest.NewHost()}
	d.begin()
	return d
}

// begin opens an engine in d.dir.
func (d *depths) begin() {
	d.t.Helper()
	d.life = newMortality()
	o := d.options()
	o.Host = d.room
	o.Drivers = []stratum.Driver{
		mortal{enginetest.NewDriver(d.host), stratum.Zone, d.life, nil}, mortal{enginetest.NewDriver(d.below), stratum.Guest, d.life, d.rehearse},
	}
	e, err := engine.Open(d.t.Context(), o)
	if err != nil {
		d.t.Fatalf("open: %v", err)
	}
	d.Engine = e
	d.t.Cleanup(func() { e.Close(context.Background()) })
	d.t.Cleanup(d.life.release)
}

func (d *depths) move(ref, to string) (api.Moved, error) {
	return d.Move(d.t.Context(), ref, api.MoveRequest{Stratum: to})
}

// runsAt says where runs of the environment are.
func (d *depths) runsAt(id string) (at []string) {
	for name, h := range map[string]*enginetest.Host{stratum.Zone: d.host, stratum.Guest: d.below} {
		if r := h.Run(id); r != nil {
			select {
			case <-r.Ended:
			default:
				at = append(at, name)
			}
		}
	}
	return at
}

// isAt holds that the environment runs at one stratum and nowhere else.
func (d *depths) isAt(env api.Environment, want string) api.Environment {
	d.t.Helper()
	got := d.get(env.ID)
	if at := d.runsAt(env.ID); len(at) != 1 || at[0] != want || got.Stratum != want || got.State != api.Running || got.MovingTo != "" {
		d.t.Errorf("it runs at %v, and is shown as %s at %s, moving to %q; want %s", at, got.State, got.Stratum, got.MovingTo, want)
	}
	if got.Network != env.Network || got.IDBase != env.IDBase || got.Name != env.Name || !slices.Equal(got.Spec.Ports, env.Spec.Ports) {
		d.t.Errorf("before %+v, after %+v", env, got)
	}
	return got
}

func TestMove(t *testing.T) {
	d := newDepths(t)
	env := d.run(api.Spec{Name: "web", Ports: []api.Port{{HostPort: 8080, Port: 80}}, Env: []string{"A=b"}, Restart: api.Restart{Policy: "always"}})
	disk := filepath.Join(d.dir, "state", "environments", env.ID, "disk.ext4")
	inode := func() uint64 {
		t.Helper()
		var st syscall.Stat_t
		d.must(syscall.Stat(disk, &st))
		return st.Ino
	}
	before := inode()
	events := d.Subscribe(t.Context(), engine.Filter{Types: []string{"environment"}})
	for i, to := range []string{stratum.Guest, stratum.Zone, stratum.Guest} {
		m, err := d.move("web", to)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Move.Ran || m.Move.To != to || m.Move.Failed != "" || len(m.Notes) != 1 || m.Plan.Choice.Stratum != to || len(m.Plan.Differences) == 0 {
			t.Errorf("%+v", m)
		}
		got := d.isAt(env, to)
		if len(got.Moves) != i+1 || got.Moves[i].To != to || got.Restarts != 0 || !slices.Equal(got.Spec.Env, env.Spec.Env) || got.Spec.Restart != env.Spec.Restart {
			t.Errorf("%+v", got)
		}
		if why, err := d.Why(t.Context(), "web"); err != nil || why.Stratum != to || !strings.Contains(why.Reason, "moved there from") {
			t.Errorf("%+v, %v", why, err)
		}
	}
	if inode() != before {
		t.Error("the disk is another file")
	}
	for ev := range events {
		if ev.Action == "move" {
			if ev.Detail["from"] != "zone" || ev.Detail["to"] != "guest" {
				t.Errorf("%+v", ev)
			}
			break
		}
	}
	d.must(d.Stop(t.Context(), "web", engine.StopOptions{}))
	if m, err := d.move("web", stratum.Zone); err != nil || m.Move.Ran || len(m.Notes) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if got := d.get("web"); got.State != api.Stopped || got.Stratum != stratum.Zone || len(d.runsAt(env.ID)) != 0 || len(got.Moves) != 4 {
		t.Errorf("%+v", got)
	}
	d.must(d.Start(t.Context(), "web", nil))
	d.isAt(env, stratum.Zone)
	for range environment.MaxMoves {
		for _, to := range []string{stratum.Guest, stratum.Zone} {
			if _, err := d.move("web", to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(d.get("web").Moves); n != environment.MaxMoves {
		t.Errorf("%d moves are kept", n)
	}
}

// TestAMoveEndsWhatIsKept between two requests for files.
func TestAMoveEndsWhatIsKept(t *testing.T) {
	d := newDepths(t)
	d.host.Exec = program(t, func(conn *os.File) {
		_ = stream.Write(conn, stream.Stdout, []byte(`{"name":"/","type":"folder"}`))
		exits(conn, 0)
	})
	d.create(api.Spec{Name: "web"})
	_, err := d.StatPath(t.Context(), "web", "/")
	d.must(err)
	_, err = d.move("web", stratum.Guest)
	d.must(err)
	if runs := d.host.Runs(); len(runs) != 0 || d.host.Starts() != 1 {
		t.Errorf("%d runs, and left %v", d.host.Starts(), runs)
	}
}

func TestDryRunOfAMoveDoesNothing(t *testing.T) {
	d := newDepths(t)
	env := d.run(api.Spec{Name: "web"})
	starts := d.host.Starts() + d.below.Starts()
	m, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: true})
	if err != nil || !m.DryRun || m.Plan.Choice.Stratum != stratum.Guest || !m.Move.Ran {
		t.Errorf("%+v, %v", m, err)
	}
	if got := d.isAt(env, stratum.Zone); len(got.Moves) != 0 || d.host.Starts()+d.below.Starts() != starts {
		t.Errorf("%+v", got)
	}
}

// TestADryRunChecksAllThatAMoveDoes: what stands against a start there, guarantees, what
// is under way.
func TestADryRunChecksAllThatAMoveDoes(t *testing.T) {
	d := newDepths(t)
	dir := t.TempDir()
	env := d.run(api.Spec{Name: "web", Volumes: []api.Volume{{Source: dir, Target: "/v"}}, Ports: []api.Port{{HostPort: 8080, Port: 80}}})
	both := func(kind fault.Kind, says ...string) {
		t.Helper()
		for _, dry := range []bool{true, false} {
			_, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: dry})
			kindIs(t, err, kind, says...)
			if got := d.isAt(env, stratum.Zone); len(got.Moves) != 0 || d.host.Starts() != 1 {
				t.Errorf("dry run %v: %+v", dry, got)
			}
		}
	}
	d.lacks = fault.Unablef("virtiofsd is not installed").At("volumes")
	both(fault.Unable, "virtiofsd")
	if p := d.heard[0]; p.ID != env.ID || len(p.Volumes) != 1 || p.Whole.Path == "" || p.Main.Args == nil {
		t.Errorf("what was rehearsed is not what would start: %+v", p)
	}
	d.lacks = nil
	d.must(os.Rename(dir, dir+"-away"))
	both(fault.Missing, dir)
	d.must(os.Rename(dir+"-away", dir))
	if _, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: true}); err != nil {
		t.Error(err)
	}
	d.isAt(env, stratum.Zone)
	if _, err := d.move("web", stratum.Guest); err != nil { // nothing was left claimed
		t.Error(err)
	}
	d.isAt(env, stratum.Guest)
}

// TestADryRunJudgesWithWhatIsToBeChanged: limits and guarantees as they will be when it moves.
func TestADryRunJudgesWithWhatIsToBeChanged(t *testing.T) {
	d := newDepths(t)
	d.must(d.Close(t.Context()))
	d.room = admission.Host{Memory: 4 << 30, CPUs: 4000}
	d.begin()
	env := d.run(api.Spec{Name: "web", Resources: api.Resources{Memory: 16 << 20}})
	dry := func(u *api.Update) (api.Moved, error) {
		return d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: true, Update: u})
	}
	large, small, more := unit.Size(1<<30), unit.Size(1), unit.Size(8<<30)
	m, err := dry(&api.Update{Memory: &large})
	if n := len(d.heard); err != nil || m.Plan.Memory != "1G" || n != 1 || d.heard[0].Resources.Memory != large {
		t.Errorf("%+v, %v, rehearsed %+v", m.Plan, err, d.heard)
	}
	_, err = dry(&api.Update{Memory: &small})
	kindIs(t, err, fault.Invalid, "memory")
	_, err = dry(&api.Update{Memory: &more, MemoryGuarantee: &more})
	kindIs(t, err, fault.Full, "memory")
	_, err = d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, Update: &api.Update{Memory: &large}})
	kindIs(t, err, fault.Invalid, "dry run")
	if got := d.isAt(env, stratum.Zone); got.Spec.Resources != env.Spec.Resources {
		t.Errorf("%+v", got.Spec.Resources)
	}
	if held := d.Capacity(t.Context()).Held; len(held) != 1 || held[0].Memory != 0 {
		t.Errorf("%+v", held)
	}
}

func TestMovesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spec  api.Spec
		then  func(*depths)
		to    string
		force bool
		kind  fault.Kind
		says  []string
	}{
		"to where it is":              {to: "zone", kind: fault.Conflict, says: []string{"web", "zone already"}},
		"to what is no stratum":       {to: "cave", kind: fault.Invalid, says: []string{"cave"}},
		"to nowhere":                  {to: "", kind: fault.Invalid, says: []string{"no stratum"}},
		"to what is not served":       {to: "machine", kind: fault.Unable, says: []string{"machine", "not served"}},
		"against a need":              {spec: api.Spec{Needs: []string{"untrusted-code"}}, to: "zone", kind: fault.Invalid, says: []string{"untrusted-code", "too shallow"}},
		"against a need that is deep": {spec: api.Spec{Needs: []string{"native-speed"}}, to: "guest", kind: fault.Unable, says: []string{"native-speed", "KVM"}},
		"against an option":           {spec: api.Spec{Stratum: "guest", Cold: true}, to: "zone", force: true, kind: fault.Invalid, says: []string{"cold"}},
		"with a machine's hardware":   {spec: api.Spec{Stratum: "guest", Force: true, Hardware: api.Hardware{Board: "pc"}}, to: "zone", kind: fault.Invalid, says: []string{"stock-hardware", "--board"}},
		"while paused":                {then: func(d *depths) { d.must(d.Pause(d.t.Context(), "web")) }, to: "guest", kind: fault.Conflict, says: []string{"paused"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDepths(t)
			c.spec.Name = "web"
			env := d.run(c.spec)
			if c.then != nil {
				c.then(d)
			}
			before := d.get("web")
			_, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: c.to, Force: c.force})
			kindIs(t, err, c.kind, c.says...)
			after := d.get("web")
			if after.State != before.State || after.PID != before.PID || after.Stratum != before.Stratum || len(after.Moves) != 0 {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if d.host.Starts()+d.below.Starts() != 1 {
				t.Error("it was started again")
			}
			d.must(d.Remove(t.Context(), env.ID, true))
		})
	}
}

// TestMovesByForce: what is not served is noted, and is no note any more elsewhere.
func TestMovesByForce(t *testing.T) {
	d := newDepths(t)
	env := d.run(api.Spec{Name: "web", Needs: []string{"untrusted-code"}})
	m, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Zone, Force: true})
	if err != nil || !m.Move.Forced {
		t.Fatalf("%+v, %v", m, err)
	}
	got := d.isAt(env, stratum.Zone)
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "untrusted-code") || !got.Moves[0].Forced || !strings.Contains(got.Reason, "by force") {
		t.Errorf("%+v", got)
	}
	if _, err := d.move("web", stratum.Guest); err != nil {
		t.Fatal(err)
	}
	if got := d.isAt(env, stratum.Guest); len(got.Notes) != 0 || strings.Contains(got.Reason, "by force") {
		t.Errorf("%+v", got)
	}
}

// TestHardwareIsKeptAside: a stratum without hardware can be forced, and what was asked for
// is there again when it is a machine again.
func TestHardwareIsKeptAside(t *testing.T) {
	d := newDepths(t)
	asked := api.Hardware{Board: "pc", TPM: true}
	env := d.run(api.Spec{Name: "web", Stratum: "guest", Force: true, Firmware: "bios", Hardware: asked})
	m, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Zone, Force: true})
	if err != nil || len(m.Notes) != 2 || !strings.Contains(m.Notes[0], "firmware bios") || !strings.Contains(m.Notes[0], "hardware") {
		t.Fatalf("%+v, %v", m.Notes, err)
	}
	if got := d.isAt(env, stratum.Zone); got.Spec.Hardware != asked || got.Spec.Firmware != "bios" || !strings.Contains(strings.Join(got.Notes, " "), "stock-hardware") {
		t.Errorf("%+v", got.Spec)
	}
	_, err = d.Create(t.Context(), api.Spec{Template: "busybox", Stratum: "guest", Hardware: asked})
	kindIs(t, err, fault.Invalid, "stock-hardware", "--board")
}

func TestMovesMeetOtherOperations(t *testing.T) {
	d := newDepths(t)
	env := d.run(api.Spec{Name: "web"})
	arrives := make(chan struct{})
	d.below.Fail = func(stratum.Plan) error { <-arrives; return nil }
	first := make(chan error, 1)
	go func() {
		_, err := d.move("web", stratum.Guest)
		first <- err
	}()
	d.until("it is being moved", func() bool { return d.get("web").MovingTo == stratum.Guest })
	for _, dry := range []bool{false, true} {
		_, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: dry})
		kindIs(t, err, fault.Busy, "web", "being moved to guest")
	}
	ended := make(chan error, 2)
	for _, condition := range []string{"stopped", "next-exit"} {
		go func() { // a wait for its end does not take a move for one
			_, err := d.Wait(t.Context(), "web", condition)
			ended <- err
		}()
	}
	time.Sleep(5 * time.Millisecond)
	close(arrives)
	d.must(<-first)
	d.isAt(env, stratum.Guest)
	select {
	case err := <-ended:
		t.Errorf("the wait for its end is over: %v", err)
	default:
	}
	// A start, an end that hangs.
	d.below.Program = func(r *enginetest.Run) api.Exit { <-r.Killed; return api.Exit{Status: 137, Signal: 9} }
	d.must(d.Stop(t.Context(), "web", engine.StopOptions{}))
	d.must(<-ended)
	d.must(<-ended)
	begins := make(chan struct{})
	d.below.Fail = func(stratum.Plan) error { <-begins; return nil }
	go func() { first <- d.Start(t.Context(), "web", nil) }()
	d.until("it starts", func() bool { return d.get2("web") == api.Starting })
	for _, dry := range []bool{false, true} {
		_, err := d.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Zone, DryRun: dry})
		kindIs(t, err, fault.Conflict, "web", "is starting")
	}
	close(begins)
	d.must(<-first)
	go func() { first <- d.Stop(t.Context(), "web", engine.StopOptions{}) }()
	d.until("it stops", func() bool { return d.get("web").State == api.Stopping })
	_, err := d.move("web", stratum.Zone)
	kindIs(t, err, fault.Conflict, "stopping")
	d.must(d.Kill(t.Context(), "web", ""))
	d.must(<-first)
}

// get2 is the state as a list has it, which waits for nothing.
func (d *depths) get2(name string) api.State {
	for _, env := range d.List(d.t.Context(), engine.ListFilter{All: true}) {
		if env.Name == name {
			return env.State
		}
	}
	return ""
}

func TestAMoveThatFailsGoesBack(t *testing.T) {
	for name, c := range map[string]struct {
		spec api.Spec
		fail func(d *depths)
		want api.State
	}{
		"the start fails":                {want: api.Running, fail: func(d *depths) {}},
		"it is to go when it ends":       {want: api.Running, spec: api.Spec{AutoRemove: true}, fail: func(d *depths) {}},
		"it is started again always":     {want: api.Running, spec: api.Spec{Restart: api.Restart{Policy: "always"}}, fail: func(d *depths) {}},
		"and once more where it was":     {want: api.Running, fail: func(d *depths) { d.failTimes(1) }},
		"and never starts where it was":  {want: api.Stopped, fail: func(d *depths) { d.failTimes(99) }},
		"and its end has to be enforced": {want: api.Running, spec: api.Spec{StopGrace: new(unit.Duration(5e6))}, fail: func(d *depths) { d.hang() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDepths(t)
			c.spec.Name, c.spec.Ports = "web", []api.Port{{HostPort: 8080, Port: 80}}
			c.fail(d)
			d.below.Fail = func(stratum.Plan) error { return fault.Unablef("there is no room for it") }
			env := d.run(c.spec)
			d.armed.Store(true)
			_, err := d.move("web", stratum.Guest)
			if err == nil || !strings.Contains(err.Error(), "no room for it") {
				t.Fatalf("%v", err)
			}
			if c.want == api.Running {
				got := d.isAt(env, stratum.Zone)
				if len(got.Moves) != 1 || !strings.Contains(got.Moves[0].Failed, "no room") || got.Spec.Stratum != env.Spec.Stratum || got.Reason != env.Reason {
					t.Errorf("%+v", got)
				}
				if !strings.Contains(err.Error(), "back at stratum zone") {
					t.Error(err)
				}
				other := d.create(api.Spec{Name: "other", Ports: c.spec.Ports})
				kindIs(t, d.Start(t.Context(), other.ID, nil), fault.Conflict, "8080")
				return
			}
			got := d.get("web")
			if got.State != c.want || got.Stratum != stratum.Zone || len(d.runsAt(env.ID)) != 0 || got.LastFailure == "" {
				t.Errorf("%+v", got)
			}
			d.armed.Store(false)
			d.run(api.Spec{Name: "other", Ports: c.spec.Ports}) // the port is free
		})
	}
}

// failTimes has the next n starts of zones fail, once armed.
func (d *depths) failTimes(n int) {
	d.host.Fail = func(stratum.Plan) error {
		if d.armed.Load() && n > 0 {
			n--
			return fault.Unablef("not now")
		}
		return nil
	}
}

func (d *depths) hang() {
	d.host.Program = func(r *enginetest.Run) api.Exit { <-r.Killed; return api.Exit{Status: 137, Signal: 9} }
}

// TestAMoveThatCannotBeWrittenDownStopsNothing: the disk of the records is full.
func TestAMoveThatEndsWithNoRunIsAnExit(t *testing.T) {
	d := newDepths(t)
	d.failTimes(99)
	d.below.Fail = func(stratum.Plan) error { return fault.Unablef("there is no room for it") }
	d.run(api.Spec{Name: "web"})
	ended := make(chan error, 1)
	go func() {
		_, err := d.Wait(t.Context(), "web", "next-exit")
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	d.armed.Store(true)
	if _, err := d.move("web", stratum.Guest); err == nil {
		t.Error("it moved")
	}
	select {
	case err := <-ended:
		d.must(err)
	case <-time.After(10 * time.Second):
		t.Error("the wait for its next exit goes on")
	}
}

// TestAMoveThatADaemonGoesOnWithClaimsNothingWhenItFails finds no run, and no start works.
func TestAMoveThatADaemonGoesOnWithClaimsNothingWhenItFails(t *testing.T) {
	d := newDepths(t)
	env := d.create(api.Spec{Name: "web", Resources: api.Resources{MemoryGuarantee: 1 << 30}})
	d.must(d.Close(t.Context()))
	d.put(env.ID, func(r *environment.Record) {
		at := r.Placed()
		to := at
		to.Stratum = stratum.Guest
		r.Phase, r.Moving = environment.PhaseRunning, &environment.Moving{From: at, To: to}
	})
	broken := func(stratum.Plan) error { return fault.Unablef("nothing starts") }
	d.host.Fail, d.below.Fail = broken, broken
	d.room = admission.Host{Memory: 8 << 30, CPUs: 4000}
	d.begin()
	d.until("the move has ended", func() bool { return d.get("web").State == api.Stopped && d.get("web").MovingTo == "" })
	d.until("nothing is held", func() bool { return len(d.Capacity(t.Context()).Held) == 0 })
}

func TestAMoveThatCannotBeWrittenDownStopsNothing(t *testing.T) {
	d := newDepths(t)
	env := d.run(api.Spec{Name: "web"})
	folder := filepath.Join(d.dir, "state", "environments", env.ID)
	d.must(os.Rename(folder, folder+"-away"))
	if _, err := d.move("web", stratum.Guest); err == nil {
		t.Error("it was moved")
	}
	d.must(os.Rename(folder+"-away", folder))
	if got := d.isAt(env, stratum.Zone); len(got.Moves) != 0 || d.host.Starts() != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := d.move("web", stratum.Guest); err != nil {
		t.Error(err)
	}
	d.isAt(env, stratum.Guest)
}

// TestADiskThatIsFullInTheMiddleOfAMove: from the moment on at which it has stopped no record
// can be written. Whatever the record says then, it runs at exactly one stratum, and does
// after another daemon has read it.
func TestADiskThatIsFullInTheMiddleOfAMove(t *testing.T) {
	for name, fills := range map[string]func(d *depths, fill func()){
		"before the new start": func(d *depths, fill func()) {
			d.host.Program = func(r *enginetest.Run) api.Exit {
				<-r.Signalled
				fill()
				return api.Exit{}
			}
		},
		"in the new start": func(d *depths, fill func()) { d.below.Fail = func(stratum.Plan) error { fill(); return nil } },
		"in the new start, which fails": func(d *depths, fill func()) {
			d.below.Fail = func(stratum.Plan) error { fill(); return fault.Unablef("no space") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDepths(t)
			var env api.Environment
			folder := func() string { return filepath.Join(d.dir, "state", "environments", env.ID) }
			full := false
			fills(d, func() {
				if !full {
					full = true
					d.must(os.Rename(folder(), folder()+"-away"))
				}
			})
			env = d.run(api.Spec{Name: "web"})
			_, err := d.move("web", stratum.Guest)
			if !full {
				t.Fatal("the disk never was full")
			}
			got := d.get("web")
			if at := d.runsAt(env.ID); len(at) != 1 || at[0] != got.Stratum || got.State != api.Running || (got.Stratum == stratum.Guest) != (err == nil) {
				t.Errorf("it runs at %v and is shown as %s at %s; %v", at, got.State, got.Stratum, err)
			}
			d.must(os.Rename(folder()+"-away", folder()))
			d.host.Program, d.below.Fail = nil, nil
			d.die()
			d.begin()
			d.settlesAtOne(env)
		})
	}
}

func TestARebootInTheMiddleOfAMove(t *testing.T) {
	for _, policy := range []string{"", "always"} {
		d := newDepths(t)
		env := d.run(api.Spec{Name: "web", Restart: api.Restart{Policy: policy}})
		d.below.Slow = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = d.Move(ctx, "web", api.MoveRequest{Stratum: stratum.Guest}) }()
		d.until("it is being moved", func() bool { return len(d.runsAt(env.ID)) == 0 })
		d.die()
		d.host.Reboot()
		d.below.Reboot()
		d.must(os.WriteFile(filepath.Join(d.dir, "state", "boot"), []byte("another\n"), 0o600))
		d.begin()
		want := api.Stopped
		if policy != "" {
			want = api.Running
		}
		d.until("it is "+fmt.Sprint(want), func() bool { return d.get("web").State == want })
		if got := d.get("web"); got.Stratum != stratum.Zone || got.MovingTo != "" || len(got.Moves) != 1 || got.Moves[0].Failed == "" {
			t.Errorf("%+v", got)
		}
	}
}

func TestMoreVolumesThanThereIsRoomForAreRefusedBeforeAStart(t *testing.T) {
	d := newDepths(t)
	spec := func(name, at string, volumes int) api.Spec {
		s := api.Spec{Name: name, Template: "busybox", Stratum: at}
		for i := range volumes {
			s.Volumes = append(s.Volumes, api.Volume{Source: t.TempDir(), Target: fmt.Sprint("/v", i)})
		}
		return s
	}
	_, err := d.Plan(t.Context(), spec("few", stratum.Guest, 2))
	d.must(err)
	_, err = d.Plan(t.Context(), spec("many", stratum.Guest, 3))
	kindIs(t, err, fault.Invalid, "3 volumes")
	_, err = d.Create(t.Context(), spec("many", stratum.Guest, 3))
	kindIs(t, err, fault.Invalid, "3 volumes")
	_, err = d.Create(t.Context(), spec("many", stratum.Zone, 3))
	d.must(err)
	_, err = d.Move(t.Context(), "many", api.MoveRequest{Stratum: stratum.Guest, DryRun: true})
	kindIs(t, err, fault.Invalid, "3 volumes")
	_, err = d.move("many", stratum.Guest)
	kindIs(t, err, fault.Invalid, "3 volumes")
	if at := d.get("many").Stratum; at != stratum.Zone {
		t.Errorf("it is at %s", at)
	}
}
