package virtual

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/stratum/held"
)

// Options are what a Driver works with. All but Log and Patience must be set.
type Options struct {
	Stratum   string // what a run is called in messages
	Dir       string // of run folders
	Volumes   int    // how many a run has room for
	Places    place.Places
	Kernels   *kernel.Store
	Pool      *disk.Pool     // where private disks come from
	Resources *resource.Root // of this stratum alone, so that no other driver takes its groups for its own
	Log       *slog.Logger   // nil: nothing is logged
	Patience  time.Duration  // with a system that starts and of which nothing is seen to go on; 0: 90 s
}

// Driver does what drivers of virtual machines have in common; they embed it.
type Driver struct {
	Held  *held.Runs
	Agent string // path of the program before QEMU
	Judge *accel.Judge
	Log   *slog.Logger
	Life  context.Context // ends with the driver

	end            context.CancelFunc
	o              Options
	keeper, inside string // programs: the keeper, the agent inside
	volume         string // likewise: what serves volumes where there is no virtiofsd

	spares sync.Map   // ids of spares, and of one that is being made
	users  sync.Mutex // held from the choice of a user until it is noted

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
	d := &Driver{o: o, Log: o.Log, filters: map[string][]byte{}}
	for name, path := range map[string]*string{"strata-keeper": &d.keeper, "strata-agent": &d.Agent, "strata-vmagent": &d.inside, "strata-volume": &d.volume} {
		var err error
		if *path, err = place.Binary(name); err != nil {
			return nil, err
		}
	}
	d.Life, d.end = context.WithCancel(context.Background())
	d.Judge = accel.New(d.Agent, VerdictFile(o.Places))
	var err error
	d.Held, err = held.Open(o.Dir, o.Resources, o.Log)
	return d, err
}

// VerdictFile is where drivers keep what runs virtual machines here, see package accel.
func VerdictFile(p place.Places) string { return filepath.Join(p.State, "accelerator.json") }

// Close lets go of the agents that it has asked. Runs go on.
func (d *Driver) Close() error {
	d.end()
	return nil
}

// Stratum implements stratum.Driver.
func (d *Driver) Stratum() string { return d.o.Stratum }

// Clean implements stratum.Driver.
func (d *Driver) Clean(ctx context.Context, id string) (*api.Exit, error) {
	return d.Held.Clean(ctx, id)
}

// Destroy removes what is left on the host when nothing runs any more.
func (d *Driver) Destroy(ctx context.Context) error { return d.o.Resources.Remove(ctx) }

// filter is the system-call filter of kind app, for a system's kernel.
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
	v := d.Judge.Choose(ctx, p)
	if v.Accelerator == qemu.KVM {
		return true, "", nil
	}
	return false, v.Reason, nil
}

// Runs implements stratum.Driver.
func (d *Driver) Runs(context.Context) ([]string, error) {
	ids, err := d.Held.List()
	return slices.DeleteFunc(ids, d.IsSpare), err
}

// Around are the programs of strata's own that run around a machine.
func (d *Driver) Around() []string { return []string{d.keeper, d.Agent} }

// Patience is how long a system may show no sign of life.
func (d *Driver) Patience() time.Duration { return d.o.Patience }
