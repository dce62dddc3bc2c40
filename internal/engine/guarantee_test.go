package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// ledger is what drivers have been told to keep for what runs: it knows nothing of who
// let it in.
type ledger struct {
	t      testing.TB
	memory unit.Size // the host's
	cpus   unit.CPUs

	mu   sync.Mutex
	held map[string]api.Resources // by stratum and id
	full int                      // moments with more than half of a resource held
}

// note has a run hold what r guarantees from now on, and looks at the sum.
func (l *ledger) note(run string, r api.Resources) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(run, r)
}

func (l *ledger) write(run string, r api.Resources) {
	l.held[run] = r
	var memory unit.Size
	var cpus unit.CPUs
	for _, one := range l.held {
		memory, cpus = memory+one.MemoryGuarantee, cpus+one.CPUGuarantee
	}
	if memory > l.memory || cpus > l.cpus {
		l.t.Errorf("%s of %s memory and %s of %s processors are guaranteed: %+v", memory, l.memory, cpus, l.cpus, l.held)
	}
	if memory > l.memory/2 || cpus > l.cpus/2 {
		l.full++
	}
}

// change is note for what runs, and false where nothing does any more.
func (l *ledger) change(run string, r api.Resources) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.held[run]; !ok {
		return false
	}
	l.write(run, r)
	return true
}

func (l *ledger) forget(run string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, run)
}

// keeping is a driver at a stratum that writes all into the ledger.
type keeping struct {
	*enginetest.Driver
	at string
	*ledger
}

func (k keeping) Stratum() string { return k.at }

func (k keeping) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	k.note(k.at+p.ID, p.Resources)
	live, err := k.Driver.Start(ctx, p, o)
	if err != nil {
		k.forget(k.at + p.ID)
		return nil, err
	}
	return keptLive{live, k.at + p.ID, k.ledger}, nil
}

func (k keeping) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	live, err := k.Driver.Adopt(ctx, id)
	if err != nil {
		return nil, err
	}
	return keptLive{live, k.at + id, k.ledger}, nil
}

type keptLive struct {
	stratum.Live
	run string
	*ledger
}

func (k keptLive) SetLimits(_ context.Context, r api.Resources) error {
	if rand.IntN(6) == 0 {
		return fault.Busyf("it cannot be now") // what was before stays
	}
	if !k.change(k.run, r) {
		return fault.Conflictf("it has ended")
	}
	return nil
}

// Suspend leaves the run in the ledger: it is there until it is killed.
func (k keptLive) Suspend(ctx context.Context, dir string) error {
	if rand.IntN(6) == 0 {
		return fault.Unablef("it has what cannot be written down")
	}
	return k.Live.(stratum.Suspender).Suspend(ctx, dir)
}

