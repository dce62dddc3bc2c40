package zone

import (
	"context"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// limits are the control group's, for r. disks are what rates hold for.
func limits(r api.Resources, disks []string) resource.Limits {
	return resource.Limits{
		Memory: r.Memory, Swap: r.Swap, CPUs: r.CPUs, PIDs: r.PIDs, CPUSet: r.CPUSet,
		IO: resource.IO{Weight: int(r.IOWeight), Read: r.IORead, Write: r.IOWrite, ReadOps: r.IOReadOps, WriteOps: r.IOWriteOps, Disks: disks},
	}
}

// disks are what a run reads and writes. Kinds: Unable where rates are asked for
// and it cannot be told.
func disks(p stratum.Plan) ([]string, error) {
	paths := []string{p.Disk}
	for _, v := range p.Volumes {
		paths = append(paths, v.Source)
	}
	found, err := resource.Disks(paths)
	if limits(p.Resources, nil).IO.Limited() {
		return found, err
	}
	return found, nil
}

// SetLimits implements stratum.Limiter.
func (l *Live) SetLimits(_ context.Context, r api.Resources) error {
	return l.Group.Set(limits(r, l.notes.Disks))
}

// GrowDisk implements stratum.DiskGrower.
func (l *Live) GrowDisk(_ context.Context, image string, size unit.Size) error {
	return l.d.o.Pool.GrowMounted(image, size)
}

// MostDisk implements stratum.DiskGrower.
func (l *Live) MostDisk(image string) (unit.Size, error) {
	if err := disk.CanGrowMounted(); err != nil {
		return 0, err
	}
	return disk.LiveCeiling(image)
}

var _ stratum.DiskGrower = (*Live)(nil)

// Share implements stratum.Sharer.
func (d *Driver) Share(id string, s stratum.Share) error {
	return d.o.Resources.Share(id, resource.Share(s))
}

var _ stratum.Sharer = (*Driver)(nil)
