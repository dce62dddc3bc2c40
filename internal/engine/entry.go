package engine

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// entry is one environment in memory. The order of its locks is op, saving, mu;
// see the package's comment.
type entry struct {
	key    string        // its id, for life
	made   time.Time     // when it was created, for life
	op     chan struct{} // holds one token while a transition is under way
	saving sync.Mutex    // one write of the record at a time
	kept   *idleRun      // with op: what the next request for files may use; nil: nothing

	mu         sync.Mutex
	rec        environment.Record // maps and slices in it are never changed, only replaced
	state      environment.State
	hidden     bool          // being made, or aside: its name is taken, but nobody sees it
	aside      bool          // its record cannot be used; never changed
	run        *run          // not nil while a driver has a run of it
	changed    chan struct{} // closed and replaced whenever something above changes
	ends       int           // how many runs have ended
	delay      time.Duration // the last one of the restart policy
	waiting    chan struct{} // while Waiting: closed to end the wait
	restarting int           // how many restarts and moves keep its claim
	goingOn    bool          // with op: the start under way goes on with what was suspended
	giveUp     func()        // ends the start under way, or due, which is nobody's move; nil: there is none
	unwanted   int           // how many wait for op to end what runs: a start, or what takes as long, that comes before them is given up
	again      int           // and of these, how many to start it at once: AutoRemove does not count
	moves      bool          // a move of it is being prepared
	copying    func()        // ends the run that copies files of a stopped environment
}

// run is one run of an environment. All but the channels is guarded by entry.mu.
type run struct {
	live      stratum.Live
	started   time.Time
	done      chan struct{} // closed when the run is over and what it left is cleaned
	up        bool          // as watchReady has found
	final     bool          // the restart policy is not to be asked
	suspended bool          // it ends because it is written down
	keep      bool          // it is to start again at once: AutoRemove does not count
	dropped   bool          // its disk was not written out, as nobody wanted it: keep comes too late
	looking   atomic.Bool   // somebody asks how much room it has; not guarded
	health    string        // "" without a check
	failing   int
}

func newEntry(rec environment.Record, state environment.State) *entry {
	return &entry{key: rec.ID, made: rec.Created, op: make(chan struct{}, 1), rec: rec, state: state, changed: make(chan struct{})}
}

// taken says that its name is not to be had. Kind: Conflict.
func (en *entry) taken(name string) error {
	err := fault.Conflictf("the name %s is taken by environment %s", name, en.id()).At("name")
	if en.aside {
		return err.Help("choose another name; its record cannot be used, and the daemon's log says why")
	}
	return err.Help("choose another name, or remove it: strata rm %s", name)
}

// lock takes the operation lock, and ends the idle run that was kept. Kinds: Busy where
// ctx's deadline passes first.
func (en *entry) lock(ctx context.Context) error {
	if err := en.share(ctx); err != nil {
		return err
	}
	en.endKept()
	return nil
}

// share is lock for who may use the idle run that was kept.
func (en *entry) share(ctx context.Context) error {
	select {
	case en.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case en.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "wait for the operation on %s that is under way", en.name())
	}
}

func (en *entry) unlock() { <-en.op }

// lockOver is lock for who ends the environment: starts that are under way or come before
// are given up. keep tells that another follows.
func (en *entry) lockOver(ctx context.Context, keep bool) error {
	en.do(func() {
		en.unwanted++
		if keep {
			en.again++
		}
		if en.giveUp != nil {
			en.giveUp()
		}
	})
	defer en.do(func() {
		en.unwanted--
		if keep {
			en.again--
		}
	})
	return en.lock(ctx)
}

// untilGivenUp is a context of a start, or of what takes as long, with op, that ends with
// ctx or where it is given up.
func (en *entry) untilGivenUp(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	en.do(func() {
		en.giveUp = cancel
		if en.unwanted > 0 {
			cancel()
		}
	})
	return ctx, func() {
		cancel()
		en.do(func() { en.giveUp = nil })
	}
}

func (en *entry) id() string { return en.key }

func (en *entry) name() string {
	en.mu.Lock()
	defer en.mu.Unlock()
	return en.rec.Name
}

// do changes the entry under its lock and wakes who waits for a change.
func (en *entry) do(change func()) {
	en.mu.Lock()
	defer en.mu.Unlock()
	change()
	en.wake()
}

// wake is called with mu held.
func (en *entry) wake() {
	close(en.changed)
	en.changed = make(chan struct{})
}

// move takes the entry to the state that event leads to; then, where it is not
// nil, is run under the lock if the move is legal. Kinds: Conflict.
func (en *entry) move(event environment.Event, then func()) error {
	en.mu.Lock()
	defer en.mu.Unlock()
	to, err := en.state.Next(event)
	if err != nil {
		return fault.Wrap(err, "environment %s", en.rec.Name)
	}
	en.state = to
	if then != nil {
		then()
	}
	en.wake()
	return nil
}

