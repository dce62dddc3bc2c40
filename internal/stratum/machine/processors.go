package machine

import (
	"runtime"

	"github.com/strata-project/strata/internal/qemu/machine"
)

// mostRoom bounds the processors that a board has room for besides those that it is built
// with. For each a kernel sets memory aside, used or not: measured 270 KiB by Debian's 6.1,
// 17 MiB for 64, and a fifth more processor time of its boot under TCG, where 16 are not
// told from one.
const mostRoom = 16

// room is how many processors a board can have while it runs that is built with count: as
// many as the host has, whose others would only share those. 0: it has them from its start.
func room(p machine.Platform, count, host int) int {
	if p != machine.Q35 {
		return 0
	}
	return max(count, min(host, mostRoom))
}

// roomHere is room on this host.
func roomHere(s machine.Spec) int { return room(s.Platform, s.Processors.Count, runtime.NumCPU()) }
