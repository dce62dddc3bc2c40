package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// mortality is a daemon's life as its drivers see it: once it is over, no call of the
// old engine does anything on the host or returns, as if its process had been killed.
type mortality struct {
	mu       sync.RWMutex // held for reading over a call
	once     sync.Once
	dead     chan struct{}
	released chan struct{} // closed when the test ends

	count sync.Mutex
	calls int
	at    int  // the call that it dies at; 0: none
	after bool // after that call, else before
}

func newMortality() *mortality {
	return &mortality{dead: make(chan struct{}), released: make(chan struct{})}
}

func (m *mortality) release() { close(m.released) }

func (m *mortality) over() bool {
	select {
	case <-m.dead:
		return true
	default:
		return false
	}
}

func (m *mortality) end() { m.once.Do(func() { close(m.dead) }) }

// during runs call unless the daemon is dead.
func (m *mortality) during(call func()) error {
	m.count.Lock()
	m.calls++
	now := m.calls == m.at
	m.count.Unlock()
	if now && !m.after {
		m.end()
	}
	m.mu.RLock()
	if !m.over() {
		call()
	}
	if now {
		m.end()
	}
	m.mu.RUnlock()
	if m.over() {
		<-m.released
		return fault.Internalf("the daemon is dead")
	}
	return nil
}

// mortal is a driver at a stratum, of a daemon that may die.
type mortal struct {
	*enginetest.Driver
	at     string
	life   *mortality
	refuse func(stratum.Plan) error // what a rehearsal says; nil: all is well
}

func (m mortal) Stratum() string { return m.at }

func (m mortal) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (live stratum.Live, err error) {
	if dead := m.life.during(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-m.life.dead:
				cancel()
			case <-ctx.Done():
			}
		}()
		live, err = m.Driver.Start(ctx, p, o)
	}); dead != nil {
		return nil, dead
	}
	return m.wrap(live), err
}

// Rehearse implements stratum.Rehearser, as refuse says.
func (m mortal) Rehearse(_ context.Context, p stratum.Plan) error {
	if m.refuse == nil {
		return nil
	}
	return m.refuse(p)
}

// MayShow implements stratum.Shower: a guest has room for two volumes.
func (m mortal) MayShow(volumes int) error {
	if m.at == stratum.Guest && volumes > 2 {
		return fault.Invalidf("%d volumes are more than a guest can have", volumes).At("volumes")
	}
	return nil
}

func (m mortal) Adopt(ctx context.Context, id string) (live stratum.Live, err error) {
	if dead := m.life.during(func() { live, err = m.Driver.Adopt(ctx, id) }); dead != nil {
		return nil, dead
	}
	return m.wrap(live), err
}

func (m mortal) Clean(ctx context.Context, id string) (exit *api.Exit, err error) {
	if dead := m.life.during(func() { exit, err = m.Driver.Clean(ctx, id) }); dead != nil {
		return nil, dead
	}
	return exit, err
}

func (m mortal) wrap(live stratum.Live) stratum.Live {
	if live == nil {
		return nil
	}
	return mortalLive{live, live.(stratum.Pauser), m.life}
}

type mortalLive struct {
	stratum.Live
	stratum.Pauser
	life *mortality
}

func (l mortalLive) Signal(ctx context.Context, sig syscall.Signal) (err error) {
	if dead := l.life.during(func() { err = l.Live.Signal(ctx, sig) }); dead != nil {
		return dead
	}
	return err
}

func (l mortalLive) Kill(ctx context.Context) (err error) {
	if dead := l.life.during(func() { err = l.Live.Kill(ctx) }); dead != nil {
		return dead
	}
	return err
}

func (l mortalLive) Wait(ctx context.Context) (api.Exit, error) {
	exit, err := l.Live.Wait(ctx)
	if ctx.Err() == nil && l.life.over() {
		<-l.life.released
	}
	return exit, err
}

// die ends the daemon as SIGKILL would, and moves to what it has written so far.
func (d *depths) die() {
	d.t.Helper()
	d.life.end()
	d.life.mu.Lock() // no call is under way
	defer d.life.mu.Unlock()
	dir := d.t.TempDir()
	d.must(copyRecords(filepath.Join(d.dir, "state"), filepath.Join(dir, "state")))
	d.dir = dir
}