// guaranteed opens an engine with two strata whose runs are in the ledger.
func guaranteed(l *lab, below *enginetest.Host, book *ledger, h admission.Host) {
	l.t.Helper()
	for at, host := range map[string]*enginetest.Host{stratum.Zone: l.host, stratum.Guest: below} {
		host.Slow = time.Millisecond
		host.Fail = func(stratum.Plan) error {
			if rand.IntN(8) == 0 {
				return fault.Unablef("it does not start")
			}
			return nil
		}
		host.Program = func(r *enginetest.Run) api.Exit {
			defer book.forget(at + r.Plan.ID) // before anybody can know of the end
			select {
			case <-r.Killed:
				return api.Exit{Status: 137, Signal: 9}
			case s := <-r.Signalled:
				return api.Exit{Status: 128 + int(s), Signal: int(s)}
			case <-time.After(time.Duration(rand.IntN(200)) * time.Millisecond):
				return api.Exit{Status: 1}
			}
		}
	}
	o := l.options()
	o.Host = h
	o.Drivers = []stratum.Driver{keeping{enginetest.NewDriver(l.host), stratum.Zone, book}, keeping{enginetest.NewDriver(below), stratum.Guest, book}}
	e, err := engine.Open(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Engine = e
}

// TestNoSequenceOfOperationsBreaksAGuarantee has eight start, stop, kill, change, move,
// restart, suspend, resume, wait for room and remove at the same time, with programs that end by themselves
// and are started again, starts and changes that fail, and a new daemon now and then. What
// drivers were told to keep never is more than there is.
func TestNoSequenceOfOperationsBreaksAGuarantee(t *testing.T) {
	const names, workers, each, daemons = 10, 8, 60, 3
	h := admission.Host{Memory: 4 * unit.GiB, ReserveMemory: unit.GiB, CPUs: 4000, ReserveCPUs: 400}
	memory, cpus := h.Capacity()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l, below := prepared(t), enginetest.NewHost()
	book := &ledger{t: t, memory: memory, cpus: cpus, held: map[string]api.Resources{}}
	for daemon := range daemons {
		guaranteed(l, below, book, h)
		var work sync.WaitGroup
		for worker := range workers {
			work.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(daemon*workers+worker)))
				for range each {
					anything(l, r, fmt.Sprint("e", r.IntN(names)))
				}
			})
		}
		work.Wait()
		l.must(l.Close(t.Context()))
	}
	if book.full == 0 {
		t.Error("the host was never half full")
	}
	t.Logf("%d times more than half of something was guaranteed", book.full)
	guaranteed(l, below, book, h)
	for i := range names {
		_ = l.Remove(t.Context(), fmt.Sprint("e", i), true)
	}
	if c := l.Capacity(t.Context()); len(c.Held)+len(c.Waiting) != 0 {
		t.Errorf("after all were removed there are held %v and waiting %v", c.Held, c.Waiting)
	}
	l.must(l.Close(t.Context()))
}

// small is a lab on a host of 4G, of which 3G can be guaranteed.
func small(t *testing.T) *lab {
	t.Helper()
	l := prepared(t)
	l.openSmall()
	t.Cleanup(func() { l.must(l.Close(context.Background())) })
	return l
}

