package machine

import (
	"context"

	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// DiskSize implements stratum.Hoster.
func (d *Driver) DiskSize(path string) (unit.Size, error) {
	size, err := image.SizeOf(path)
	return size, fault.Wrap(err, "measure the disk")
}

// EmptyDisk implements stratum.Hoster.
func (d *Driver) EmptyDisk(ctx context.Context, p stratum.Plan, path string, size unit.Size) error {
	program, err := qemu.Find(ctx)
	if err != nil {
		return err
	}
	return image.Tool{QEMU: program, Agent: d.Agent, User: p.IDBase}.Blank(ctx, path, size)
}
