package virtual

import (
	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// The memory of virtual machines. A limit is kept inside, by the guest's own
// kernel and to the byte, so the machine only has to be large enough; a few sizes
// for all let many guests start from the same saved system.
const (
	smallest   = 128 * unit.MiB
	usual      = 512 * unit.MiB // where no limit is asked for
	largest    = 1 << 40        // 1 TiB
	leastLimit = 6 * unit.MiB   // as a zone's: what a program can start with
)

// machineMemory is the memory of the machine whose programs may use limit; 0: no
// limit. Kinds: Invalid.
func machineMemory(limit unit.Size) (unit.Size, error) {
	if limit == 0 {
		return usual, nil
	}
	if limit < leastLimit {
		return 0, fault.Invalidf("%s of memory are fewer than a program can start with", limit).At("resources.memory").Help("give at least %s", unit.Size(leastLimit))
	}
	for size := unit.Size(smallest); size <= largest; size *= 2 {
		if size >= limit+api.OwnShare {
			return size, nil
		}
	}
	return 0, fault.Invalidf("%s of memory are more than a virtual machine can have", limit).At("resources.memory").Help("give at most %s", unit.Size(largest-api.OwnShare))
}

// maxProcessors is what QEMU's microvm takes. Source: hw/i386/microvm.c, max_cpus.
const maxProcessors = 288

// machineProcessors is how many virtual processors let programs use so much of
// the host's; 0: no limit was asked for. Kinds: Invalid.
func machineProcessors(cpus unit.CPUs) (int, error) {
	n := int((cpus + unit.CPUs(999)) / 1000)
	if n > maxProcessors {
		return 0, fault.Invalidf("%s processors are more than a virtual machine can have", cpus).At("resources.cpus").Help("give at most %d", maxProcessors)
	}
	return max(n, 1), nil
}
