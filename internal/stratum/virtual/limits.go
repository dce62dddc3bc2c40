package virtual

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// qemuShare is what QEMU may use besides the memory of its machine, before the
// host ends it: its translations (TCG) and its own. Measured with -accel tcg: 190 MiB.
const qemuShare = 512 * unit.MiB

// HostLimits are the limits of the control group that QEMU runs in. Memory and
// processes are limited inside; here the machine's size only is a bound against a
// QEMU that its guest has taken over.
func HostLimits(memory unit.Size, cpus unit.CPUs) resource.Limits {
	return resource.Limits{Memory: memory + qemuShare, CPUs: cpus}
}

// hostLimits are HostLimits with what r says of disks: QEMU and the servers of
// volumes do all reading and writing, in that group.
func hostLimits(memory unit.Size, r api.Resources, disks []string) resource.Limits {
	l := HostLimits(memory, r.CPUs)
	l.CPUSet = r.CPUSet
	l.IO = resource.IO{Weight: int(r.IOWeight), Read: r.IORead, Write: r.IOWrite, ReadOps: r.IOReadOps, WriteOps: r.IOWriteOps, Disks: disks}
	return l
}

// disks are what a run reads and writes on the host. Kinds: Unable where rates are
// asked for and it cannot be told.
func disks(p stratum.Plan) ([]string, error) {
	paths := []string{p.Disk}
	if _, err := os.Stat(p.Disk); err != nil { // it is made at the start
		paths[0] = filepath.Dir(p.Disk)
	}
	if p.Whole.Path != "" { // a system with a disk of its own has no template
		paths = append(paths, p.Whole.Path)
	}
	for _, v := range p.Volumes {
		paths = append(paths, v.Source)
	}
	found, err := resource.Disks(paths)
	if hostLimits(0, p.Resources, nil).IO.Limited() {
		return found, err
	}
	return found, nil
}

// wanted is how large a machine has to be: for its limit, or, without one, at least
// for its guarantee. Kinds: Invalid.
func wanted(r api.Resources) (memory unit.Size, processors int, err error) {
	if memory, err = machineMemory(r.Memory); err != nil {
		return 0, 0, err
	}
	if r.Memory == 0 && r.MemoryGuarantee > 0 {
		least, err := machineMemory(max(r.MemoryGuarantee, leastLimit))
		if err != nil {
			return 0, 0, err
		}
		memory = max(memory, least)
	}
	processors, err = machineProcessors(max(r.CPUs, r.CPUGuarantee))
	return memory, processors, err
}

// SetLimits implements stratum.Limiter. The machine's memory grows where its board has room
// for more; its balloon takes what is beyond the limit. Processors are plugged in and taken
// out where the board can, see Resize.
func (l *Live) SetLimits(ctx context.Context, r api.Resources) error {
	if err := l.fits(r); err != nil {
		return err
	}
	if l.Paused() {
		return errPaused()
	}
	if need := max(r.Memory, r.MemoryGuarantee); need > 0 {
		if err := l.Grow(ctx, need+api.OwnShare); err != nil {
			return err
		}
	}
	return l.Resize(ctx, r, func(use int) (bool, error) {
		limits := l.Populate(spec.Limits{Memory: int64(r.Memory), PIDs: r.PIDs, Processors: use})
		if err := l.Tell(ctx, limits); err != nil {
			return false, err
		}
		return true, l.shrink(ctx, r)
	})
}

// tellPatience is how long an agent may take that brings processors or memory into use.
const tellPatience = time.Minute

// Tell has the agent inside keep limits.
func (l *Live) Tell(ctx context.Context, limits spec.Limits) error {
	patience := control.Patience
	if limits.Processors > 0 || limits.Whole > 0 {
		patience = tellPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.askFor(ctx, patience, func(c *control.Client) error { return c.SetLimits(ctx, limits) })
}

// fits refuses what the machine is too small for while it runs. Kinds: Conflict.
func (l *Live) fits(r api.Resources) error {
	for _, m := range []struct {
		field string
		size  unit.Size
	}{{"memory", r.Memory}, {"memory_guarantee", r.MemoryGuarantee}} {
		boot := l.Boot()
		most := max(boot.Memory, boot.MostMemory)
		if m.size == 0 || m.size+api.OwnShare <= most {
			continue
		}
		why := fault.Conflictf("the machine has %s of memory, so its programs can have %s at most while it runs", boot.Memory, most-api.OwnShare)
		if most > boot.Memory {
			why = fault.Conflictf("the machine has room for %s of memory, so its programs can have %s at most while it runs", most, most-api.OwnShare)
		}
		return why.At("resources." + m.field).Help("stop it first: its next start gets a larger machine")
	}
	return l.Room(r)
}

// Share implements stratum.Sharer.
func (d *Driver) Share(id string, s stratum.Share) error {
	if id != "" {
		id = d.Held.Group(id)
	}
	return d.o.Resources.Share(id, resource.Share(s))
}

var _ stratum.Sharer = (*Driver)(nil)
