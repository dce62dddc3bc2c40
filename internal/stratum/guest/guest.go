package guest

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
)

// Options are what a Driver works with. Places, Kernels, Pool and Resources must be set.
type Options struct {
	Places    place.Places
	Kernels   *kernel.Store
	Pool      *disk.Pool     // where private disks come from
	Resources *resource.Root // of guests alone, so that no other driver takes their groups for its own
	Log       *slog.Logger   // nil: nothing is logged
	Patience  time.Duration  // with a system that starts and of which nothing is seen to go on; 0: 90 s
}

// Driver runs guests. Make one with New.
type Driver struct {
	o    Options
	runs *held.Runs

	keeper, agent, inside string // programs: the keeper, the one before QEMU, the agent inside

	judge *accel.Judge
	saved *warm.Store

	life       context.Context // ends with the driver
	end        context.CancelFunc
	background sync.WaitGroup // systems that are being saved

	mu      sync.Mutex
	filters map[string][]byte // seccomp filters for kind app, by kernel release
}

// New returns a Driver. Kinds: Missing where a program of strata's own is not found.
func New(o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = bootPatience
	}
	d := &Driver{o: o, filters: map[string][]byte{}}
	d.life, d.end = context.WithCancel(context.Background())
	for name, path := range map[string]*string{"strata-keeper": &d.keeper, "strata-agent": &d.agent, "strata-vmagent": &d.inside} {
		var err error
		if *path, err = place.Binary(name); err != nil {
			return nil, err
		}
	}
	var err error
	if d.saved, err = warm.Open(filepath.Join(o.Places.State, "warm"), warm.Options{Log: o.Log}); err != nil {
		return nil, err
	}
	d.judge = accel.New(d.agent, VerdictFile(o.Places))
	d.runs, err = held.Open(filepath.Join(o.Places.Run, "vm"), o.Resources, o.Log)
	return d, err
}

// VerdictFile is where a driver keeps what runs guests here, see package accel.
func VerdictFile(p place.Places) string { return filepath.Join(p.State, "accelerator.json") }

// Close gives back what the driver holds. Runs go on.
func (d *Driver) Close() error {
	d.end()
	d.background.Wait()
	return d.saved.Close()
}

// Stratum returns "guest".
func (d *Driver) Stratum() string { return stratum.Guest }

// Capabilities returns what guests can do besides.
func (d *Driver) Capabilities() stratum.Capability {
	return stratum.CanPause | stratum.CanLimit | stratum.CanConsole | stratum.CanKernelLog
}

// Runs implements stratum.Driver.
func (d *Driver) Runs(context.Context) ([]string, error) { return d.runs.List() }

// Clean implements stratum.Driver.
func (d *Driver) Clean(ctx context.Context, id string) (*api.Exit, error) {
	return d.runs.Clean(ctx, id)
}

// Destroy removes what is left on the host when nothing runs any more.
func (d *Driver) Destroy(ctx context.Context) error { return d.o.Resources.Remove(ctx) }

// filter is the system-call filter of kind app, for a guest's kernel.
func (d *Driver) filter(release string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.filters[release]; ok {
		return f, nil
	}
	version, err := seccomp.ParseVersion(release)
	if err != nil {
		return nil, err
	}
	f, err := seccomp.Default(sandbox.App, version)
	if err != nil {
		return nil, err
	}
	d.filters[release] = f.Bytes()
	return d.filters[release], nil
}

// Probe implements stratum.Prober.
func (d *Driver) Probe(ctx context.Context) (kvm bool, why string, err error) {
	p, err := qemu.Find(ctx)
	if err != nil {
		return false, "", err
	}
	v := d.judge.Choose(ctx, p)
	if v.Accelerator == qemu.KVM {
		return true, "", nil
	}
	return false, v.Reason, nil
}