// copyRecords copies the folder of the state as it is now. The old engine may be writing
// in it: a file that goes meanwhile was never a record, which is replaced by a rename.
func copyRecords(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, entry := range entries {
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		if entry.IsDir() {
			if err := copyRecords(source, target); err != nil && !os.IsNotExist(err) {
				return err
			}
			continue
		}
		text, err := os.ReadFile(source)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// settlesAtOne holds what a move is to end with whatever happens: it runs at exactly one
// stratum, and nothing of it is anywhere else.
func (d *depths) settlesAtOne(env api.Environment) string {
	d.t.Helper()
	d.until("the move has ended", func() bool {
		got := d.get(env.ID)
		return got.State == api.Running && got.MovingTo == ""
	})
	got := d.get(env.ID)
	d.isAt(env, got.Stratum)
	if n := len(d.host.Runs()) + len(d.below.Runs()); n != 1 {
		d.t.Errorf("something of %d runs is on the host", n)
	}
	return got.Stratum
}

// TestDaemonKilledAtEachStepOfAMove kills it before and after every call that a move
// makes of its drivers.
func TestDaemonKilledAtEachStepOfAMove(t *testing.T) {
	for name, c := range map[string]struct {
		spec api.Spec
		fail bool
	}{
		"it comes through":                      {},
		"it is to go when it ends":              {spec: api.Spec{AutoRemove: true}},
		"its policy starts it always":           {spec: api.Spec{Restart: api.Restart{Policy: "always"}}},
		"the new start fails":                   {fail: true},
		"the new start fails, to go at its end": {spec: api.Spec{AutoRemove: true}, fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for at := 1; ; at++ {
				came := 0 // how many of both went through without dying
				for _, after := range []bool{false, true} {
					d := newDepths(t)
					if c.fail {
						d.below.Fail = func(stratum.Plan) error { return fault.Unablef("there is no room for it") }
					}
					c.spec.Name = "web"
					env := d.run(c.spec)
					d.life.count.Lock()
					d.life.at, d.life.after = d.life.calls+at, after
					d.life.count.Unlock()
					done := make(chan struct{})
					go func() {
						defer close(done)
						_, _ = d.Engine.Move(context.Background(), "web", api.MoveRequest{Stratum: stratum.Guest})
					}()
					select {
					case <-done:
						came++
						d.settlesAtOne(env)
						continue
					case <-d.life.dead:
					}
					d.die()
					d.begin()
					where := d.settlesAtOne(env)
					if c.fail && where != stratum.Zone {
						t.Errorf("step %d, after %v: it is at %s, which cannot be", at, after, where)
					}
					if got := d.get("web"); len(got.Moves) > 0 && (got.Moves[len(got.Moves)-1].Failed != "") != c.fail {
						t.Errorf("step %d, after %v: %+v", at, after, got.Moves)
					}
				}
				if came == 2 {
					break
				}
				steps++
			}
			if steps < 3 {
				t.Errorf("only %d steps were seen: signal, clean and start are three", steps)
			}
		})
	}
}

// TestDaemonKilledAtRandomMomentsOfAMove does so by the clock, there and back.
func TestDaemonKilledAtRandomMomentsOfAMove(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	slowly := func(r *enginetest.Run) api.Exit {
		<-r.Signalled
		time.Sleep(3 * time.Millisecond)
		return api.Exit{}
	}
	d := newDepths(t)
	d.host.Program, d.below.Program = slowly, slowly
	d.host.Slow, d.below.Slow = 5*time.Millisecond, 5*time.Millisecond
	env := d.run(api.Spec{Name: "web"})
	seen := map[string]int{}
	for range 20 {
		from := d.get("web").Stratum
		to := stratum.Guest
		if from == to {
			to = stratum.Zone
		}
		e := d.Engine
		go func() { _, _ = e.Move(context.Background(), "web", api.MoveRequest{Stratum: to}) }()
		time.Sleep(time.Duration(random.IntN(20_000)) * time.Microsecond)
		d.die()
		d.begin()
		where := d.settlesAtOne(env)
		seen[fmt.Sprint("it moved: ", where == to)]++
	}
	t.Log(seen)
}
