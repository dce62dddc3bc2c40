package admission

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

const giB = unit.Size(unit.GiB)

var small = Host{Memory: 8 * giB, CPUs: 4000, ReserveMemory: giB, ReserveCPUs: 500}

func claim(id string, memory unit.Size, cpus unit.CPUs) Claim {
	return Claim{ID: id, Name: id, Stratum: "zone", Memory: memory, CPUs: cpus, Overhead: unit.MiB}
}

func TestWhatWouldBreakAGuaranteeIsRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		held  []Claim
		asks  Claim
		field string // "": it is taken
		says  string
	}{
		{"what fits", nil, claim("a", 6*giB, 3500), "", ""},
		{"all of the capacity leaves nothing for the overhead", nil, claim("a", 7*giB, 0), "resources.memory_guarantee", "of 7G (8G less a reserve of 1G)"},
		{"more processors than there are", nil, claim("a", 0, 3501), "resources.cpu_guarantee", "0 guaranteed + 3.501 asked for = 3.501, of 3.5 (4 less a reserve of 0.5)"},
		{"the sum counts", []Claim{claim("b", 4*giB, 0), claim("c", 2*giB, 0)}, claim("a", 2*giB, 0), "resources.memory_guarantee", "6G guaranteed (b 4G, c 2G)"},
		{"overhead of what has no guarantee counts where there is one", []Claim{claim("b", 7*giB-unit.MiB, 0)}, claim("a", 0, 0), "resources.memory_guarantee", "1M of strata's own for it"},
		{"without any guarantee there is none to break", []Claim{{ID: "b", Overhead: 9 * giB}}, Claim{ID: "a", Overhead: 9 * giB}, "", ""},
		{"a lower claim is taken even where there is no room", []Claim{claim("b", 9*giB, 9000), claim("a", 2*giB, 1000)}, claim("a", giB, 500), "", ""},
		{"a higher one is not", []Claim{claim("b", 5*giB, 0), claim("a", giB, 0)}, claim("a", 2*giB, 0), "resources.memory_guarantee", "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(small)
			for _, h := range c.held {
				b.Restore(h)
			}
			err := b.Take(c.asks)
			if c.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			all := fault.All(err)
			if len(all) != 1 || all[0].Kind != fault.Full || all[0].Field != c.field || !strings.Contains(all[0].Message+all[0].Hint, c.says) {
				t.Errorf("Take = %v; want a fault at %s that says %q", err, c.field, c.says)
			}
		})
	}
}

func TestAdviceNamesWhoAloneMakesRoom(t *testing.T) {
	b := New(small)
	b.Restore(claim("big", 4*giB, 0))
	b.Restore(claim("tiny", giB/4, 0))
	all := fault.All(b.Take(claim("a", 4*giB, 0)))
	if len(all) != 1 || !strings.Contains(all[0].Hint, "stop one of big (4G)") || strings.Contains(all[0].Hint, "tiny") || !strings.Contains(all[0].Hint, "lower --memory-guarantee") {
		t.Errorf("hint of %v", all)
	}
}

func TestAdviceIsToWaitForWhatCanCome(t *testing.T) {
	for _, c := range []struct {
		name  string
		held  []Claim
		asks  Claim
		waits bool
	}{
		{"others have it", []Claim{claim("b", 0, 3000)}, claim("a", 0, 1000), true},
		{"others have it, and it runs", []Claim{claim("b", 5*giB, 0), claim("a", giB, 0)}, claim("a", 2*giB, 0), true},
		{"more processors than there are", nil, claim("a", 0, 3501), false},
		{"more memory than there is", []Claim{claim("b", giB, 0)}, claim("a", 7*giB, 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(small)
			for _, h := range c.held {
				b.Restore(h)
			}
			all := fault.All(b.Take(c.asks))
			if len(all) != 1 || strings.Contains(all[0].Hint, "wait with --queue") != c.waits {
				t.Errorf("Take = %+v; want that it is to wait: %v", all, c.waits)
			}
		})
	}
}

