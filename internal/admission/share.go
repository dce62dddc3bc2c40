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

// surplus makes up for that the kernel divides the time of each processor by weight,
// and moves programs between processors only roughly so. Seen with 2 processors,
// one program guaranteed 0.5 against eight of twice its weight: 0.40 without it,
// where 0.59 would be its part; 0.66 with it. Other cases were not measured. However
// large it is, every guarantee is served: they are at most the host's, and divide it
// among them; who has none gets less than its exact part of the rest.
const surplus = 2

// NoGuarantee stands for the kept memory of a group where nobody has a guarantee.
const NoGuarantee unit.Size = -1

// Share is what a control group gets beside its neighbours.
type Share struct {
	Weight int       // of processor time, 1 to 10000
	Memory unit.Size // kept for it; NoGuarantee
}

// Part is what the environments of one stratum get, which have a group above them
// in common.
type Part struct {
	Own  Share
	Each map[string]Share // by id
}

// Rest is the part of a stratum at which nothing runs.
func Rest() Part { return Part{Own: Share{defaultWeight, NoGuarantee}} }

// Shares returns what the running get, by stratum.
//
// Where all want processors, an environment of weight w and guarantee g is to get
// g + (C-G)·w/W: its guarantee, and its part of what is left of the host's C
// when all guarantees (G) are served; W is the sum of weights. The kernel divides
// by weight alone, so that is what the weights are made proportional to. They are
// multiplied by W/(C-G), so that who has no guarantee keeps the weight it was given.
// C-G is never below the reserve, as G never passes the capacity. A guarantee's part
// of the weight is taken twice: see surplus.
//
// A stratum's own group gets the sum of those in it, so that weights mean the same
// across strata. Together they stand against the rest of the host with 100 for each
// stratum, or, where there are guarantees, as the capacity stands against the reserve.
func Shares(h Host, running []Claim) map[string]Part {
	sum := h.Total(running)
	weights, all := map[string]float64{}, 0.0
	for _, c := range running {
		all += weight(c)
	}
	left := math.Max(float64(h.CPUs-sum.CPUs), math.Max(float64(h.ReserveCPUs), float64(h.CPUs)/100))
	most := 0.0
	for _, c := range running {
		w := weight(c)
		if left > 0 {
			w += surplus * float64(c.CPUs) * all / left
		}
		weights[c.ID] = w
		most = math.Max(most, w)
	}
	scale := math.Min(1, maxWeight/math.Max(most, 1))
	parts, owns := map[string]Part{}, map[string]float64{}
	kept := sum.Memory > 0
	for _, c := range running {
		p, ok := parts[c.Stratum]
		if !ok {
			p = Part{Own: Share{Memory: NoGuarantee}, Each: map[string]Share{}}
			if kept {
				p.Own.Memory = 0
			}
		}
		owns[c.Stratum] += weights[c.ID]
		s := Share{Weight: bounded(weights[c.ID] * scale), Memory: NoGuarantee}
		if kept {
			s.Memory = 0
			if c.Memory > 0 {
				s.Memory = c.memory()
			}
			p.Own.Memory += s.Memory
		}
		p.Each[c.ID], parts[c.Stratum] = s, p
	}
	level(h, parts, owns, sum.CPUs > 0)
	return parts
}

// level gives the strata's own groups their weights.
func level(h Host, parts map[string]Part, owns map[string]float64, guaranteed bool) {
	together := float64(defaultWeight * len(parts))
	if reserve := float64(h.ReserveCPUs); guaranteed && reserve > 0 {
		together = math.Max(together, defaultWeight*float64(h.CPUs-h.ReserveCPUs)/reserve)
	}
	total := 0.0
	for _, own := range owns {
		total += own
	}
	for at, p := range parts {
		p.Own.Weight = bounded(owns[at] / total * math.Min(together, maxWeight))
		parts[at] = p
	}
}

func weight(c Claim) float64 {
	if c.Weight == 0 {
		return defaultWeight
	}
	return float64(c.Weight)
}

func bounded(w float64) int { return int(math.Min(math.Max(math.Round(w), minWeight), maxWeight)) }
