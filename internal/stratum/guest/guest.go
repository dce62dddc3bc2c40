package guest

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu/virtiofs"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// Options are what a Driver works with. Places, Kernels, Pool and Resources must be set.
type Options struct {
	Places    place.Places
	Kernels   *kernel.Store
	Pool      *disk.Pool     // where private disks come from
	Resources *resource.Root // of guests alone, so that no other driver takes their groups for its own
	Log       *slog.Logger   // nil: nothing is logged
	Standby   int            // how many spares are kept of each kind of machine in use; at most MaxStandby
	Patience  time.Duration  // with a system that starts and of which nothing is seen to go on; 0: 90 s
}

// Driver runs guests. Make one with New.
type Driver struct {
	*virtual.Driver
	o       Options
	saved   *warm.Store
	standby *standby

	background sync.WaitGroup // systems that are being saved
}

// New returns a Driver. Kinds: Missing where a program of strata's own is not found.
func New(o Options) (*Driver, error) {
	v, err := virtual.New(virtual.Options{
		Stratum: stratum.Guest, Dir: filepath.Join(o.Places.Run, place.Guests), Volumes: virtiofs.MaxVolumes,
		Places: o.Places, Kernels: o.Kernels, Pool: o.Pool, Resources: o.Resources, Log: o.Log, Patience: o.Patience,
	})
	if err != nil {
		return nil, err
	}
	d := &Driver{Driver: v, o: o}
	if d.saved, err = warm.Open(filepath.Join(o.Places.State, "warm"), warm.Options{Log: v.Log}); err != nil {
		return nil, err
	}
	return d, d.openStandby()
}

// Close gives back what the driver holds. Runs go on; spares end.
func (d *Driver) Close() error {
	d.standby.close(context.Background())
	d.Driver.Close()
	d.background.Wait()
	return d.saved.Close()
}

// Destroy removes what is left on the host when nothing runs any more, spares with it.
func (d *Driver) Destroy(ctx context.Context) error {
	d.standby.drain(ctx)
	return d.Driver.Destroy(ctx)
}

// Capabilities returns what guests can do besides.
func (d *Driver) Capabilities() stratum.Capability {
	return stratum.CanPause | stratum.CanLimit | stratum.CanList | stratum.CanCount | stratum.CanConsole | stratum.CanKernelLog | stratum.CanSuspend | stratum.CanReclaim |
		stratum.CanGrowDisk
}

var (
	_ stratum.Driver    = (*Driver)(nil)
	_ stratum.Prober    = (*Driver)(nil)
	_ stratum.Rehearser = (*Driver)(nil)
)
