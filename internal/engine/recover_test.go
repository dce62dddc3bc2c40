package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/oom"
	"github.com/strata-project/strata/internal/store"
)

// TestRecover goes through what a killed daemon can leave: every phase on disk,
// with every state of the run. It is the table of the package's comment.
func TestRecover(t *testing.T) {
	const (
		nothing = "nothing" // nothing of a run is on the host
		live    = "live"
		over    = "over" // the run is over, and its keeper wrote down how
		lost    = "lost" // the keeper was killed
	)
	always := api.Restart{Policy: "always"}
	unless := api.Restart{Policy: "unless-stopped"}
	onFailure := api.Restart{Policy: "on-failure"}
	for name, c := range map[string]struct {
		phase    environment.Phase
		run      string
		spec     api.Spec
		stopped  bool // by the user
		again    bool // it is being restarted
		rebooted bool
		want     api.State // "": it is removed
		crash    bool
		status   int
	}{
		"created":                                    {phase: environment.PhaseCreated, run: nothing, want: api.Created},
		"created, files were being copied":           {phase: environment.PhaseCreated, run: live, want: api.Created},
		"a start that had not begun":                 {phase: environment.PhaseStarting, run: nothing, want: api.Stopped, crash: true, status: 137},
		"a start that came through":                  {phase: environment.PhaseStarting, run: live, want: api.Running},
		"a start that had not begun, always":         {phase: environment.PhaseStarting, run: nothing, spec: api.Spec{Restart: always}, want: api.Running, crash: true, status: 137},
		"running":                                    {phase: environment.PhaseRunning, run: live, want: api.Running},
		"it ended meanwhile":                         {phase: environment.PhaseRunning, run: over, want: api.Stopped, status: 7},
		"it ended meanwhile, always":                 {phase: environment.PhaseRunning, run: over, spec: api.Spec{Restart: always}, want: api.Running, status: 7},
		"its keeper was killed":                      {phase: environment.PhaseRunning, run: lost, want: api.Stopped, crash: true, status: 137},
		"it was cleaned, and not yet written down":   {phase: environment.PhaseRunning, run: nothing, want: api.Stopped, crash: true, status: 137},
		"being stopped":                              {phase: environment.PhaseStopping, run: live, spec: api.Spec{Restart: always}, stopped: true, want: api.Stopped},
		"being stopped, and it had":                  {phase: environment.PhaseStopping, run: over, spec: api.Spec{Restart: always}, stopped: true, want: api.Stopped, status: 7},
		"being restarted":                            {phase: environment.PhaseStopping, run: live, stopped: true, again: true, want: api.Running, status: 7},
		"being restarted, and it had ended":          {phase: environment.PhaseStopping, run: over, stopped: true, again: true, want: api.Running, status: 7},
		"being restarted, after its end":             {phase: environment.PhaseStopped, run: nothing, stopped: true, again: true, want: api.Running},
		"to go at its end, being restarted":          {phase: environment.PhaseStopping, run: over, spec: api.Spec{AutoRemove: true}, stopped: true, again: true, want: api.Running, status: 7},
		"to go at its end, restarted, after its end": {phase: environment.PhaseStopped, run: nothing, spec: api.Spec{AutoRemove: true}, stopped: true, again: true, want: api.Running},
		"stopped":                                   {phase: environment.PhaseStopped, run: nothing, spec: api.Spec{Restart: always}, stopped: true, want: api.Stopped},
		"stopped, files were being copied":          {phase: environment.PhaseStopped, run: live, want: api.Stopped},
		"waiting to be started again":               {phase: environment.PhaseWaiting, run: nothing, spec: api.Spec{Restart: onFailure}, want: api.Running},
		"to go at its end, running":                 {phase: environment.PhaseCreated, run: live, spec: api.Spec{AutoRemove: true}, want: api.Running},
		"to go at its end, and it ended":            {phase: environment.PhaseCreated, run: over, spec: api.Spec{AutoRemove: true}},
		"to go at its end, never started":           {phase: environment.PhaseCreated, run: nothing, spec: api.Spec{AutoRemove: true}, want: api.Created},
		"to go at its end, files were being copied": {phase: environment.PhaseCopying, run: live, spec: api.Spec{AutoRemove: true}, want: api.Created},
		"to go at its end, between stop and start":  {phase: environment.PhaseStopping, run: nothing, spec: api.Spec{AutoRemove: true}},
		"a reboot while it ran":                     {phase: environment.PhaseRunning, run: nothing, rebooted: true, want: api.Stopped, crash: true, status: 137},
		"a reboot while it ran, unless-stopped":     {phase: environment.PhaseRunning, run: nothing, rebooted: true, spec: api.Spec{Restart: unless}, want: api.Running, crash: true, status: 137},
		"a reboot while stopped, always":            {phase: environment.PhaseStopped, run: nothing, rebooted: true, spec: api.Spec{Restart: always}, stopped: true, want: api.Running},
		"a reboot while stopped, unless-stopped":    {phase: environment.PhaseStopped, run: nothing, rebooted: true, spec: api.Spec{Restart: unless}, stopped: true, want: api.Stopped},
		"a reboot, to go at its end":                {phase: environment.PhaseCreated, run: nothing, rebooted: true, spec: api.Spec{AutoRemove: true}},
		"a reboot while stopped, without a policy":  {phase: environment.PhaseStopped, run: nothing, rebooted: true, want: api.Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			c.spec.Name = "web"
			env := l.create(c.spec)
			if c.run != nothing {
				l.host.Program = func(r *enginetest.Run) api.Exit {
					select {
					case <-r.Killed:
						return api.Exit{Status: 137}
					case <-r.Signalled:
						return api.Exit{Status: 7}
					}
				}
				l.must(l.Start(t.Context(), "web", nil))
			}
			l.must(l.Close(t.Context()))
			switch c.run {
			case lost:
				l.host.Lose(env.ID)
			case over:
				r := l.host.Run(env.ID)
				r.Signalled <- syscall.SIGTERM
				<-r.Ended
			}
			l.host.Program = nil
			l.put(env.ID, func(r *environment.Record) {
				r.Phase, r.UserStopped, r.Restarting, r.Exit, r.Started = c.phase, c.stopped, c.again, nil, time.Time{}
			})
			if c.rebooted {
				if err := os.WriteFile(filepath.Join(l.dir, "state", "boot"), []byte("another\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l.open()
			if c.want == "" {
				_, err := l.Get(t.Context(), "web")
				kindIs(t, err, fault.Missing)
				l.until("nothing is left", l.nothingLeft)
				return
			}
			var got api.Environment
			l.until("it is "+string(c.want), func() bool {
				got = l.get("web")
				return got.State == c.want && (!c.again || c.status == 0 || got.Exit != nil)
			})
			if got.Name != "web" || got.IDBase != env.IDBase || got.Network != env.Network {
				t.Errorf("before %+v, after %+v", env, got)
			}
			if c.status != 0 && (got.Exit == nil || got.Exit.Status != c.status || (got.Exit.Crash != "") != c.crash) {
				t.Errorf("exit %+v; want status %d, a crash: %v", got.Exit, c.status, c.crash)
			}
			if runs := len(l.host.Runs()); (runs == 1) != (got.State == api.Running) {
				t.Errorf("%d runs on the host, and it is %s", runs, got.State)
			}
			if c.run == live && got.State == api.Running {
				if r, ok := l.network.Synced[env.ID]; !ok || r.PID != got.PID || r.Address != got.Network {
					t.Errorf("the network was told %+v", l.network.Synced)
				}
			}
			l.must(l.Remove(t.Context(), "web", true))
			l.until("nothing is left", l.nothingLeft)
		})
	}
}

// put changes a record on disk, with no engine there.
func (l *lab) put(id string, change func(*environment.Record)) {
	l.t.Helper()
	s, err := store.Open(filepath.Join(l.dir, "state"))
	l.must(err)
	r, err := s.Read(id)
	l.must(err)
	change(&r)
	l.must(s.Write(r, store.Fleeting))
}

func TestRecoverOddities(t *testing.T) {
	l := newLab(t)
	kept, gone, broken := l.run(api.Spec{Name: "kept"}), l.run(api.Spec{Name: "gone"}), l.run(api.Spec{Name: "broken"})
	l.must(l.Close(t.Context()))
	folders := filepath.Join(l.dir, "state", "environments")
	// A run without a record; one whose record cannot be read; a create that was
	// not finished; a removal that was not finished.
	l.must(os.RemoveAll(filepath.Join(folders, gone.ID)))
	l.must(os.WriteFile(filepath.Join(folders, broken.ID, "record.json"), []byte("{"), 0o600))
	l.must(os.MkdirAll(filepath.Join(folders, "aaaaaaaaaaaa", "log"), 0o700))
	l.must(os.MkdirAll(filepath.Join(l.dir, "state", "trash", "bbbbbbbbbbbb-1", "log"), 0o700))
	l.open()
	if all := l.List(t.Context(), engine.ListFilter{All: true}); len(all) != 1 || all[0].ID != kept.ID || all[0].State != api.Running {
		t.Errorf("%+v", all)
	}
	if l.host.Run(gone.ID) != nil {
		t.Error("a run without a record goes on")
	}
	if r := l.host.Run(broken.ID); r == nil {
		t.Error("a run whose record cannot be read was ended")
	}
	if _, err := os.Stat(filepath.Join(folders, broken.ID, "record.json")); err != nil {
		t.Error("a record that cannot be read was removed")
	}
	l.until("the rest is cleaned", func() bool {
		trash, _ := os.ReadDir(filepath.Join(l.dir, "state", "trash"))
		entries, _ := os.ReadDir(folders)
		return len(trash) == 0 && len(entries) == 2
	})
	l.host.Lose(broken.ID)
}

// TestWhoseRecordCannotBeUsedKeepsWhatItHas has records that another strata wrote, and one
// that says nothing.
func TestWhoseRecordCannotBeUsedKeepsWhatItHas(t *testing.T) {
	l := newLab(t)
	env := l.run(api.Spec{Name: "web", Ports: []api.Port{{HostPort: 8080, Port: 80}}})
	l.must(l.Close(t.Context()))
	bases := filepath.Join(l.dir, "state", "bases")
	l.must(os.MkdirAll(bases, 0o700))
	base := filepath.Join(bases, "0123456789ab.qcow2")
	l.must(os.WriteFile(base, nil, 0o600))
	l.must(os.WriteFile(filepath.Join(bases, "nobodys.qcow2"), nil, 0o600))
	file := filepath.Join(l.dir, "state", "environments", env.ID, "record.json")
	var record map[string]any
	text, err := os.ReadFile(file)
	l.must(err)
	l.must(json.Unmarshal(text, &record))
	record["version"], record["bases"], record["of_a_later_strata"] = 99, []string{"0123456789ab"}, 1
	text, err = json.Marshal(record)
	l.must(err)
	l.must(os.WriteFile(file, text, 0o600))
	l.open()
	if all := l.List(t.Context(), engine.ListFilter{All: true}); len(all) != 0 {
		t.Errorf("it is listed: %+v", all)
	}
	_, err = l.Create(t.Context(), api.Spec{Name: "web", Template: "busybox"})
	if kindIs(t, err, fault.Conflict, "web"); !strings.Contains(fault.All(err)[0].Hint, "its record cannot be used") {
		t.Errorf("%+v does not say why it is not seen", err)
	}
	if other := l.create(api.Spec{Name: "other"}); other.IDBase == env.IDBase {
		t.Errorf("another got its ids: %d", other.IDBase)
	}
	if l.network.Held[env.ID] != "web" {
		t.Error("its address is not reserved")
	}
	if r, ok := l.network.Synced[env.ID]; !ok || r.Address != env.Network || len(r.Ports) != 1 {
		t.Errorf("the network was told %+v", l.network.Synced)
	}
	if used, err := l.Template(t.Context(), env.TemplateID); err != nil || len(used.UsedBy) != 2 {
		t.Errorf("its template is used by %v, %v", used.UsedBy, err)
	}
	l.until("the base that nobody has is gone", func() bool {
		left, _ := os.ReadDir(bases)
		return len(left) == 1
	})
	if _, err := os.Stat(base); err != nil {
		t.Errorf("its base: %v", err)
	}
	l.must(l.Close(t.Context()))
	l.must(os.WriteFile(file, []byte("{"), 0o600))
	l.open()
	l.must(l.Close(t.Context())) // what it does beside is over then
	if _, err := os.Stat(base); err != nil {
		t.Errorf("a base that a record without a word may name: %v", err)
	}
	l.host.Lose(env.ID)
}

// TestWhoseRecordCannotBeUsedTakesNothing has one whose name and ids somebody else has by now,
// and a kill in its group.
func TestWhoseRecordCannotBeUsedTakesNothing(t *testing.T) {
	for range 4 { // whichever id is the lower one
		l := newLab(t)
		old, now := l.run(api.Spec{Name: "old", Resources: api.Resources{Memory: 256 << 20}}), l.create(api.Spec{Name: "web"})
		l.must(l.Close(t.Context()))
		file := filepath.Join(l.dir, "state", "environments", old.ID, "record.json")
		var record map[string]any
		text, err := os.ReadFile(file)
		l.must(err)
		l.must(json.Unmarshal(text, &record))
		record["version"], record["of_a_later_strata"], record["name"], record["id_base"] = 99, 1, "web", now.IDBase
		text, err = json.Marshal(record)
		l.must(err)
		l.must(os.WriteFile(file, text, 0o600))
		kills := l.watched()
		if got := l.get(now.ID); got.Name != "web" || got.IDBase != now.IDBase {
			t.Errorf("it is called %s and has the ids %d; want web and %d", got.Name, got.IDBase, now.IDBase)
		}
		kills <- oom.Kill{ID: old.ID, Process: "python3", PID: 1 << 30, Held: 240 << 20, Short: oom.Limit}
		kills <- oom.Kill{ID: now.ID, Process: "python3", PID: 1 << 30, Held: 240 << 20, Short: oom.Limit}
		l.until("the kill of the other is noted", func() bool { return l.get(now.ID).OOM != nil })
		if after, err := os.ReadFile(file); err != nil || string(after) != string(text) {
			t.Errorf("a record of a later strata was written: %s, %v", after, err)
		}
		l.host.Lose(old.ID)
		l.must(l.Close(t.Context()))
	}
}

// TestARestartOfWhatGoesAtItsEndIsFoundAgain closes the daemon after it.
func TestARestartOfWhatGoesAtItsEndIsFoundAgain(t *testing.T) {
	for name, again := range map[string]func(*lab) error{
		"restart": func(l *lab) error { return l.Restart(l.t.Context(), "web", engine.StopOptions{}) },
		"reset":   func(l *lab) error { return l.Reset(l.t.Context(), "web") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.run(api.Spec{Name: "web", AutoRemove: true})
			l.must(again(l))
			l.restart()
			l.stateIs("web", api.Running)
			l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
			l.until("nothing is left", l.nothingLeft)
		})
	}
}

func TestTwoDaemons(t *testing.T) {
	l := newLab(t)
	_, err := engine.Open(t.Context(), l.options())
	kindIs(t, err, fault.Conflict, fmt.Sprint(os.Getpid()), filepath.Join(l.dir, "strata.sock"))
	l.restart()
}

func TestTwoRootsShareNoRange(t *testing.T) {
	one, two := newLab(t), prepared(t)
	o := two.options()
	o.Claims = filepath.Join(one.dir, "claims")
	e, err := engine.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	two.Engine = e
	seen := map[uint32]string{}
	for i := range 20 {
		for _, l := range []*lab{one, two} {
			env := l.create(api.Spec{Name: fmt.Sprint("e-", i)})
			if other := seen[env.IDBase]; other != "" || env.IDBase%65536 != 0 || env.IDBase < 0x40000000 || env.IDBase >= 0x7ffe0000 {
				t.Errorf("range %#x, had by %q", env.IDBase, other)
			}
			seen[env.IDBase] = env.ID
		}
	}
	// What another root claimed meanwhile is given up: owners on disk are not shifted.
	env := one.get("e-3")
	one.must(one.Close(t.Context()))
	claim := filepath.Join(one.dir, "claims", fmt.Sprint((env.IDBase-0x40000000)/65536))
	one.must(os.WriteFile(claim, []byte(filepath.Join(two.dir, "state")), 0o600))
	one.open()
	if got := one.get("e-3"); got.IDBase == env.IDBase || seen[got.IDBase] != "" {
		t.Errorf("range %#x, before %#x", got.IDBase, env.IDBase)
	}
}

// TestClaimsOfGoneRoots: a private root may be removed with what it had claimed.
func TestClaimsOfGoneRoots(t *testing.T) {
	l := prepared(t)
	claims := filepath.Join(l.dir, "claims")
	l.must(os.MkdirAll(claims, 0o700))
	for i := range 50 {
		l.must(os.WriteFile(filepath.Join(claims, fmt.Sprint(i*300)), []byte("/no/such/root/state"), 0o600))
	}
	l.open()
	l.until("they are swept", func() bool {
		left, _ := os.ReadDir(claims)
		return len(left) == 0
	})
}

func TestKeeperLost(t *testing.T) {
	l := newLab(t)
	env := l.run(api.Spec{Name: "web"})
	l.host.Lose(env.ID)
	l.until("it is stopped", func() bool { return l.get("web").State == api.Stopped })
	if exit := l.get("web").Exit; exit.Crash == "" || exit.Status != 137 {
		t.Errorf("%+v", exit)
	}
	l.must(l.Start(t.Context(), "web", nil))
}

func TestHundredAdoptions(t *testing.T) {
	l := newLab(t)
	for i := range 100 {
		l.run(api.Spec{Name: fmt.Sprint("e-", i)})
	}
	l.restart()
	if n := len(l.List(t.Context(), engine.ListFilter{})); n != 100 {
		t.Errorf("%d run", n)
	}
	if info := l.Info(t.Context()); info.Environments["running"] != 100 || info.PID != os.Getpid() || info.Cgroups == "" {
		t.Errorf("%+v", info)
	}
	l.must(l.DestroyAll(t.Context()))
}
