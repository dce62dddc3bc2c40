package price

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
)

// Side is where the measuring command runs: the host, or an environment.
type Side interface {
	// Gauge runs the measuring command with arg to its end, and writes what it says
	// to out. It ends with ctx.
	Gauge(ctx context.Context, arg string, out io.Writer) error
	Address() string // of its network, as the host reaches it; "": it has none
	Folder() string  // where disk is measured
}

// Subject is one environment that runs to be measured.
type Subject interface {
	Side
	Took() time.Duration // from nothing to the end of its first command
	Warm() bool          // it was started from a saved system
	Memory() (Held, error)
	// Stop asks its main program to end, waits until all is gone, and tells how long that took.
	Stop(ctx context.Context) (time.Duration, error)
	Discard() // ends it at once and removes what is left; after Stop it only removes
}

// Stratum is what is measured. Start makes and starts an environment that does
// nothing; cold asks for a boot where a saved system would do.
type Stratum struct {
	Name  string
	Start func(ctx context.Context, cold bool) (Subject, error)
}

// Limit is how long measuring takes at most, whatever hangs; what is left of it for
// ending what runs is not in it.
func Limit(quick bool) time.Duration {
	if quick {
		return 52 * time.Second
	}
	return 5 * time.Minute
}

// weights are how much of the time a stratum has, beside the others that are left.
var weights = map[string]int{"zone": 2, "guest": 3, "machine": 4}

// Share is how much of the time that is left the first of strata has; what it does not
// use is for those after it.
func Share(left time.Duration, strata []string) time.Duration {
	all := 0
	for _, at := range strata {
		all += weights[at]
	}
	if all == 0 {
		return left
	}
	return left * time.Duration(weights[strata[0]]) / time.Duration(all)
}

// effort is how much is measured.
type effort struct {
	rounds int
	starts map[string]int // by stratum
	parts  []part
}

// part is one part of the measuring command, and how long it measures.
type part struct {
	name   string
	budget time.Duration
}

var thorough = effort{rounds: 5, starts: map[string]int{"zone": 15, "guest": 5, "machine": 3}, parts: []part{
	{"cpu", 500 * time.Millisecond}, {"memory", 500 * time.Millisecond}, {"syscall", 200 * time.Millisecond},
	{"process", 500 * time.Millisecond}, {"disk", 2 * time.Second}, {"network", 1200 * time.Millisecond},
}}

var quick = effort{rounds: 3, starts: map[string]int{"zone": 5, "guest": 2, "machine": 2}, parts: []part{
	{"cpu", 100 * time.Millisecond}, {"memory", 100 * time.Millisecond}, {"syscall", 50 * time.Millisecond},
	{"process", 150 * time.Millisecond}, {"disk", 400 * time.Millisecond}, {"network", 300 * time.Millisecond},
}}

const (
	// settle is how long what has just started is left alone before its memory is read.
	settle = 500 * time.Millisecond
	// glimpse is how many times shorter the first round is: where each other one may be the
	// last that there is time for, as on an emulated processor of a busy host, every part is
	// to have been taken once.
	glimpse = 3
	// timeUp is why what came last was not measured.
	timeUp = "the time was up"
)

// meter measures one stratum.
type meter struct {
	*takings
	effort
	host Side
	of   Stratum
	end  time.Time
	tell func(what string)
}

// Measure measures one stratum against the bare host, for as long as ctx lets it, and
// tells what it is at. What could not be measured says why; err is set where no
// environment of it could be started at all.
func Measure(ctx context.Context, host Side, s Stratum, isQuick bool, tell func(what string)) ([]api.PriceFigure, error) {
	m := &meter{takings: newTakings(), effort: thorough, host: host, of: s, tell: tell}
	if isQuick {
		m.effort = quick
	}
	var ok bool
	if m.end, ok = ctx.Deadline(); !ok {
		m.end = time.Now().Add(Limit(isQuick))
	}
	err := m.run(ctx)
	return m.table(s.Name), err
}

func (m *meter) left() time.Duration { return time.Until(m.end) }

func (m *meter) run(ctx context.Context) error {
	m.tell("start")
	first, err := m.start(ctx, true)
	if err != nil {
		return err
	}
	defer first.Discard()
	alone := m.idle(ctx, first)
	m.rounds(ctx, first, further(first))
	m.second(ctx, first, alone)
	m.stop(ctx, first)
	for n := len(m.inside[Start]) + len(m.inside[StartWarm]); n < m.starts[m.of.Name] && m.left() > 3*first.Took(); n++ {
		m.tell(fmt.Sprintf("start %d of %d", n+1, m.starts[m.of.Name]))
		more, err := m.start(ctx, false)
		if err != nil {
			break // one was started, so this says nothing of the stratum
		}
		m.stop(ctx, more)
		more.Discard()
	}
	return nil
}

