package resource

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/unit"
)

// Share is what a group gets beside its neighbours when not all can have what
// they want.
type Share struct {
	// Weight of contended processor time, from 1 to 10000.
	Weight int
	// Memory is kept for the group while others want more: on v2 (memory.min) the
	// kernel never takes it, on v1 (a soft limit) it takes from others first. With
	// Unlimited nobody has a guarantee, and the kernel takes as it likes.
	Memory unit.Size
}

// Share sets the share of the group with the given id, or, with "", what the root
// as a whole, with the groups of every mark, gets beside everything else on the host. A group that is gone is no
// error.
func (r *Root) Share(id string, s Share) error {
	cpu, memory := r.homes["cpu"], r.homes["memory"]
	if id != "" {
		g := r.group(id)
		cpu, memory = g.whole("cpu"), g.whole("memory")
	}
	weight := min(max(s.Weight, minWeight), maxWeight)
	var err error
	if r.homes["cpu"] == r.unified {
		err = put(cpu, "cpu.weight", strconv.Itoa(weight))
	} else { // where 1024 is the default and 2 the least
		err = put(cpu, "cpu.shares", strconv.Itoa(max(2, weight*1024/defaultWeight)))
	}
	if err != nil {
		return gone(err, "share processor time")
	}
	if r.homes["memory"] == r.unified {
		// What is kept for a group is kept for the groups in it that ask for it.
		dirs := []string{memory}
		if id != "" {
			dirs = append(dirs, memory+"/"+payloadLeaf, memory+"/"+keeperLeaf)
		}
		for _, dir := range dirs {
			err = errors.Join(err, put(dir, "memory.min", strconv.FormatInt(max(int64(s.Memory), 0), 10)))
		}
	} else if id != "" {
		// Not of the root: the kernel takes from all below whoever passes a soft limit.
		err = put(memory, "memory.soft_limit_in_bytes", strconv.FormatInt(int64(s.Memory), 10))
	}
	if errors.Is(err, unix.EINVAL) && s.Memory <= 0 {
		return nil // a kernel without soft limits (PREEMPT_RT) has nothing to take back
	}
	return gone(err, "keep memory")
}

// gone passes over what was removed meanwhile.
func gone(err error, doing string) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explain(err, "%s", doing)
}
