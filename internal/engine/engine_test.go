package engine_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/stratum"
)

// lab is an engine on stand-ins, and what outlives it.
type lab struct {
	t         testing.TB
	dir       string
	host      *enginetest.Host
	driver    stratum.Driver
	templates *enginetest.Templates
	pool      *enginetest.Pool
	network   *enginetest.Network
	*engine.Engine
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := prepared(t)
	l.open()
	return l
}

func prepared(t testing.TB) *lab {
	h := enginetest.NewHost()
	return &lab{t: t, dir: t.TempDir(), host: h, driver: enginetest.NewDriver(h), templates: enginetest.NewTemplates(), pool: &enginetest.Pool{}}
}

func (l *lab) options() engine.Options {
	l.network = enginetest.NewNetwork()
	o := engine.Options{
		Places:  place.Places{Root: l.dir, State: filepath.Join(l.dir, "state"), Run: filepath.Join(l.dir, "run"), Socket: filepath.Join(l.dir, "strata.sock"), Tag: "abcdef"},
		Drivers: []stratum.Driver{l.driver}, Templates: l.templates, Pool: l.pool, Network: l.network,
		Claims: filepath.Join(l.dir, "claims"), Version: "test",
	}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

func (l *lab) open() {
	l.t.Helper()
	e, err := engine.Open(l.t.Context(), l.options())
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.Engine = e
	l.t.Cleanup(func() { e.Close(context.Background()) })
}

// restart closes the engine and opens another one: what a new daemon does.
func (l *lab) restart() {
	l.t.Helper()
	if err := l.Close(l.t.Context()); err != nil {
		l.t.Fatalf("close: %v", err)
	}
	l.open()
}

func (l *lab) create(spec api.Spec) api.Environment {
	l.t.Helper()
	if spec.Template == "" {
		spec.Template = "busybox"
	}
	env, err := l.Create(l.t.Context(), spec)
	if err != nil {
		l.t.Fatalf("create %s: %v", spec.Name, err)
	}
	return env
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) get(ref string) api.Environment {
	l.t.Helper()
	env, err := l.Get(l.t.Context(), ref)
	if err != nil {
		l.t.Fatalf("get %s: %v", ref, err)
	}
	return env
}

func (l *lab) run(spec api.Spec) api.Environment {
	l.t.Helper()
	env := l.create(spec)
	l.must(l.Start(l.t.Context(), env.ID, nil))
	return l.get(env.ID)
}

// until waits for what another goroutine does.
func (l *lab) until(what string, met func() bool) {
	l.t.Helper()
	for end := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func (l *lab) stateIs(ref string, want api.State) {
	l.t.Helper()
	if got := l.get(ref).State; got != want {
		l.t.Errorf("%s is %s; want %s", ref, got, want)
	}
}

func TestLife(t *testing.T) {
	l := newLab(t)
	env := l.create(api.Spec{Name: "web", Labels: map[string]string{"a": "b"}})
	if env.State != api.Created || env.Name != "web" || env.Stratum != "zone" || env.Reason == "" || env.Network.IPv4 == "" || env.IDBase == 0 {
		t.Fatalf("created: %+v", env)
	}
	l.must(l.Start(t.Context(), "web", nil))
	if env = l.get("web"); env.State != api.Running || !env.Ready || env.PID == 0 || env.Started == nil || env.MemoryUsed == 0 {
		t.Fatalf("running: %+v", env)
	}
	l.must(l.Stop(t.Context(), env.ID[:6], engine.StopOptions{}))
	if env = l.get("web"); env.State != api.Stopped || env.Exit == nil || env.Exit.Status != 0 {
		t.Fatalf("stopped: %+v", env)
	}
	l.must(l.Start(t.Context(), "web", nil))
	l.must(l.Remove(t.Context(), "web", true))
	if all := l.List(t.Context(), engine.ListFilter{All: true}); len(all) != 0 {
		t.Fatalf("after rm: %+v", all)
	}
	l.until("cleaned", func() bool {
		trash, _ := os.ReadDir(filepath.Join(l.dir, "state", "trash"))
		return len(l.host.Runs())+len(trash)+len(l.network.Names()) == 0
	})
}