// start starts one environment, and the same command on the host.
func (m *meter) start(ctx context.Context, cold bool) (Subject, error) {
	s, err := m.of.Start(ctx, cold)
	if err != nil {
		return nil, err
	}
	name := Start
	if s.Warm() {
		name = StartWarm
	}
	begin := time.Now()
	if m.host.Gauge(ctx, "hello:1", io.Discard) == nil {
		m.outside[name] = append(m.outside[name], ms(time.Since(begin)))
	}
	m.inside[name] = append(m.inside[name], ms(s.Took()))
	return s, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (m *meter) stop(ctx context.Context, s Subject) {
	took, err := s.Stop(ctx)
	if err != nil {
		m.why[Stop] = m.because(ctx, err)
		return
	}
	m.inside[Stop] = append(m.inside[Stop], ms(took))
}

// idle reads what one environment holds when it does nothing.
func (m *meter) idle(ctx context.Context, s Subject) Held {
	m.tell("memory")
	wait(ctx, settle)
	held, err := s.Memory()
	if err != nil {
		for _, name := range []string{Memory, Kernel, Cache, CacheShared} {
			m.why[name] = err.Error()
		}
		return held
	}
	m.inside[Memory] = append(m.inside[Memory], float64(held.Processes))
	m.known(Kernel, held.Kernel, held.Kernel > 0, untold)
	m.known(Cache, held.Cache, held.Cache >= 0, untold)
	m.known(CacheShared, held.Shared, held.Shared >= 0, "this host's kernel does not tell what it caches of a file (Linux 6.5 does)")
	return held
}

// untold is why what the kernel holds is not known.
const untold = "this host's control groups do not tell"

// known takes a figure that was read, or why it could not be.
func (m *meter) known(name string, bytes int64, told bool, why string) {
	if !told {
		m.why[name] = why
		return
	}
	m.inside[name] = append(m.inside[name], float64(bytes))
}

// further is the time that is kept for one beside first: to start it, perhaps slower on a
// host that is busier by then, to read its memory, and to stop it.
func further(first Subject) time.Duration { return 3*first.Took()/2 + 3*settle }

// second starts another one beside the first, for what a further one costs.
func (m *meter) second(ctx context.Context, first Subject, alone Held) {
	m.why[MemoryNext], m.why[CacheNext] = timeUp, timeUp
	if m.left() < first.Took()+settle {
		return
	}
	m.tell("a second one")
	other, err := m.start(ctx, false)
	if err != nil {
		m.why[MemoryNext] = m.because(ctx, err)
		m.why[CacheNext] = m.why[MemoryNext]
		return
	}
	defer other.Discard()
	wait(ctx, settle)
	a, err := first.Memory()
	b, err2 := other.Memory()
	switch more := a.Processes + b.Processes - alone.Processes; {
	case err != nil || err2 != nil || alone.Processes == 0:
		m.why[MemoryNext] = "the memory of its processes cannot be read"
	case more <= 0:
		m.why[MemoryNext] = "the first one gave memory back meanwhile"
	default:
		m.inside[MemoryNext] = append(m.inside[MemoryNext], float64(more))
	}
	m.known(CacheNext, b.Cache, err2 == nil && b.Cache >= 0, untold)
	m.stop(ctx, other)
}

// rounds takes all parts on both sides in turn, as often as the effort says and the
// time lets it. What a further one costs is worth more than a second taking of what is
// known: rounds after the first leave the time that is to be kept for it.
func (m *meter) rounds(ctx context.Context, s Subject, keep time.Duration) {
	var cost time.Duration // of the last round
	for round := range m.effort.rounds {
		if round > 0 && m.left() < cost+keep {
			return
		}
		m.tell(fmt.Sprintf("round %d of %d", round+1, m.effort.rounds))
		begin := time.Now()
		for _, p := range m.parts {
			if m.why[p.name] != "" {
				continue // it did not work before
			}
			if round == 0 {
				p.budget /= glimpse
			}
			if m.left() < 2*p.budget {
				m.why[p.name] = timeUp
				continue
			}
			m.pair(ctx, s, p, round%2 == 1)
		}
		cost = time.Since(begin)
	}
}

// pair takes one part on both sides, one right after the other.
func (m *meter) pair(ctx context.Context, s Subject, p part, insideFirst bool) {
	sides := []Side{m.host, s}
	if insideFirst {
		sides = []Side{s, m.host}
	}
	var inside, host map[string]float64
	for _, side := range sides {
		got, err := take(ctx, side, p)
		if err != nil {
			m.why[p.name] = m.because(ctx, err)
			return
		}
		if side == m.host {
			host = got
		} else {
			inside = got
		}
	}
	for name, v := range inside {
		if b, both := host[name]; both {
			m.inside[name] = append(m.inside[name], v)
			m.outside[name] = append(m.outside[name], b)
		}
	}
}

// take takes one part on one side.
func take(ctx context.Context, side Side, p part) (map[string]float64, error) {
	if p.name == "network" {
		return network(ctx, side, p.budget)
	}
	arg := fmt.Sprintf("%s:%d", p.name, p.budget.Milliseconds())
	if p.name == "disk" {
		arg += ":" + side.Folder()
	}
	said := bytes.Buffer{}
	if err := side.Gauge(ctx, arg, &bounded{&said, maxSaid}); err != nil {
		return nil, err
	}
	return parse(&said, func(name string) bool { f := named(name); return f != nil && f.part == p.name })
}

// because says why something was not measured.
func (m *meter) because(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return timeUp
	}
	return strings.ToValidUTF8(err.Error(), "?")
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// bounded lets only so many bytes through.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, io.ErrShortWrite
	}
	b.left -= len(p)
	return b.w.Write(p)
}
