package machine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
)

// The drives of a foreign system.
const (
	foreignDisk = "disk0"
	foreignCD   = "cd0"
	floppy      = "floppy0"
)

// bootable are the words for what can be booted from.
var bootable = map[string]string{"disk": foreignDisk, "cd": foreignCD, "network": card}

// foreign is a foreign system as a value, but for descriptors. It is its own hardware.
type foreign struct {
	*virtual.Launch
	plan     stratum.Plan
	state    string // strata's own folder, of which nothing is an image
	spec     machine.Spec
	firmware machine.Found

	code, store argv.Image
	drives      map[string][]argv.Image
	attached    attached
	chip        chip
}

// board is the machine of a foreign system. It is pure.
func board(p stratum.Plan, accelerator string) (machine.Spec, error) {
	kind := machine.OS(p.Foreign.OS)
	if kind == "" {
		kind = machine.Other
	}
	s, err := machine.Defaults(kind, machine.Platform(p.Hardware.Board), machine.Host{Accel: accelerator})
	if err != nil {
		return s, err
	}
	s.Name = p.Name
	if p.Firmware != "" {
		s.Firmware = firmwares[p.Firmware]
	}
	if p.Resources.Memory != 0 {
		s.Memory.Size = p.Resources.Memory
	}
	if c := p.Resources.CPUs; c != 0 {
		s.Processors.Count = int((c + unit.CPUs(999)) / 1000)
	}
	s.Processors.Most = roomHere(s)
	if most := p.Hardware.MemoryMax; most > s.Memory.Size {
		s.Grow(most, virtual.MemorySlots)
	}
	if p.Foreign.NoAgent {
		s.GuestAgent = false
	}
	if s.GuestAgent && kind == machine.Linux {
		s.Channels = machine.VirtioChannels // for strata's own agent, once it is installed
	}
	if p.Foreign.Disk {
		s.Drives = append(s.Drives, machine.Drive{ID: foreignDisk, Medium: machine.Disk, Serial: "strata-" + foreignDisk})
	}
	s.Drives = append(s.Drives, machine.Drive{ID: foreignCD, Medium: machine.CD})
	if err := choose(&s, p.Hardware, "foreign."); err != nil {
		return s, err
	}
	if p.Hardware.Floppy != "" {
		s.Drives = append(s.Drives, machine.Drive{ID: floppy, Medium: machine.Floppy, ReadOnly: true})
	}
	for _, word := range p.Foreign.Boot {
		s.Boot = append(s.Boot, bootable[word])
	}
	s.Once = bootable[p.Foreign.BootOnce]
	for _, d := range p.Devices {
		s.Plugged = append(s.Plugged, plugged(d))
	}
	return s, nil
}

// prepareForeign finds out all that p needs, and changes nothing.
func (d *Driver) prepareForeign(ctx context.Context, p stratum.Plan) (*foreign, error) {
	common, err := d.PrepareAlone(ctx, p)
	if err != nil {
		return nil, err
	}
	l := &foreign{Launch: common, plan: p, state: d.o.Places.State, drives: map[string][]argv.Image{}}
	l.Hardware = l
	boot := &l.Notes.Boot
	if l.spec, err = board(p, boot.Accelerator); err != nil {
		return nil, err
	}
	l.Guest = l.spec.GuestAgent
	boot.Memory, boot.MostMemory, boot.CPUs, boot.MostCPUs = l.spec.Memory.Size, l.spec.Memory.Most, l.spec.Processors.Count, l.spec.Processors.Most
	l.Notes.Present = boot.CPUs
	if p.Foreign.Network {
		l.spec.Cards = []machine.Card{{ID: card}}
	}
	if err := valid(l.spec, "foreign."); err != nil {
		return nil, err
	}
	if l.spec.Firmware != machine.BIOS {
		if l.firmware, err = machine.FindFirmware(l.spec.Firmware, machine.FirmwareFolders()); err != nil {
			return nil, err
		}
	}
	l.chip, err = d.chip(ctx, l.spec)
	return l, err
}

// MakeDisk implements stratum.Hoster.
func (d *Driver) MakeDisk(ctx context.Context, p stratum.Plan, tell func(done, total int64)) (string, error) {
	l, err := d.prepareForeign(ctx, p)
	if err != nil {
		return "", err
	}
	f := p.Foreign
	if f.ISO != "" {
		c, err := openCD(f.ISO)
		if err != nil {
			return "", err
		}
		c.Close()
	}
	if p.Hardware.Floppy != "" {
		c, err := openFloppy(p.Hardware.Floppy, l.state)
		if err != nil {
			return "", err
		}
		c.Close()
	}
	if !f.Disk {
		return "", nil
	}
	tool := image.Tool{QEMU: l.QEMU, Agent: d.Agent, User: p.IDBase}
	if f.Image == "" {
		return "", tool.Blank(ctx, p.Disk, f.Blank)
	}
	c, err := openImage(f, l.state)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if !f.Import {
		return string(c.Format), tool.Overlay(ctx, c, p.Disk, f.Blank)
	}
	if f.Blank != 0 && f.Blank != c.Size {
		return "", fault.Invalidf("an imported disk has the size of its image, %s", c.Size).At("resources.disk").Help("leave the size out")
	}
	return string(c.Format), tool.Import(ctx, c, p.Disk, image.QCOW2, tell)
}

// openImage opens what a disk is made of. Further files that it names must be beside it,
// and none may be strata's own, whose disks change.
func openImage(f *stratum.Foreign, state string) (*image.Chain, error) {
	c, err := image.Open(f.Image, image.Rules{Format: image.Format(f.Format), Within: filepath.Dir(f.Image), Without: state})
	if err != nil {
		return nil, named(err, "foreign.disk_image")
	}
	if err := c.Busy(); err != nil {
		c.Close()
		return nil, named(err, "foreign.disk_image")
	}
	return c, nil
}