func (l *lab) openSmall() {
	l.t.Helper()
	o := l.options()
	o.Host = admission.Host{Memory: 4 * unit.GiB, ReserveMemory: unit.GiB, CPUs: 4000, ReserveCPUs: 400}
	o.Drivers = []stratum.Driver{enginetest.NewDriver(l.host)}
	e, err := engine.Open(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Engine = e
}

func TestAChangeWaitsForRoom(t *testing.T) {
	l := small(t)
	other, guarantee, more := "other", unit.Size(unit.GiB), unit.Size(2*unit.GiB)
	for _, name := range []string{"one", other} {
		l.run(api.Spec{Name: name, Template: "busybox", Resources: api.Resources{MemoryGuarantee: guarantee}})
	}
	grow := api.Update{MemoryGuarantee: &more}
	if _, err := l.Update(t.Context(), "one", grow); !fault.Is(err, fault.Full) {
		t.Fatalf("Update = %v; want that there is no room", err)
	}
	if err := l.Queue(t.Context(), "one", api.Next{Update: &grow}, 50*time.Millisecond); !fault.Is(err, fault.Busy) {
		t.Errorf("Queue = %v; want that its time is over", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- l.Queue(t.Context(), "one", api.Next{Update: &grow}, time.Minute) }()
	l.until("it waits", func() bool { return len(l.Capacity(t.Context()).Waiting) == 1 })
	l.must(l.Kill(t.Context(), other, "KILL"))
	l.must(<-waited)
	if err := l.Start(t.Context(), other, nil); !fault.Is(err, fault.Full) {
		t.Errorf("Start = %v; want that room is held for the change", err)
	}
	if _, err := l.Update(t.Context(), "one", grow); err != nil {
		t.Errorf("what it waited for is refused: %v", err)
	}
	if err := l.Queue(t.Context(), "one", api.Next{Stratum: "cellar"}, time.Minute); !fault.Is(err, fault.Invalid) {
		t.Errorf("Queue = %v; want that there is no such stratum", err)
	}
	if err := l.Queue(t.Context(), "one", api.Next{Stratum: stratum.Zone}, time.Minute); err != nil {
		t.Errorf("what takes no more than it has waits: %v", err)
	}
}

// TestWhoIsRemovedWaitsForNoRoom has one behind it that fits.
func TestWhoIsRemovedWaitsForNoRoom(t *testing.T) {
	l := small(t)
	l.run(api.Spec{Name: "web", Resources: api.Resources{MemoryGuarantee: 2 * unit.GiB}})
	l.create(api.Spec{Name: "large", Resources: api.Resources{MemoryGuarantee: 2 * unit.GiB}})
	l.create(api.Spec{Name: "tiny", Resources: api.Resources{MemoryGuarantee: unit.GiB / 2}})
	large, tiny := make(chan error, 1), make(chan error, 1)
	go func() { large <- l.Queue(t.Context(), "large", api.Next{}, time.Minute) }()
	l.until("it waits", func() bool { return len(l.Capacity(t.Context()).Waiting) == 1 })
	go func() { tiny <- l.Queue(t.Context(), "tiny", api.Next{}, time.Minute) }()
	l.until("both wait", func() bool { return len(l.Capacity(t.Context()).Waiting) == 2 })
	l.must(l.Remove(t.Context(), "large", false))
	kindIs(t, <-large, fault.Missing, "removed")
	l.must(<-tiny)
	l.must(l.Start(t.Context(), "tiny", nil))
	if c := l.Capacity(t.Context()); len(c.Held) != 2 || len(c.Waiting) != 0 {
		t.Errorf("%+v is held, and %+v waits", c.Held, c.Waiting)
	}
}

// TestRoomIsHeldUntilThePolicyStartsItAgain has one that waits for it whenever the program
// ends, and a new daemon.
func TestRoomIsHeldUntilThePolicyStartsItAgain(t *testing.T) {
	l := small(t)
	l.host.Program = func(r *enginetest.Run) api.Exit {
		if r.Plan.Name == "web" {
			return api.Exit{Status: 1}
		}
		<-r.Killed
		return api.Exit{}
	}
	l.create(api.Spec{Name: "web", Restart: api.Restart{Policy: environment.RestartAlways}, Resources: api.Resources{MemoryGuarantee: 2 * unit.GiB}})
	l.create(api.Spec{Name: "other", Resources: api.Resources{MemoryGuarantee: 2 * unit.GiB}})
	l.must(l.Start(t.Context(), "web", nil))
	holds := func() {
		t.Helper()
		if c := l.Capacity(t.Context()); len(c.Held) != 1 || c.Held[0].Name != "web" {
			t.Errorf("%+v is held; want that web's is", c.Held)
		}
		kindIs(t, l.Start(t.Context(), "other", nil), fault.Full, "web 2G")
	}
	waited := make(chan error, 1)
	go func() { waited <- l.Queue(t.Context(), "other", api.Next{}, time.Minute) }()
	l.until("it was started thrice", func() bool { return l.get("web").Restarts > 2 })
	holds()
	l.must(l.Close(t.Context()))
	if err := <-waited; err == nil {
		t.Error("room was given to another")
	}
	l.openSmall()
	holds()
	go func() { waited <- l.Queue(t.Context(), "other", api.Next{}, time.Minute) }()
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.must(<-waited)
	l.must(l.Start(t.Context(), "other", nil))
}

// sharer keeps what groups of the host have, over daemons.
type sharer struct {
	*enginetest.Driver
	mu  *sync.Mutex
	set map[string]stratum.Share
}

func (s sharer) Share(id string, share stratum.Share) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set[id] = share
	return nil
}

// TestADaemonSharesOnceAllThatRunsIsFound has one that ended while there was none, and took
// the only guarantee with it.
func TestADaemonSharesOnceAllThatRunsIsFound(t *testing.T) {
	l := prepared(t)
	s := sharer{enginetest.NewDriver(l.host), new(sync.Mutex), map[string]stratum.Share{}}
	begin := func() {
		o := l.options()
		o.Host = admission.Host{Memory: 4 * unit.GiB, ReserveMemory: unit.GiB, CPUs: 4000, ReserveCPUs: 400}
		o.Drivers = []stratum.Driver{s}
		e, err := engine.Open(t.Context(), o)
		l.must(err)
		l.Engine = e
		t.Cleanup(func() { e.Close(context.Background()) })
	}
	begin()
	end := make(chan struct{})
	l.host.Program = func(r *enginetest.Run) api.Exit {
		if r.Plan.Name == "first" {
			<-end
		} else {
			<-r.Killed
		}
		return api.Exit{}
	}
	first := l.host.Run(l.run(api.Spec{Name: "first", AutoRemove: true, Resources: api.Resources{MemoryGuarantee: unit.GiB}}).ID)
	var ids []string
	for i := range 40 {
		ids = append(ids, l.run(api.Spec{Name: fmt.Sprint("other", i)}).ID)
	}
	l.must(l.Close(t.Context()))
	close(end)
	<-first.Ended
	begin()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if got, want := s.set[id].Memory, stratum.Share(admission.Rest()).Memory; got != want {
			t.Errorf("%s has the share %v of memory; want %v, as nobody has a guarantee", id, got, want)
		}
	}
}

