package resource

import "github.com/strata-project/strata/internal/unit"

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