// snapshot returns a copy of the record.
func (en *entry) snapshot() environment.Record {
	en.mu.Lock()
	defer en.mu.Unlock()
	return en.rec
}

// notRunning refuses what takes an environment that runs.
func notRunning(name string, state environment.State, doing string) error {
	refusal := fault.Conflictf("environment %s is %s and not running, so nothing can be %s", name, state, doing)
	if state == environment.Starting || state == environment.Waiting {
		return refusal.Help("wait until it runs: strata wait --ready %s; or end the start: strata stop %[1]s", name)
	}
	return refusal.Help("start it first: strata start %s", name)
}

// current returns the run, or a Conflict that says what the environment is doing.
func (en *entry) current(doing string) (*run, error) {
	en.mu.Lock()
	defer en.mu.Unlock()
	if en.run == nil || !en.state.Live() {
		return nil, notRunning(en.rec.Name, en.state, doing)
	}
	if en.state == environment.Paused {
		return nil, fault.Conflictf("environment %s is paused, so nothing can be %s", en.rec.Name, doing).Help("resume it first: strata resume %s", en.rec.Name)
	}
	return en.run, nil
}

// until waits for a condition, which is asked with mu held.
func (en *entry) until(ctx context.Context, met func() bool) error {
	for {
		en.mu.Lock()
		ok, changed := met(), en.changed
		en.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// view returns the environment as users see it.
func (en *entry) view() api.Environment {
	en.mu.Lock()
	defer en.mu.Unlock()
	r := &en.rec
	v := api.Environment{
		ID: r.ID, Name: r.Name, State: en.state.Public(), Stratum: r.Stratum, Reason: r.Reason,
		Kind: r.Resolved.Kind, Template: r.Spec.Template, TemplateID: r.TemplateID, Spec: r.Spec,
		IDBase: r.IDBase, Network: r.Address, Exit: r.Exit, Restarts: r.Restarts, Created: r.Created,
		Command: r.Resolved.Args, Notes: r.Notes, LastFailure: r.LastFailure,
	}
	v.Moves, v.OOM = r.Moves, r.OOM
	for _, d := range r.Devices {
		if d.Card != nil {
			v.Cards = append(v.Cards, *d.Card)
		} else {
			v.Disks = append(v.Disks, *d.Disk)
		}
	}
	if r.Moving != nil {
		v.MovingTo = r.Moving.To.Stratum
		if en.state == environment.Stopped {
			v.State = api.Starting // or is about to be
		}
	}
	if !r.Started.IsZero() {
		started := r.Started
		v.Started = &started
	}
	if u := en.run; u != nil && en.state.Live() {
		v.PID, v.KeeperPID = u.live.PID(), u.live.KeeperPID()
		v.Health, v.Failing = u.health, u.failing
		if t, ok := u.live.(stratum.Troubled); ok {
			v.Trouble = t.Trouble()
		}
		if u.stalls() {
			v.Trouble = still
		}
		if a, ok := u.live.(stratum.Answering); ok {
			v.GuestAgent = a.Answers()
		}
		if b, ok := u.live.(stratum.Booter); ok {
			boot := b.Boot()
			v.Boot = &boot
		}
		up := u.up || r.Resolved.Kind == environment.App // which is up as soon as it runs
		if r.Resolved.Kind == environment.System {
			select {
			case <-u.live.Ready():
				up = true
			default:
			}
		}
		v.Ready = up && en.state == environment.Running && (u.health == "" || u.health == healthy)
	}
	return v
}

// find returns the environment that ref names: a name, an id, or the beginning of
// one id. Kinds: Missing, Invalid where several ids begin so.
func (e *Engine) find(ref string) (*entry, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if en := e.names[ref]; en != nil && en.visible() {
		return en, nil
	}
	if en := e.ids[ref]; en != nil && en.visible() {
		return en, nil
	}
	if environment.ValidPrefix(ref) {
		var found []*entry
		for id, en := range e.ids {
			if strings.HasPrefix(id, ref) && en.visible() {
				found = append(found, en)
			}
		}
		if len(found) > 1 {
			return nil, fault.Invalidf("%d ids begin with %q", len(found), ref).At("environment").Help("give more digits, or the name")
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	if len(ref) > 80 {
		ref = ref[:80] + "…"
	}
	return nil, fault.Missingf("there is no environment %q", ref).At("environment").Help("`strata ls --all` lists them")
}

func (en *entry) visible() bool {
	en.mu.Lock()
	defer en.mu.Unlock()
	return !en.hidden && en.state != environment.Gone
}
