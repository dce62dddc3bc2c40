package price

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
)

// side answers at once with figures that are factor times the host's, and notes the order.
type side struct {
	name   string
	factor float64
	fail   string // a part that does not work
	hang   bool
	slow   time.Duration // each part takes this long
	log    *log
}

type log struct {
	sync.Mutex
	all  []string
	args []string // as they were given
	live int
	most int
}

func (l *log) add(text string, live int) {
	l.Lock()
	defer l.Unlock()
	l.all = append(l.all, text)
	l.live += live
	l.most = max(l.most, l.live)
}

func (s *side) Gauge(ctx context.Context, arg string, out io.Writer) error {
	name, _, _ := strings.Cut(arg, ":")
	s.log.add(s.name+" "+name, 0)
	s.log.Lock()
	s.log.args = append(s.log.args, arg)
	s.log.Unlock()
	if s.hang && name != "hello" {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(s.slow)
	if name == s.fail {
		return errors.New("it is broken")
	}
	for _, f := range figures {
		if f.part == name {
			v := 1000 * s.factor
			if f.more {
				v = 1000 / s.factor
			}
			fmt.Fprintf(out, "%s %f\n", f.name, v)
		}
	}
	return nil
}

func (*side) Address() string { return "" }
func (*side) Folder() string  { return "/f" }

type fakeSubject struct {
	side
	warm    bool
	stopped bool
	memory  int64
	took    time.Duration
}

func (s *fakeSubject) Took() time.Duration { return max(s.took, time.Millisecond) }
func (s *fakeSubject) Warm() bool          { return s.warm }
func (s *fakeSubject) Memory() (Held, error) {
	return Held{Processes: s.memory, Cache: s.memory / 5, Shared: -1}, nil
}
func (s *fakeSubject) Stop(context.Context) (time.Duration, error) {
	s.stopped = true
	return 2 * time.Millisecond, nil
}
func (s *fakeSubject) Discard() { s.log.add("discard", -1) }

func starting(l *log, change func(*fakeSubject)) func(context.Context, bool) (Subject, error) {
	return func(_ context.Context, cold bool) (Subject, error) {
		s := &fakeSubject{side: side{name: "inside", factor: 3, log: l}, warm: !cold, memory: 5 << 20}
		change(s)
		l.add("start", 1)
		return s, nil
	}
}

func byName(all []api.PriceFigure) map[string]api.PriceFigure {
	found := map[string]api.PriceFigure{}
	for _, f := range all {
		found[f.Name] = f
	}
	return found
}

// TestTheFirstRoundIsShort: it may be the last that there is time for.
func TestTheFirstRoundIsShort(t *testing.T) {
	l := &log{}
	host := &side{name: "host", factor: 1, log: l}
	if _, err := Measure(t.Context(), host, Stratum{Name: "zone", Start: starting(l, func(*fakeSubject) {})}, true, func(string) {}); err != nil {
		t.Fatal(err)
	}
	var cpu []string
	for _, arg := range l.args {
		if strings.HasPrefix(arg, "cpu:") {
			cpu = append(cpu, arg)
		}
	}
	if want := "cpu:33 cpu:33 cpu:100 cpu:100 cpu:100 cpu:100"; strings.Join(cpu, " ") != want {
		t.Errorf("took %v; want %s", cpu, want)
	}
}

func TestBothSidesAreMeasuredInTurn(t *testing.T) {
	l := &log{}
	var told []string
	all, err := Measure(t.Context(), &side{name: "host", factor: 1, log: l}, Stratum{"guest", starting(l, func(s *fakeSubject) {})}, true,
		func(what string) { told = append(told, what) })
	if err != nil {
		t.Fatal(err)
	}
	got := byName(all)
	for _, name := range []string{"cpu", "memory-access", "syscall", "process", "disk-write", "disk-fsync"} {
		if f := got[name]; f.Inside == nil || f.Host == nil || f.Inside.Count != quick.rounds || f.Times < 2.99 || f.Times > 3.01 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for name, median := range map[string]float64{Start: 1, StartWarm: 1, Stop: 2, Memory: 5, MemoryNext: 5, Cache: 1, CacheNext: 1} {
		if f := got[name]; f.Inside == nil || f.Inside.Median != median {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := got[latency]; f.Inside != nil || !strings.Contains(f.Why, "no network") {
		t.Errorf("a network that is not there: %+v", f)
	}
	if f := got[Kernel]; f.Inside != nil || f.Why == "" {
		t.Errorf("what the kernel does not tell: %+v", f)
	}
	order := strings.Join(l.all, ", ")
	for _, pair := range []string{"host cpu, inside cpu", "inside cpu, host cpu", "host disk, inside disk"} {
		if !strings.Contains(order, pair) {
			t.Errorf("%q is not in turn: %s", pair, order)
		}
	}
	if l.live != 0 || l.most != 2 {
		t.Errorf("%d left, %d at once", l.live, l.most)
	}
	if len(told) < quick.rounds {
		t.Errorf("told: %v", told)
	}
}

func TestWhatDoesNotWorkIsNotMeasuredAndSaysWhy(t *testing.T) {
	l := &log{}
	all, err := Measure(t.Context(), &side{name: "host", factor: 1, log: l}, Stratum{"zone", starting(l, func(s *fakeSubject) { s.fail = "disk" })}, true, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	got := byName(all)
	if f := got["disk-read"]; f.Inside != nil || f.Host != nil || f.Times != 0 || !strings.Contains(f.Why, "it is broken") {
		t.Errorf("disk: %+v", f)
	}
	if got["cpu"].Inside == nil || got[StartWarm].Name != "" && got[StartWarm].Inside != nil {
		t.Errorf("the rest: %+v", got)
	}
}

func TestAStratumThatDoesNotStartHasNoPrice(t *testing.T) {
	all, err := Measure(t.Context(), &side{log: &log{}}, Stratum{"zone", func(context.Context, bool) (Subject, error) { return nil, errors.New("no kernel") }}, true, func(string) {})
	if err == nil || err.Error() != "no kernel" {
		t.Errorf("error: %v", err)
	}
	for _, f := range all {
		if f.Inside != nil {
			t.Errorf("made up: %+v", f)
		}
	}
}

func TestWhatHangsEndsWithTheTime(t *testing.T) {
	l := &log{}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	begin := time.Now()
	all, err := Measure(ctx, &side{name: "host", factor: 1, log: l}, Stratum{"zone", starting(l, func(s *fakeSubject) { s.hang = true })}, true, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	got := byName(all)
	if f := got["cpu"]; f.Inside != nil || f.Why != timeUp {
		t.Errorf("cpu: %+v", f)
	}
	if got[Start].Inside == nil || l.live != 0 {
		t.Errorf("start: %+v, %d left", got[Start], l.live)
	}
}

// TestAFurtherOneComesBeforeMoreRounds: where there is time for one of the two, it is that
// of which nothing is known yet.
func TestAFurtherOneComesBeforeMoreRounds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	l := &log{}
	slow := func(s *fakeSubject) { s.slow, s.took = 100*time.Millisecond, 1200*time.Millisecond }
	all, err := Measure(ctx, &side{name: "host", factor: 1, slow: 100 * time.Millisecond, log: l}, Stratum{"machine", starting(l, slow)}, true, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	got := byName(all)
	if f := got[MemoryNext]; f.Inside == nil {
		t.Errorf("a further one was not measured: %s", f.Why)
	}
	if f := got["cpu"]; f.Inside == nil || f.Inside.Count == quick.rounds {
		t.Errorf("there was time for every round, so this shows nothing: %+v", f.Inside)
	}
}

func TestEveryStratumHasItsShareOfTheTime(t *testing.T) {
	for name, c := range map[string]struct {
		strata []string
		want   time.Duration
	}{
		"alone":                        {[]string{"zone"}, 45 * time.Second},
		"first of three":               {[]string{"zone", "guest", "machine"}, 10 * time.Second},
		"first of two":                 {[]string{"guest", "machine"}, 45 * time.Second * 3 / 7},
		"one that is not known, alone": {[]string{"cellar"}, 45 * time.Second},
	} {
		if got := Share(45*time.Second, c.strata); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestABudgetOfAQuickRunFitsIntoAMinute(t *testing.T) {
	var parts time.Duration
	for _, p := range quick.parts {
		parts += 2 * p.budget
	}
	if all := 3 * time.Duration(quick.rounds) * parts; all > Limit(true)/2 {
		t.Errorf("parts of three strata take %v of %v: nothing is left for starting", all, Limit(true))
	}
}
