package machine

import (
	"context"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/guestagent"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
)

// guest is what is known of qemu-guest-agent inside a foreign system.
type guest struct {
	agent *guestagent.Agent
	ready chan struct{} // closed once it has answered
	once  sync.Once

	mu    sync.Mutex // guards what follows, a leaf
	known *api.GuestAgent
	info  guestagent.Info
	execs int // programs under way
}

func newGuest(path string) *guest {
	return &guest{agent: guestagent.New(path), ready: make(chan struct{})}
}

// How often an agent is looked for that has never answered, and one that has.
const (
	guestLook  = 2 * time.Second
	guestAgain = 15 * time.Second
)

// guestPatience bounds one look. It is longer than an agent's time to answer, so that
// which of its answers was missing is known.
const guestPatience = 30 * time.Second

// listen looks for an agent, until the run ends or life.
func (f *Foreign) listen(life context.Context) {
	defer f.guest.agent.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.Over():
			return
		case <-life.Done():
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(life, guestPatience)
		f.look(ctx)
		cancel()
		wait := guestLook
		if f.Answers() != nil {
			wait = guestAgain
		}
		timer.Reset(wait)
	}
}

// look notes who answers. An agent that does not is none, but one that was asked for
// something else meanwhile, or that is paused, is what it was.
func (f *Foreign) look(ctx context.Context) {
	if f.Paused() {
		return
	}
	known, info := f.meet(ctx)
	g := f.guest
	g.mu.Lock()
	if known != nil || g.execs == 0 {
		g.known, g.info = known, info
	}
	g.mu.Unlock()
	if known != nil {
		g.once.Do(func() { close(g.ready) })
	}
}

// meet asks who is there; nil: nobody. Strata's own agent goes before another.
func (f *Foreign) meet(ctx context.Context) (known *api.GuestAgent, info guestagent.Info) {
	open := f.open(ctx)
	if open[machine.GuestLine] {
		agent := f.guest.agent
		var err error
		if info, err = agent.Info(ctx); err == nil {
			known = &api.GuestAgent{Kind: qemuAgent, Version: info.Version}
			// What an agent does not tell is not known: it may be old, or not be let.
			known.System, _ = agent.System(ctx)
			known.Addresses, _ = agent.Addresses(ctx)
		}
	}
	if !open[machine.ControlLine] || !open[machine.StreamsLine] {
		f.Leave()
		return known, info
	}
	if version, release, err := f.Look(ctx); err == nil {
		if known == nil {
			known = &api.GuestAgent{System: "Linux " + release}
		}
		known.Kind, known.Version = ownAgent, version
	}
	return known, info
}

// The kinds of agents.
const (
	qemuAgent = "qemu"
	ownAgent  = "strata"
)

// open asks QEMU which of its lines somebody inside has open.
func (f *Foreign) open(ctx context.Context) map[string]bool {
	var lines []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	open := map[string]bool{}
	if f.Execute(ctx, "query-chardev", nil, &lines) != nil {
		return open
	}
	for _, l := range lines {
		open[l.Label] = l.Open
	}
	return open
}

// settled tells whether strata's own agent was installed inside, and answers.
func (f *Foreign) settled() bool {
	a := f.Answers()
	return a != nil && a.Kind == ownAgent
}

// Answers implements stratum.Answering.
func (f *Foreign) Answers() *api.GuestAgent {
	if f.guest == nil {
		return nil
	}
	f.guest.mu.Lock()
	defer f.guest.mu.Unlock()
	return f.guest.known
}

// Awaits implements stratum.Answering.
func (f *Foreign) Awaits() bool { return f.guest != nil }

// Ready implements stratum.Live: of a system in which nobody can answer it is not known.
func (f *Foreign) Ready() <-chan struct{} {
	if f.guest == nil {
		return f.Live.Ready()
	}
	return f.guest.ready
}

// answering returns the agent, or says what would bring one.
func (f *Foreign) answering(ctx context.Context, what string) (*guestagent.Agent, error) {
	if f.guest == nil {
		return nil, noAgent(what)
	}
	if f.Paused() {
		return nil, fault.Conflictf("the system is paused, so nobody inside can answer").Help("resume it first")
	}
	if !f.open(ctx)[machine.GuestLine] {
		return nil, noAgent(what)
	}
	return f.guest.agent, nil
}

// does tells whether the agent has answered, and does a command.
func (f *Foreign) does(command string) bool {
	if f.guest == nil {
		return false
	}
	f.guest.mu.Lock()
	defer f.guest.mu.Unlock()
	return f.guest.known != nil && f.guest.info.Does(command)
}

// askToEnd has the agent switch the system off, and tells whether that has begun.
func (f *Foreign) askToEnd(ctx context.Context) bool {
	if f.Paused() || !f.does("guest-shutdown") {
		return false
	}
	err := f.guest.agent.Shutdown(ctx)
	if err != nil {
		f.log.Debug("an agent does not switch its system off", "id", f.ID, "err", err)
	}
	return err == nil
}

// writePatience is how long a system may take to write out what it has, before it is ended.
const writePatience = 2 * time.Second

// freeze has a system write out what it has, and tells whether it did.
func (f *Foreign) freeze(ctx context.Context) bool {
	if f.Paused() || !f.does("guest-fsfreeze-freeze") {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	_, err := f.guest.agent.Freeze(ctx)
	if err != nil {
		f.log.Debug("a system is ended that did not write out", "id", f.ID, "err", err)
	}
	return err == nil
}

// clockPatience bounds how long a system that goes on is waited for to set its clock.
const clockPatience = 5 * time.Second

// Resume implements stratum.Pauser: the clock stood still, and is set where somebody
// inside can.
func (f *Foreign) Resume(ctx context.Context) error {
	if err := f.Live.Resume(ctx); err != nil || f.settled() || !f.does("guest-set-time") {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, clockPatience)
	defer cancel()
	if err := f.guest.agent.SetTime(ctx, time.Now()); err != nil {
		f.log.Debug("a clock inside is not set", "id", f.ID, "err", err)
	}
	return nil
}

var _ stratum.Answering = (*Foreign)(nil)
