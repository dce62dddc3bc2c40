package admission

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

// busy is an environment all of whose programs want a processor.
type busy struct {
	Claim
	programs int
	weight   float64 // of each program
}

// placement is what processor each program is on, and what that gives.
type placement struct {
	all   []busy
	count int     // of processors
	on    [][]int // indexes into all, by processor
	held  []float64
}

func (p *placement) put(at, who int) {
	p.on[at], p.held[at] = append(p.on[at], who), p.held[at]+p.all[who].weight
}

func (p *placement) take(at, who int) {
	p.on[at], p.held[at] = p.on[at][:len(p.on[at])-1], p.held[at]-p.all[who].weight
}

// stays tells whether the kernel would leave it: see heaviest.
func (p *placement) stays() bool {
	for a, on := range p.on {
		lightest := math.Inf(1)
		for _, who := range on {
			lightest = math.Min(lightest, p.all[who].weight)
		}
		for b := range p.on {
			if p.held[a] > uneven*p.held[b] && p.held[a]-p.held[b] > lightest {
				return false
			}
		}
	}
	return true
}

// fits tells whether what is guaranteed on a processor where nothing else is leaves
// room for what comes by weight, which weights do not decide.
func (p *placement) fits(u float64) bool {
	for a, on := range p.on {
		alone := true
		for _, who := range on {
			alone = alone && p.all[who].CPUs > 0
		}
		if alone && len(on) > 1 && p.held[a] > u {
			return false
		}
	}
	return true
}

// got is what who has of all processors.
func (p *placement) got(who int) (sum float64) {
	for a, on := range p.on {
		for _, other := range on {
			if other == who {
				sum += p.all[who].weight / p.held[a]
			}
		}
	}
	return sum
}

// each calls see for all placements of the programs that are not placed yet.
func (p *placement) each(rest []int, see func()) {
	if len(rest) == 0 {
		see()
		return
	}
	for at := range p.count {
		p.put(at, rest[0])
		p.each(rest[1:], see)
		p.take(at, rest[0])
		if len(p.on[at]) == 0 {
			return // the other empty processors are the same
		}
	}
}

// crowd makes environments up whose guarantees the host has, with nine programs at most.
func crowd(r *rand.Rand, h Host) (all []busy) {
	left, programs := float64(h.CPUs), 0
	// What the theorem of heaviest holds for.
	left = math.Min(left-float64(h.ReserveCPUs), 1000*(cores(h.CPUs)-1+uneven-cores(h.ReserveCPUs))/uneven)
	for i := 0; programs < 9 && i < 2+r.IntN(8); i++ {
		b := busy{programs: min(1+r.IntN(3)*r.IntN(2), 9-programs)}
		b.Claim = Claim{ID: fmt.Sprint(i), Stratum: []string{"zone", "guest", "machine"}[r.IntN(3)]}
		switch r.IntN(3) {
		case 0:
			b.Weight = 1 + r.IntN(maxWeight)
		case 1:
			b.Weight = 1 + r.IntN(300)
		}
		if r.IntN(3) == 0 {
			b.CPUs = min(unit.CPUs(10+r.IntN(1000*b.programs)), unit.CPUs(left))
			left -= float64(b.CPUs)
		}
		programs += b.programs
		all = append(all, b)
	}
	return all
}

// TestAGuaranteeHoldsWhereverTheKernelLeavesPrograms makes neighbours up and looks at
// each placement of all their programs that the kernel's balancing would leave alone.
func TestAGuaranteeHoldsWhereverTheKernelLeavesPrograms(t *testing.T) {
	looked, wrong := 0, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := Host{CPUs: unit.CPUs(1000 * (1 + r.IntN(4))), Memory: giB}
		h.ReserveCPUs = max(h.CPUs/20, 100)
		p := &placement{all: crowd(r, h), count: int(h.CPUs / 1000)}
		p.on, p.held = make([][]int, p.count), make([]float64, p.count)
		u, programs := p.weigh(h)
		p.each(programs, func() {
			if !p.stays() || !p.fits(u) {
				return
			}
			looked++
			for i, b := range p.all {
				want := math.Min(cores(b.CPUs), float64(b.programs))
				// Weights are whole numbers.
				if got := p.got(i); got < 0.99*want {
					if wrong++; wrong < 5 {
						t.Errorf("seed %d, %s processors: %s is guaranteed %s and gets %.3f with %v of %+v", seed, h.CPUs, b.ID, b.CPUs, got, p.on, p.all)
					}
				}
			}
		})
	}
	t.Logf("%d placements", looked)
	if looked < 10000 {
		t.Errorf("only %d placements were looked at", looked)
	}
}

// weigh gives all programs the weight that they have on the host through their groups,
// and returns the most that a processor can hold of them, and the programs.
func (p *placement) weigh(h Host) (u float64, programs []int) {
	var claims []Claim
	for _, b := range p.all {
		claims = append(claims, b.Claim)
	}
	parts := Shares(h, claims)
	var given []float64
	for i := range p.all {
		b := &p.all[i]
		b.weight = float64(parts.Each[b.ID].Weight) / float64(b.programs)
		given = append(given, weight(b.Claim))
		for range b.programs {
			programs = append(programs, i)
		}
	}
	raw, full, held := heaviest(h, given, h.Total(claims).CPUs), 0.0, 0.0
	for i, b := range p.all {
		full += given[i] + cores(b.CPUs)*raw
		held += b.weight * float64(b.programs)
	}
	return raw * held / full, programs
}
