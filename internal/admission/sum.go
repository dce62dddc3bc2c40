package admission

import (
	"fmt"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Sum is what claims come to.
type Sum struct {
	Memory   unit.Size // guaranteed
	Overhead unit.Size
	CPUs     unit.CPUs // guaranteed
	// Limits together; what has none counts as the whole capacity.
	MemoryLimits unit.Size
	CPULimits    unit.CPUs
}

// Total adds claims up.
func (h Host) Total(claims []Claim) Sum {
	var s Sum
	memory, cpus := h.Capacity()
	for _, c := range claims {
		s.Memory, s.Overhead, s.CPUs = s.Memory+c.Memory, s.Overhead+c.Overhead, s.CPUs+c.CPUs
		s.MemoryLimits += orAll(c.MemoryLimit, memory)
		s.CPULimits += orAll(c.CPULimit, cpus)
	}
	return s
}

func orAll[T ~int64](limit, all T) T {
	if limit == 0 {
		return all
	}
	return limit
}

// fits tells why c cannot be added. What asks for no more than it has of a
// resource is not refused for it.
func (b *Book) fits(c Claim) error {
	others := b.sorted(c.ID)
	now := b.host.Total(append(others[:len(others):len(others)], c))
	had := b.claims[c.ID]
	memory, cpus := b.host.Capacity()
	var errs []error
	if now.Memory > 0 && now.Memory+now.Overhead > memory && (c.memory() > had.memory() || c.Memory > had.Memory) {
		errs = append(errs, b.noMemory(c, now, others))
	}
	if now.CPUs > cpus && c.CPUs > had.CPUs {
		errs = append(errs, b.noCPUs(c, now, others))
	}
	_, renewed := b.claims[c.ID]
	more := func(asked, before int64) bool { return !renewed || before != 0 && (asked == 0 || asked > before) }
	if r := b.host.OvercommitMemory; r > 0 && float64(now.MemoryLimits) > r*float64(memory) && more(int64(c.MemoryLimit), int64(had.MemoryLimit)) {
		errs = append(errs, overcommitted("memory", now.MemoryLimits.String(), orAll(c.MemoryLimit, memory).String(), memory.String(), r))
	}
	if r := b.host.OvercommitCPUs; r > 0 && float64(now.CPULimits) > r*float64(cpus) && more(int64(c.CPULimit), int64(had.CPULimit)) {
		errs = append(errs, overcommitted("cpus", now.CPULimits.String(), orAll(c.CPULimit, cpus).String(), cpus.String(), r))
	}
	return fault.Join(errs...)
}

// maxNamed bounds how many claims a message names.
const maxNamed = 5

func (b *Book) noMemory(c Claim, now Sum, others []Claim) error {
	h := b.host
	capacity, _ := h.Capacity()
	before := h.Total(others)
	var named, free []string
	need := now.Memory + now.Overhead - capacity
	for _, o := range others {
		if o.Memory > 0 {
			named = append(named, o.Name+" "+o.Memory.String())
		}
		if o.memory() >= need {
			free = append(free, fmt.Sprintf("%s (%s)", o.Name, o.memory()))
		}
	}
	return fault.New(fault.Full, "memory guarantees would pass what the host has: %s guaranteed%s + %s of strata's own + %s asked for and %s of strata's own for it = %s, of %s (%s less a reserve of %s)",
		before.Memory, list(named), before.Overhead, c.Memory, c.Overhead, now.Memory+now.Overhead, capacity, h.Memory, h.ReserveMemory).
		At("resources.memory_guarantee").Help("%s", advice(need.String(), "--memory-guarantee", free, c.Memory > need, c.memory() <= capacity))
}

func (b *Book) noCPUs(c Claim, now Sum, others []Claim) error {
	h := b.host
	_, capacity := h.Capacity()
	var named, free []string
	need := now.CPUs - capacity
	for _, o := range others {
		if o.CPUs == 0 {
			continue
		}
		named = append(named, o.Name+" "+o.CPUs.String())
		if o.CPUs >= need {
			free = append(free, fmt.Sprintf("%s (%s)", o.Name, o.CPUs))
		}
	}
	return fault.New(fault.Full, "processor guarantees would pass what the host has: %s guaranteed%s + %s asked for = %s, of %s (%s less a reserve of %s)",
		h.Total(others).CPUs, list(named), c.CPUs, now.CPUs, capacity, h.CPUs, h.ReserveCPUs).
		At("resources.cpu_guarantee").Help("%s", advice(need.String(), "--cpu-guarantee", free, c.CPUs > need, c.CPUs <= capacity))
}

func overcommitted(what, sum, asked, capacity string, ratio float64) error {
	return fault.New(fault.Full, "limits together would be %s, with the %s of this one, and %g times the capacity of %s is allowed", sum, asked, ratio, capacity).
		At("resources." + what).Help("give it a lower limit (what has none counts as the whole capacity), stop others, or let the daemon overcommit more")
}

// list writes the first of the names in brackets.
func list(named []string) string {
	if len(named) == 0 {
		return ""
	}
	text := strings.Join(named[:min(len(named), maxNamed)], ", ")
	if more := len(named) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return " (" + text + ")"
}

// waiting is what who has not waited can do, and longer what who has.
const (
	waiting = "wait with --queue"
	longer  = "wait longer (--queue=TIME)"
)

// advice says what would make room. need is how much is missing; free is who
// alone holds as much; alone tells that there would be room if there were no others,
// which can be waited for.
func advice(need, flag string, free []string, lower, alone bool) string {
	var ways []string
	if len(free) > 0 {
		ways = append(ways, "stop one of "+strings.Join(free[:min(len(free), maxNamed)], ", "))
	}
	if lower {
		ways = append(ways, "lower "+flag+" by as much")
	}
	if alone {
		ways = append(ways, waiting)
	}
	ways = append(ways, "look at strata host capacity")
	return need + " are missing: " + strings.Join(ways, ", or ")
}