// anything does one thing to an environment; that it is refused is as good.
func anything(l *lab, r *rand.Rand, name string) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	memory, cpus := unit.Size(r.Int64N(int64(2*unit.GiB))), unit.CPUs(r.Int64N(2000))
	grace := time.Millisecond
	switch r.IntN(14) {
	case 0, 1, 2:
		_, _ = l.Create(ctx, api.Spec{Name: name, Template: "busybox", Resources: api.Resources{MemoryGuarantee: memory, CPUGuarantee: cpus},
			Restart: api.Restart{Policy: []string{"no", "always"}[r.IntN(2)]}})
		_ = l.Start(ctx, name, nil)
	case 3, 4:
		_ = l.Start(ctx, name, nil)
	case 5:
		_ = l.Stop(ctx, name, engine.StopOptions{Grace: &grace})
	case 6:
		_ = l.Kill(ctx, name, "KILL")
	case 7:
		_ = l.Restart(ctx, name, engine.StopOptions{Grace: &grace})
	case 8:
		_, _ = l.Update(ctx, name, api.Update{MemoryGuarantee: &memory})
	case 9:
		_, _ = l.Update(ctx, name, api.Update{CPUGuarantee: &cpus})
	case 10:
		_, _ = l.Move(ctx, name, api.MoveRequest{Stratum: []string{stratum.Zone, stratum.Guest}[r.IntN(2)]})
	case 11, 12:
		if l.Suspend(ctx, name) == nil && r.IntN(3) > 0 {
			_ = l.Resume(ctx, name)
		}
	default:
		if r.IntN(3) == 0 {
			_ = l.Remove(ctx, name, true)
			return
		}
		next, to := api.Next{Update: &api.Update{MemoryGuarantee: &memory, CPUGuarantee: &cpus}}, []string{stratum.Zone, stratum.Guest}[r.IntN(2)]
		switch r.IntN(3) {
		case 0:
			if l.Queue(ctx, name, next, 20*time.Millisecond) == nil {
				_, _ = l.Update(ctx, name, *next.Update)
			}
			return
		case 1:
			if l.Queue(ctx, name, api.Next{Stratum: to}, 20*time.Millisecond) == nil {
				_, _ = l.Move(ctx, name, api.MoveRequest{Stratum: to})
			}
			return
		}
		if l.Queue(ctx, name, api.Next{}, 20*time.Millisecond) == nil {
			_ = l.Start(ctx, name, nil)
		}
	}
}
