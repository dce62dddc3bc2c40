package machine

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/screen"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// Options are what a Driver works with. Places, Kernels, Pool and Resources must be set.
type Options struct {
	Places    place.Places
	Kernels   *kernel.Store
	Pool      *disk.Pool     // where private disks come from
	Resources *resource.Root // of machines alone, so that no other driver takes their groups for its own
	Log       *slog.Logger   // nil: nothing is logged
	Patience  time.Duration  // with a system that starts and of which nothing is seen to go on; 0: 90 s
}

// Driver runs machines. Make one with New.
type Driver struct {
	*virtual.Driver
	o Options
}

// New returns a Driver. Kinds: Missing where a program of strata's own is not found.
func New(o Options) (*Driver, error) {
	v, err := virtual.New(virtual.Options{
		Stratum: stratum.Machine, Dir: filepath.Join(o.Places.Run, "hw"), Volumes: machine.MaxVolumes, // short: sockets are below it
		Places: o.Places, Kernels: o.Kernels, Pool: o.Pool, Resources: o.Resources, Log: o.Log, Patience: o.Patience,
	})
	if err != nil {
		return nil, err
	}
	return &Driver{Driver: v, o: o}, nil
}

// Capabilities returns what machines can do besides.
func (d *Driver) Capabilities() stratum.Capability {
	return stratum.CanPause | stratum.CanLimit | stratum.CanList | stratum.CanCount | stratum.CanConsole | stratum.CanKernelLog | stratum.CanScreen |
		stratum.CanSuspend | stratum.CanReset | stratum.CanInterrupt | stratum.CanReclaim
}

// Devices implements stratum.Outfitter.
func (d *Driver) Devices(ctx context.Context, p stratum.Plan, network bool) ([]string, error) {
	accelerator := qemu.TCG
	if kvm, _, err := d.Probe(ctx); err == nil && kvm {
		accelerator = qemu.KVM
	}
	needed, err := drivers(p)
	if err != nil {
		return nil, err
	}
	k, missing := d.o.Kernels.GetFor(p.Kernel, needed)
	if missing == nil {
		if p.Hardware.AgentPort, err = agentPort(p, k); err != nil {
			return nil, err
		}
	}
	s, err := hardware(p, accelerator)
	if err != nil {
		return nil, err
	}
	if err := valid(carded(s), "hardware."); err != nil {
		return nil, err
	}
	if _, err := d.chip(ctx, s); err != nil {
		return nil, err
	}
	if network {
		s = carded(s)
	}
	return describe(s, len(p.Volumes)), missing
}

// describe has a line for each part of a template's machine.
func describe(s machine.Spec, volumes int) []string {
	holds := map[string]string{bootDrive: ": firmware boots it", templateDrive: ": the template", privateDrive: ": the private disk"}
	var all []string
	for _, r := range s.Describe() {
		if r.Part != "processors" && r.Part != "memory" && r.Model != "none" { // they are limits, or are not there
			all = append(all, r.Part+": "+r.Model+holds[r.Part])
		}
	}
	if s.Balloon {
		all = append(all, "balloon: virtio-balloon, by which memory that is not used goes back to the host; no stock hardware either")
	}
	if volumes > 0 {
		all = append(all, "volumes: virtiofs, which is no stock hardware")
	}
	return all
}

// Live is one run of a machine.
type Live struct {
	*virtual.Live
	d      *Driver
	screen *screen.Screen
}

func (d *Driver) live(v *virtual.Live) *Live { return &Live{v, d, screen.New(v)} }

// Screen implements stratum.Screener.
func (l *Live) Screen() stratum.Screen { return l.screen }

// Adopt implements stratum.Driver.
func (d *Driver) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	v, err := d.Driver.Adopt(ctx, id)
	if err != nil {
		return nil, err
	}
	if v.Alone() {
		return d.foreign(v), nil
	}
	return d.live(v), nil
}

var (
	_ stratum.Driver    = (*Driver)(nil)
	_ stratum.Prober    = (*Driver)(nil)
	_ stratum.Outfitter = (*Driver)(nil)
	_ stratum.Rehearser = (*Driver)(nil)
	_ stratum.Screener  = (*Live)(nil)
)