func TestLimitsMayPassTheCapacityByTheRatio(t *testing.T) {
	h := small
	h.OvercommitMemory = 1.5
	b := New(h)
	limited := func(id string, limit unit.Size) Claim { return Claim{ID: id, Name: id, MemoryLimit: limit} }
	for _, c := range []Claim{limited("a", 5*giB), limited("b", 5*giB)} {
		if err := b.Take(c); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []Claim{limited("c", giB), limited("c", 0), limited("a", 6*giB), limited("b", 0)} {
		if err := b.Take(c); !fault.Is(err, fault.Full) {
			t.Errorf("%s of %s = %v; want it refused", c.MemoryLimit, c.ID, err)
		}
	}
	if err := b.Take(limited("a", 4*giB)); err != nil {
		t.Errorf("a lower limit: %v", err)
	}
}

func TestWaitingIsInOrderAndCanBeEnded(t *testing.T) {
	b := New(small)
	b.Restore(claim("a", 6*giB, 0))
	if err := b.Wait(t.Context(), claim("never", 9*giB, 0)); !fault.Is(err, fault.Full) {
		t.Errorf("what can never fit waits: %v", err)
	}
	order, ends := make(chan string, 3), make(chan error, 1)
	begin := func(ctx context.Context, id string, n int, ended func(error)) {
		go func() { ended(b.Wait(ctx, claim(id, 3*giB, 0))) }()
		until(t, func() bool { _, w := b.Claims(); return len(w) == n })
	}
	note := func(id string) func(error) {
		return func(err error) {
			if err == nil {
				order <- id
			}
		}
	}
	short, cancel := context.WithCancel(t.Context())
	begin(t.Context(), "first", 1, note("first"))
	begin(short, "leaves", 2, func(err error) { ends <- err })
	begin(t.Context(), "second", 3, note("second"))
	cancel()
	if err := <-ends; err == nil {
		t.Error("a wait whose context ended took its claim")
	}
	b.Give("a")
	<-order
	<-order
	if held, waiting := b.Claims(); len(held) != 2 || len(waiting) != 0 {
		t.Errorf("held %v, waiting %v; want both taken", held, waiting)
	}
}

func TestWhatRunsWaitsForMoreAndGivesNothingBack(t *testing.T) {
	b := New(small)
	b.Restore(claim("a", 6*giB, 0))
	b.Restore(claim("runs", giB, 1000))
	done := make(chan error, 1)
	go func() { done <- b.Wait(t.Context(), claim("runs", 4*giB, 0)) }()
	until(t, func() bool { _, w := b.Claims(); return len(w) == 1 })
	if err := b.Take(claim("runs", giB, 1500)); err != nil { // a change meanwhile
		t.Fatal(err)
	}
	b.Give("a")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	held, _ := b.Claims()
	if len(held) != 1 || held[0].Memory != 4*giB || held[0].CPUs != 1500 {
		t.Errorf("held %+v; want what it waited for beside what it had", held)
	}
}

func TestWhoWaitedInVainIsToldWhatWasMissing(t *testing.T) {
	b := New(small)
	b.Restore(claim("a", 6*giB, 0))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := b.Wait(ctx, claim("late", 2*giB, 0))
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "no room in time") || !strings.Contains(err.Error(), "(a 6G)") || !strings.Contains(fault.All(err)[0].Hint, "wait longer (--queue=TIME)") {
		t.Errorf("Wait = %v", err)
	}
}

