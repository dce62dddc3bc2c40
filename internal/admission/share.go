package admission

import (
	"math"

	"github.com/strata-project/strata/internal/unit"
)

// Bounds of a weight, and the default. Source:
// Documentation/admin-guide/cgroup-v2.rst, cpu.weight.
const (
	minWeight     = 1
	maxWeight     = 10000
	defaultWeight = 100
)

// uneven is how much more weight one processor may hold than another before the
// kernel moves programs away from it. Source: kernel/sched/topology.c, sd_init,
// imbalance_pct.
const uneven = 1.17

// NoGuarantee stands for the kept memory of a group where nobody has a guarantee.
const NoGuarantee unit.Size = -1

// Share is what a control group gets beside its neighbours.
type Share struct {
	Weight int       // of processor time, 1 to 10000
	Memory unit.Size // kept for it; NoGuarantee
}

// Parts is what all environments get, and each of them within that.
type Parts struct {
	Own  Share
	Each map[string]Share // by id
}

// Rest is the share of who was told none.
func Rest() Share { return Share{defaultWeight, NoGuarantee} }

// Shares returns what the running get, whichever their strata are: their groups lie side
// by side, so that a weight means the same at every depth.
//
// An environment of weight r and guarantee g is given the weight r + g·u in the kernel,
// where u is the most that one processor can hold (see heaviest): of the one that it is
// on it gets at least (r+g·u)/u > g then. All weights are scaled together, and who has
// no guarantee keeps the weight it was given where the kernel's bounds allow it.
//
// Together they stand against the rest of the host with 100, or, where there are
// guarantees of processors, as the capacity stands against the reserve.
func Shares(h Host, running []Claim) Parts {
	sum := h.Total(running)
	weights := weigh(h, running, sum.CPUs)
	parts := Parts{Own: Rest(), Each: map[string]Share{}}
	if sum.CPUs > 0 {
		parts.Own.Weight = against(h)
	}
	kept := sum.Memory > 0
	if kept {
		parts.Own.Memory = 0
	}
	for i, c := range running {
		s := Share{Weight: weights[i], Memory: NoGuarantee}
		if kept {
			s.Memory = 0
			if c.Memory > 0 {
				s.Memory = c.memory()
			}
			parts.Own.Memory += s.Memory
		}
		parts.Each[c.ID] = s
	}
	return parts
}

// against is the weight of all environments beside the rest of the host, which stands
// for the reserve with the default; without a reserve it has what is left.
func against(h Host) int {
	w := defaultWeight * float64(h.CPUs-h.ReserveCPUs) / math.Max(float64(h.ReserveCPUs), 1)
	return whole(math.Max(w, defaultWeight), true)
}

// weigh returns the weights of the running, within the kernel's bounds: guarantees are
// what is kept where not all can be as it should.
func weigh(h Host, running []Claim, guaranteed unit.CPUs) []int {
	given, weights := make([]float64, len(running)), make([]int, len(running))
	for i, c := range running {
		given[i] = weight(c)
	}
	// What is scaled down stops at the least weight, and is more than its part then; so
	// the guarantees are worked out anew beside it, until nothing has to be scaled.
	for range rounds {
		u, most := heaviest(h, given, guaranteed), 0.0
		for i, c := range running {
			full := given[i] + cores(c.CPUs)*u
			weights[i], most = whole(full, c.CPUs > 0), math.Max(most, full)
		}
		if most <= maxWeight {
			break
		}
		for i := range given {
			given[i] = math.Max(minWeight, given[i]*maxWeight/most)
		}
	}
	return weights
}

// rounds bounds the search for weights within the kernel's bounds. It ends after two
// but where hundreds have the least weight.
const rounds = 8

// heaviest returns the most weight that the busy programs of one processor have
// together, when each environment has the weight r + g·u and u is what is returned.
//
// The kernel balances whole programs. It leaves processors alone whose weights are
// within the factor b (uneven) of each other, or where moving the lightest program of
// the heavier one would only turn the two around. So on the heaviest, with weight L, and
// a lightest program of m at most, each of the C-1 others has at least (L-m)/b; and as
// all have T together, T >= L + (C-1)(L-m)/b. T itself is R + G·u, the sums of given
// weights and of what guarantees add. With L = u that is
//
//	u = (b·R + (C-1)·m) / (C-1 + b - b·G)
//
// m is at most the largest given weight, unless guarantees are alone on a processor.
// There they divide it among themselves, which serves them all if they, and what they
// get by weight, fit on it; how programs are packed is not decided by weights.
//
// Where next to all of the host is guaranteed there is no such u: the kernel's
// unevenness alone can be more than what is left. The reserve is then what divides,
// with which guarantees hold where processors are even.
func heaviest(h Host, given []float64, guaranteed unit.CPUs) float64 {
	all, most := 0.0, 0.0
	for _, r := range given {
		all, most = all+r, math.Max(most, r)
	}
	others := math.Max(0, cores(h.CPUs)-1)
	b := uneven
	if others == 0 {
		b = 1 // nothing to balance with
	}
	left := others + b - b*cores(guaranteed)
	left = math.Max(left, math.Max(cores(h.ReserveCPUs), cores(h.CPUs)/100))
	return (b*all + others*most) / left
}

func weight(c Claim) float64 {
	if c.Weight == 0 {
		return defaultWeight
	}
	return float64(c.Weight)
}

func cores(n unit.CPUs) float64 { return float64(n) / 1000 }

// whole is w as the kernel takes it, rounded in favour of who has a guarantee.
func whole(w float64, up bool) int {
	if up {
		w = math.Ceil(w)
	}
	return int(math.Min(math.Max(w, minWeight), maxWeight))
}
