package resource

import (
	"time"

	"github.com/strata-project/strata/internal/unit"
)

// Spent is the processor time that all groups of the root have used since it was made,
// those that are gone included; false where the kernel does not say.
func (r *Root) Spent() (time.Duration, bool) {
	if r.unified != "" {
		stat, err := keys(r.unified, "cpu.stat")
		n, ok := stat["usage_usec"]
		return time.Duration(n) * time.Microsecond, err == nil && ok
	}
	n, err := number(r.homes["cpuacct"], "cpuacct.usage")
	return time.Duration(n), err == nil
}

// Held is the memory of programs in all groups of the root: without page cache,
// which the kernel takes back. 0 where it is not known.
func (r *Root) Held() unit.Size {
	v2 := r.homes["memory"] == r.unified
	stat, err := keys(r.homes["memory"], "memory.stat")
	if err != nil {
		return 0
	}
	if v2 {
		return unit.Size(stat["anon"] + stat["kernel"] + stat["shmem"])
	}
	return unit.Size(stat["total_rss"])
}