func TestTheFirstThatWaitsHoldsUpTheOthers(t *testing.T) {
	b := New(small)
	b.Restore(claim("a", 6*giB, 0))
	go func() { _ = b.Wait(t.Context(), claim("big", 6*giB, 0)) }()
	until(t, func() bool { _, w := b.Claims(); return len(w) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Wait(ctx, claim("small", giB/2, 0)); !fault.Is(err, fault.Busy) {
		t.Errorf("Wait = %v; want that it stands in line until its time is over", err)
	}
	if err := b.Take(claim("small", giB/2, 0)); err != nil {
		t.Errorf("what does not wait and fits is refused: %v", err)
	}
}

func until(t *testing.T, met func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

func TestAReserveTakesNothingThatIsGuaranteed(t *testing.T) {
	b := New(small) // 4 processors, 0.5 of them reserved
	if err := b.Take(claim("a", 0, 3000)); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- b.Wait(t.Context(), claim("b", 0, 1000)) }()
	until(t, func() bool { _, w := b.Claims(); return len(w) == 1 })
	for _, c := range []struct{ asked, want unit.CPUs }{{700, 700}, {2000, 1000}, {5000, 1000}} {
		if got := b.KeepCPUs(c.asked); got != c.want || b.Host().ReserveCPUs != c.want {
			t.Errorf("of %s asked for, %s is kept, want %s", c.asked, got, c.want)
		}
	}
	if err := b.Take(claim("a", 0, 3001)); !fault.Is(err, fault.Full) {
		t.Errorf("a guarantee beyond the reserve = %v", err)
	}
	if b.KeepCPUs(0); <-waited != nil {
		t.Error("what waited was not served when the reserve fell")
	}
}

// TestNoSequenceBreaksAGuarantee lets many ask, change, wait and give back at the
// same time, the reserve change, and looks at the sum at every moment.
func TestNoSequenceBreaksAGuarantee(t *testing.T) {
	for seed := range uint64(5) {
		b := New(small)
		stop := make(chan struct{})
		var watch, work sync.WaitGroup
		watch.Go(func() {
			for {
				b.mu.Lock()
				held := b.sorted("")
				s := b.host.Total(held)
				memory, cpus := b.host.Capacity()
				b.mu.Unlock()
				if s.Memory > 0 && s.Memory+s.Overhead > memory || s.CPUs > cpus {
					t.Errorf("seed %d: the sum is %+v of %s and %s: %+v", seed, s, memory, cpus, held)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		for worker := range uint64(8) {
			work.Go(func() {
				r := rand.New(rand.NewPCG(seed, worker))
				for range 300 {
					c := claim(fmt.Sprint(r.IntN(12)), unit.Size(r.Int64N(int64(4*giB))), unit.CPUs(r.Int64N(2500)))
					if r.IntN(4) == 0 {
						c.Memory = 0
					}
					switch r.IntN(5) {
					case 4:
						b.KeepCPUs(unit.CPUs(r.Int64N(2000)))
					case 0:
						b.Give(c.ID)
					case 1:
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(300))*time.Microsecond)
						_ = b.Wait(ctx, c)
						cancel()
					default:
						_ = b.Take(c)
					}
				}
			})
		}
		work.Wait()
		close(stop)
		watch.Wait()
		for i := range 12 {
			b.Give(fmt.Sprint(i))
		}
		if held, waiting := b.Claims(); len(held)+len(waiting) != 0 {
			t.Errorf("seed %d: %v and %v are left", seed, held, waiting)
		}
	}
}

func TestSharesServeGuaranteesFirst(t *testing.T) {
	h := Host{Memory: 8 * giB, CPUs: 2000, ReserveCPUs: 100, ReserveMemory: giB}
	busy := func(n int, weight int) (all []Claim) {
		for i := range n {
			all = append(all, Claim{ID: fmt.Sprint("n", i), Stratum: []string{"zone", "guest"}[i%2], Weight: weight})
		}
		return all
	}
	for _, c := range []struct {
		name  string
		all   []Claim
		least map[string]float64 // processors where all want some
		exact map[string]int     // weights
	}{
		{"weights alone stay as they were given", []Claim{{ID: "a", Stratum: "zone", Weight: 300}, {ID: "b", Stratum: "zone"}}, map[string]float64{"a": 1.49, "b": 0.49}, map[string]int{"a": 300, "b": 100}},
		{"weights mean the same across strata", []Claim{{ID: "a", Stratum: "zone", Weight: 300}, {ID: "b", Stratum: "guest"}}, map[string]float64{"a": 1.49, "b": 0.49}, nil},
		{"half a processor against eight", append(busy(8, 0), Claim{ID: "a", Stratum: "zone", CPUs: 500}), map[string]float64{"a": 0.5, "n0": 0.13}, map[string]int{"n0": 100}},
		{"a guarantee against hundreds of the largest weight", append(busy(300, 10000), Claim{ID: "a", Stratum: "machine", CPUs: 1000, Weight: 1}), map[string]float64{"a": 0.99}, nil},
		{"all that there is", append(busy(8, 0), Claim{ID: "a", Stratum: "zone", CPUs: 1900}), map[string]float64{"a": 1.88}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts := Shares(h, c.all)
			sum := 0
			for _, s := range parts.Each {
				sum += s.Weight
			}
			for id, least := range c.least {
				if got := 2 * float64(parts.Each[id].Weight) / float64(sum); got < least {
					t.Errorf("%s gets %.3f processors of what strata has; want at least %g (%+v)", id, got, least, parts)
				}
			}
			for id, want := range c.exact {
				if got := parts.Each[id].Weight; got != want {
					t.Errorf("%s has weight %d, want %d", id, got, want)
				}
			}
			if top := map[bool]int{true: 1900, false: 100}[h.Total(c.all).CPUs > 0]; parts.Own.Weight != top {
				t.Errorf("all together stand with %d against the host, want %d", parts.Own.Weight, top)
			}
		})
	}
}

func TestSharesKeepMemoryOnlyWhereThereIsAGuarantee(t *testing.T) {
	a, b := claim("a", giB, 0), claim("b", 0, 0)
	parts := Shares(small, []Claim{b})
	if p := parts; p.Own.Memory != NoGuarantee || p.Each["b"].Memory != NoGuarantee {
		t.Errorf("without a guarantee: %+v", p)
	}
	parts = Shares(small, []Claim{a, b})
	if p := parts; p.Own.Memory != giB+unit.MiB || p.Each["a"].Memory != giB+unit.MiB || p.Each["b"].Memory != 0 {
		t.Errorf("with one: %+v", p)
	}
}
