package guest

import (
	"context"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// What QEMU finds in its root.
const (
	kernelPlace    = "/vmlinux"
	initramfsPlace = "/initramfs"
)

// The block devices of every guest, in the order of QEMU's command line.
const (
	templateDevice = "/dev/vda"
	diskDevice     = "/dev/vdb"
)

// launch is a whole guest as a value, but for descriptors. It is its own hardware.
type launch struct {
	*virtual.Launch
	Machine qemu.Guest  // without descriptors
	key     warm.Key    // of what it is saved as
	Saved   *warm.Image // to go on from; nil: it boots
}

// prepare finds out all that p needs, and changes nothing but what is kept for all guests.
func (d *Driver) prepare(ctx context.Context, p stratum.Plan) (*launch, error) {
	common, err := d.Prepare(ctx, p, kernel.Guest)
	if err != nil {
		return nil, err
	}
	l := &launch{Launch: common}
	l.Hardware, l.Unplug = l, true
	l.Run.Template, l.Run.Disk = templateDevice, diskDevice
	boot := l.Notes.Boot
	l.Machine = qemu.Guest{
		Name: p.Name, Accelerator: boot.Accelerator, Memory: boot.Memory, Processors: boot.CPUs, TSC: qemu.TSC(),
		Kernel: kernelPlace, Initrd: initramfsPlace, Firmware: l.QEMU.Firmware, Ring: l.QEMU.Ring, Turns: l.QEMU.Turns,
		HugePages: p.Resources.HugePages, Untraced: !p.System,
	}
	return l, nil
}

// Open implements virtual.Hardware: memory that is a saved system's.
func (l *launch) Open(h *virtual.Handed) error {
	if l.Saved == nil {
		return nil
	}
	f, err := virtual.Again(l.Saved.Memory)
	if err != nil {
		return err
	}
	l.Machine.Backing.File = memoryPlace(h.Add(f))
	return nil
}

// Args implements virtual.Hardware.
func (l *launch) Args(w virtual.Wires) []string {
	m := l.Machine
	m.Accelerator = l.Notes.Boot.Accelerator
	m.Template, m.Disk, m.Tap, m.MAC, m.Volumes = w.Template, w.Disk, w.Tap, w.MAC, w.Volumes
	m.Control, m.Monitor, m.Streams, m.Console, m.Events = w.Control, w.Monitor, w.Streams, w.Console, w.Events
	return m.Args()
}

// Confine implements virtual.Hardware.
func (l *launch) Confine(c *confine.Spec) {
	c.Files = l.Machine.Backing.File != ""
	if l.Machine.OwnEntropy {
		c.Devices = append(c.Devices, qemu.RandomDevice)
	}
	if l.Saved == nil {
		c.Show = []confine.Shown{{Path: l.Kernel.Vmlinux(), At: kernelPlace}, {Path: l.Image.Path, At: initramfsPlace}}
	}
}

// Form implements virtual.Hardware.
func (l *launch) Form() []string {
	m := l.Machine
	m.Name, m.MAC, m.TSC, m.OwnEntropy = "", "", 0, false
	m.Kernel, m.Initrd, m.Incoming = "", "", false
	m.Accelerator = l.Notes.Boot.Accelerator
	m.Backing, m.Fixed, m.Turns = qemu.Backing{}, l.Notes.Fixed, false
	m.Template, m.Disk, m.Tap, m.Volumes = 1, 1, 1, nil
	m.Control, m.Monitor, m.Streams, m.Console, m.Events = 1, 1, 1, 1, 1
	return m.Args()
}

// Rehearse implements stratum.Rehearser.
func (d *Driver) Rehearse(ctx context.Context, p stratum.Plan) error {
	if _, err := d.prepare(ctx, p); err != nil {
		return err
	}
	return d.Driver.Rehearse(ctx, p)
}

// Start implements stratum.Driver.
func (d *Driver) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	live, err := d.start(ctx, p, o)
	if err != nil {
		return nil, err
	}
	return live, nil
}

func (d *Driver) start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (*virtual.Live, error) {
	release, err := d.Held.Claim(p.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	defer d.standby.begin()()
	l, err := d.prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	if l.From != nil {
		if err := l.Connect(ctx, o.Link, nil); err != nil {
			return nil, err
		}
		defer l.Disconnect()
		l.Machine.Incoming, l.Machine.Kernel, l.Machine.Initrd, l.Machine.Fixed = true, "", "", l.Notes.Fixed
		return d.Attempt(ctx, p, l.Launch, o)
	}
	save := d.warm(ctx, l, p)
	if l.Saved != nil {
		defer l.Saved.Close()
	}
	ready, image := d.ready(l, p)
	if image != nil {
		defer image.Close()
	}
	if err := connect(ctx, l, o.Link, ready); err != nil {
		return nil, err
	}
	defer l.Disconnect()
	if ready != nil {
		live, err := d.become(ctx, p, l, o, ready)
		if err == nil || ctx.Err() != nil || virtual.Blames(err) {
			return live, err
		}
		d.Log.Warn("a spare machine could not be used, and another is started", "id", p.ID, "error", err)
	}
	if image != nil {
		live, err := d.startCopy(ctx, p, l, o, image)
		if err == nil || ctx.Err() != nil || virtual.Blames(err) {
			return live, err
		}
		d.Log.Warn("a guest did not go on as a copy, and is started from the saved system", "id", p.ID, "error", err)
	}
	if l.Saved != nil {
		live, err := d.Attempt(ctx, p, l.Launch, o)
		if err == nil {
			d.saved.Tell(l.key, true)
		}
		if err == nil || ctx.Err() != nil || virtual.Blames(err) {
			return live, err
		}
		d.saved.Tell(l.key, false)
		d.Log.Warn("a guest did not go on from a saved system, and is booted", "id", p.ID, "error", err)
		if err := d.cold(ctx, l, p, "the saved system did not go on: "+err.Error()); err != nil {
			return nil, err
		}
	}
	accelerator := l.Notes.Boot.Accelerator
	live, err := d.AttemptTwice(ctx, p, l.Launch, o, func(ctx context.Context, _ string) error {
		return d.cold(ctx, l, p, l.Notes.Boot.Cold)
	})
	if err == nil && save != nil && l.Notes.Boot.Accelerator == accelerator {
		save()
	}
	return live, err
}

// connect joins l to its network, by the tap of ready where that is not nil, which ends
// where it fails.
func connect(ctx context.Context, l *launch, link stratum.Link, ready *machineSpare) error {
	if ready == nil {
		return l.Connect(ctx, link, nil)
	}
	err := l.Connect(ctx, link, ready.Tap)
	if err != nil {
		ready.End(ctx)
	}
	return err
}

// Adopt implements stratum.Driver.
func (d *Driver) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	live, err := d.Driver.Adopt(ctx, id)
	if err != nil {
		return nil, err
	}
	return live, nil
}