func openCD(path string) (*image.Chain, error) {
	c, err := image.Open(path, image.Rules{CD: true})
	var f *fault.Error
	if errors.As(err, &f) && f.Field == "format" {
		err = f.Help("give the image of a CD or DVD (ISO 9660), and a disk with --disk-image")
	}
	return c, named(err, "foreign.iso")
}

// named says which option a fault of an image is about.
func named(err error, field string) error {
	var all []error
	if err != nil {
		for _, one := range fault.All(err) {
			e := *one
			all = append(all, e.At(field))
		}
	}
	return fault.Join(all...)
}

// Open implements virtual.Hardware.
func (l *foreign) Open(h *virtual.Handed) error {
	f := l.plan.Foreign
	if f.Disk {
		own, err := disk.Hold(l.plan.Disk)
		if err != nil {
			return fault.Wrap(err, "open the disk")
		}
		l.drives[foreignDisk] = []argv.Image{{Format: string(image.QCOW2), FD: blocking(h)(own)}}
	}
	for _, path := range f.Bases {
		base, err := os.Open(path)
		if err != nil {
			return fault.Internalf("open what the disk lies over: %w", err)
		}
		l.drives[foreignDisk] = append(l.drives[foreignDisk], argv.Image{Format: string(image.QCOW2), FD: blocking(h)(base)})
	}
	if f.Disk && f.Image != "" && !f.Import {
		if err := l.lend(foreignDisk, h, func() (*image.Chain, error) { return openImage(f, l.state) }); err != nil {
			return err
		}
	}
	if f.ISO != "" {
		if err := l.lend(foreignCD, h, func() (*image.Chain, error) { return openCD(f.ISO) }); err != nil {
			return err
		}
	}
	if path := l.plan.Hardware.Floppy; path != "" {
		c, err := openFloppy(path, l.state)
		if err != nil {
			return err
		}
		images, err := c.Images(blocking(h))
		if err != nil {
			c.Close()
			return err
		}
		l.drives[floppy] = images
	}
	if err := l.attached.open(l.plan.Devices, l.state, h); err != nil {
		return err
	}
	if l.spec.Firmware == machine.BIOS {
		return nil
	}
	var err error
	l.code, l.store, err = openFirmware(l.firmware, filepath.Join(filepath.Dir(l.plan.Disk), varsFile), h)
	return err
}

// blocking gives QEMU a file that was opened so that nothing waits for it: what is not to
// block is refused by io_uring where it would.
func blocking(h *virtual.Handed) func(*os.File) int {
	return func(f *os.File) int {
		_ = unix.SetNonblock(int(f.Fd()), false) // of an open file it does not fail
		return h.Add(f)
	}
}

// lend gives QEMU the files of a chain, as what a drive lies over.
func (l *foreign) lend(drive string, h *virtual.Handed, open func() (*image.Chain, error)) error {
	c, err := open()
	if err != nil {
		return err
	}
	images, err := c.Images(blocking(h))
	if err != nil {
		c.Close()
		return err
	}
	l.drives[drive] = append(l.drives[drive], images...)
	return nil
}

// Args implements virtual.Hardware.
func (l *foreign) Args(w virtual.Wires) []string {
	s := l.spec
	f := machine.Files{
		Ring: l.QEMU.Ring, Turns: l.QEMU.Turns, Code: l.code, Vars: l.store, Drives: l.drives,
		Monitor: w.Monitor, Console: w.Console, Events: w.Events, Guest: w.Guest, Control: w.Control, Streams: w.Streams, Now: time.Now(),
		TPM: l.chip.control,
	}
	l.attached.add(&f)
	if w.Tap != 0 {
		s.Cards = []machine.Card{{ID: card, MAC: w.MAC}}
		f.Taps[card] = w.Tap
	}
	return s.Args(f)
}

// Form implements virtual.Hardware: nothing goes on in another run of it.
func (l *foreign) Form() []string { return nil }

// Confine implements virtual.Hardware: all comes by descriptor.
func (l *foreign) Confine(*confine.Spec) {}

// startForeign starts a foreign system, whose id is claimed.
func (d *Driver) startForeign(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	if p.Idle {
		return nil, fault.Unablef("a foreign system's files are its own to read")
	}
	l, err := d.prepareForeign(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := l.Connect(ctx, o.Link, nil); err != nil {
		return nil, err
	}
	defer l.Disconnect()
	if err := l.attached.connect(ctx, o.Links); err != nil {
		return nil, err
	}
	defer l.attached.disconnect()
	v, err := d.Attempt(ctx, p, l.Launch, o)
	if err != nil {
		return nil, err
	}
	live := d.foreign(v)
	for _, s := range l.spec.Steady() { // the next reset is not from what this start is from
		if err := v.Execute(ctx, "qom-set", map[string]any{"path": s.Path, "property": s.Property, "value": s.Value}, nil); err != nil {
			d.Log.Warn("a machine starts from the same medium again", "id", p.ID, "error", err)
		}
	}
	return live, nil
}

// Hardware implements stratum.Hoster.
func (d *Driver) Hardware(ctx context.Context, p stratum.Plan) ([]string, error) {
	l, err := d.prepareForeign(ctx, p)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, r := range l.spec.Describe() {
		if r.Part == "agent" && l.spec.Channels != machine.NoChannels {
			r.Why = "ports for strata's own, once it is installed: strata agent install"
		}
		all = append(all, r.Part+": "+r.Model+" ("+r.Why+")")
	}
	return all, nil
}
