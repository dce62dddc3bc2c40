package resource

import (
	"strconv"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Unlimited stands for "no limit" in figures and in Limits.Swap.
const Unlimited = -1

// The kernel's bounds of a weight. Source: Documentation/admin-guide/cgroup-v2.rst, cpu.weight.
const (
	minWeight     = 1
	maxWeight     = 10000
	defaultWeight = 100
)

// period is the length of a CPU quota's turn. Unit: microseconds. Source: the
// kernel's default, cpu.cfs_period_us.
const period = 100_000

// minCPUs is the least share of a processor; below it the quota is under the
// kernel's 1 ms. Source: kernel/sched/core.c, min_cfs_quota_period.
const minCPUs = unit.CPUs(10)

// Limits are what a group can never pass. The zero value limits nothing.
type Limits struct {
	// Memory is the most memory, page cache included. 0: no limit.
	Memory unit.Size
	// Swap is the most swap space besides Memory. nil: as much as Memory, as docker
	// has it; a pointer to 0: none; to Unlimited: no limit. It counts only where
	// Memory is set and the kernel accounts for swap.
	Swap *unit.Size
	// CPUs is the most processor time. 0: no limit.
	CPUs unit.CPUs
	// PIDs is the most processes and threads. 0: no limit.
	PIDs int64
	// CPUSet are the processors to run on, such as 0,2-3. "": all.
	CPUSet string
	// IO limits the use of disks.
	IO IO
}

// Check reports every limit that no kernel takes. Kinds: Invalid.
func (l Limits) Check() error {
	var errs []error
	if l.Memory < 0 {
		errs = append(errs, fault.Invalidf("a memory limit of %d bytes is not possible", l.Memory).At("memory"))
	}
	if l.Swap != nil && *l.Swap < Unlimited {
		errs = append(errs, fault.Invalidf("a swap limit of %d bytes is not possible", *l.Swap).At("swap"))
	}
	if l.CPUs < 0 || l.CPUs > 0 && l.CPUs < minCPUs {
		errs = append(errs, fault.Invalidf("%s processors are too few", l.CPUs).At("cpus").Help("the least is %s", minCPUs))
	}
	if l.PIDs < 0 {
		errs = append(errs, fault.Invalidf("a limit of %d processes is not possible", l.PIDs).At("pids"))
	}
	return fault.Join(append(errs, checkCPUSet(l.CPUSet), l.IO.check())...)
}

// quota returns the processor time of one period, in microseconds.
func (l Limits) quota() string {
	return strconv.FormatInt(int64(l.CPUs)*(period/1000), 10)
}

// swap returns the swap limit, Unlimited where there is none.
func (l Limits) swap() int64 {
	switch {
	case l.Memory == 0:
		return Unlimited
	case l.Swap == nil:
		return int64(l.Memory)
	}
	return int64(*l.Swap)
}

// count writes a limit as the kernel reads it; none is v1's or v2's word for no limit.
func count(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

// setting is one write to a control file.
type setting struct {
	controller, file, value string
}

// cpuSettings and pidsSettings are the writes for l; fresh leaves out what a new
// group has already.
func (l Limits) cpuSettings(v2, fresh bool) []setting {
	var out []setting
	if !fresh || l.CPUs > 0 {
		switch {
		case v2:
			value := "max"
			if l.CPUs > 0 {
				value = l.quota()
			}
			out = append(out, setting{"cpu", "cpu.max", value + " " + strconv.Itoa(period)})
		case l.CPUs > 0:
			out = append(out, setting{"cpu", "cpu.cfs_quota_us", l.quota()})
		default:
			out = append(out, setting{"cpu", "cpu.cfs_quota_us", "-1"})
		}
	}
	return out
}

func (l Limits) pidsSettings(fresh bool) []setting {
	if fresh && l.PIDs == 0 {
		return nil
	}
	return []setting{{"pids", "pids.max", count(l.PIDs, "max")}}
}
