package engine_test

import (
	"context"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// shelf is a place of kernels that has none until one is added.
type shelf struct {
	engine.Kernels
	added   atomic.Int32
	has     atomic.Bool
	release chan struct{} // an Add waits for it
}

func (s *shelf) List() []api.Kernel { return nil }

func (s *shelf) Get(string) (api.Kernel, error) {
	if !s.has.Load() {
		return api.Kernel{}, fault.Missingf("there is no kernel for guests yet").At("kernel")
	}
	return api.Kernel{Name: "first", Default: true}, nil
}

func (s *shelf) For(_, ref string) (api.Kernel, error) { return s.Get(ref) }

func (s *shelf) Add(ctx context.Context, r api.KernelRequest, _ fs.FS, tell func(api.Progress)) (api.Kernel, error) {
	s.added.Add(1)
	tell(api.Progress{Step: "download", Item: r.Source})
	select {
	case <-s.release:
	case <-ctx.Done():
		return api.Kernel{}, ctx.Err()
	}
	s.has.Store(true)
	return api.Kernel{Name: "first"}, nil
}

// deeper is a driver at stratum guest.
type deeper struct{ *enginetest.Driver }

func (deeper) Stratum() string { return stratum.Guest }

func newGuestLab(t *testing.T) (*lab, *shelf) {
	t.Helper()
	l := prepared(t)
	s := &shelf{release: make(chan struct{})}
	o := l.options()
	o.Kernels = s
	o.Drivers = append(o.Drivers, deeper{enginetest.NewDriver(enginetest.NewHost())})
	e, err := engine.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	l.Engine = e
	t.Cleanup(func() { e.Close(context.Background()) })
	return l, s
}

// heard waits for progress of an operation.
func heard(t *testing.T, events <-chan api.Event, step string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		select {
		case ev := <-events:
			if ev.Progress != nil && ev.Progress.Step == step {
				return
			}
		case <-limit:
			t.Fatalf("%s was not told", step)
		}
	}
}

func TestTheFirstKernelIsFetchedOnce(t *testing.T) {
	l, s := newGuestLab(t)
	first := l.Subscribe(t.Context(), engine.Filter{Operations: []string{"one"}})
	second := l.Subscribe(t.Context(), engine.Filter{Operations: []string{"two"}})
	_, err := l.Create(t.Context(), api.Spec{Template: "busybox", Stratum: "guest"})
	kindIs(t, err, fault.Missing, "no kernel")

	want := api.KernelRequest{Source: "debian", First: true}
	var all sync.WaitGroup
	ask := func(operation string) {
		all.Go(func() {
			if k, err := l.AddKernel(engine.WithOperation(t.Context(), operation), want); err != nil || k.Name != "first" {
				t.Error(k, err)
			}
		})
	}
	ask("one")
	heard(t, first, "download")
	ask("two")
	heard(t, second, "wait")
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := l.AddKernel(gone, want); err == nil {
		t.Error("who has left waits")
	}
	close(s.release)
	all.Wait()
	if n := s.added.Load(); n != 1 {
		t.Errorf("it was fetched %d times", n)
	}
}

func TestAFetchThatFailsLeavesTheNextOneToTry(t *testing.T) {
	l, s := newGuestLab(t)
	want := api.KernelRequest{Source: "debian", First: true}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.AddKernel(short, want); err == nil {
		t.Error("it did not fail")
	}
	close(s.release)
	if _, err := l.AddKernel(t.Context(), want); err != nil || s.added.Load() != 2 {
		t.Error(err, s.added.Load())
	}
}

func TestTheFirstGuestOfATemplateTellsWhatIsMade(t *testing.T) {
	l, s := newGuestLab(t)
	s.has.Store(true)
	events := l.Subscribe(t.Context(), engine.Filter{Operations: []string{"create"}})
	ctx := engine.WithOperation(t.Context(), "create")
	if _, err := l.Create(ctx, api.Spec{Template: "busybox", Stratum: "guest"}); err != nil {
		t.Fatal(err)
	}
	for ev := range events {
		if p := ev.Progress; p != nil {
			if p.Step != "merge" || p.Item != "the layers of busybox into one image, once" {
				t.Errorf("it says %+v", p)
			}
			break
		}
	}
	zones := l.Subscribe(t.Context(), engine.Filter{Operations: []string{"zone"}})
	if _, err := l.Create(engine.WithOperation(t.Context(), "zone"), api.Spec{Template: "busybox"}); err != nil {
		t.Fatal(err)
	}
	if ev := <-zones; ev.Progress != nil {
		t.Errorf("a zone makes %+v", ev.Progress)
	}
}

// TestAPlanWithoutAKernel says what would be fetched, where a start would be refused.
func TestAPlanWithoutAKernel(t *testing.T) {
	l, s := newGuestLab(t)
	spec := api.Spec{Template: "busybox", Stratum: stratum.Guest}
	p, err := l.Plan(t.Context(), spec)
	if err != nil || !strings.Contains(p.Kernel, "fetched first") || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "no kernel for stratum guest is here") {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = l.Plan(t.Context(), api.Spec{Template: "busybox"}); err != nil || len(p.Notes) != 0 {
		t.Errorf("a zone: %+v, %v", p, err)
	}
	_, err = l.Create(t.Context(), spec)
	kindIs(t, err, fault.Missing, "kernel")
	if _, err = l.Plan(t.Context(), api.Spec{Template: "busybox", Stratum: stratum.Guest, Kernel: "mine"}); !fault.Is(err, fault.Missing) {
		t.Errorf("a kernel by name is not fetched: %v", err)
	}
	env := l.run(api.Spec{Name: "web"})
	_, err = l.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest})
	kindIs(t, err, fault.Missing, "kernel")
	if m, err := l.Move(t.Context(), "web", api.MoveRequest{Stratum: stratum.Guest, DryRun: true}); err != nil || !strings.Contains(m.Plan.Kernel, "fetched first") {
		t.Errorf("%+v, %v", m, err)
	}
	if got := l.get("web"); got.State != api.Running || got.PID != env.PID || l.host.Starts() != 1 {
		t.Errorf("%+v", got)
	}
	if s.added.Load() != 0 {
		t.Error("a plan fetched a kernel")
	}
}
