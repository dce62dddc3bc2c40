package machine

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// The drives, in the order in which they are on the controller.
const (
	bootDrive     = "disk0"
	templateDrive = "disk1"
	privateDrive  = "disk2"
)

// card is the network card.
const card = "card0"

// bootSerial is the boot disk's serial number. Those of the others are a guest's.
const bootSerial = "strata-boot"

// consoles are where the kernel writes; the last is process 1's: the first serial
// port, at a speed that costs nothing here.
var consoles = []string{"tty0", "ttyS0,115200"}

// launch is a whole machine as a value, but for descriptors. It is its own hardware.
type launch struct {
	*virtual.Launch
	plan     stratum.Plan
	state    string // strata's own folder, of which nothing is an attached image
	spec     machine.Spec
	boot     kernel.Image // the boot disk
	firmware machine.Found
	vars     string // path of the UEFI variables
	template string // path of the template's image

	code, store argv.Image   // the firmware, and its variables
	bootImages  []argv.Image // of the boot disk and what is written to it
	layer       argv.Image   // what is written to the template

	attached attached
	chip     chip
}

// prepare finds out all that p needs, and changes nothing but what is kept for all.
func (d *Driver) prepare(ctx context.Context, p stratum.Plan) (*launch, error) {
	needed, err := drivers(p)
	if err != nil {
		return nil, err
	}
	common, err := d.Prepare(ctx, p, needed)
	if err != nil {
		return nil, err
	}
	l := &launch{Launch: common, plan: p, state: d.o.Places.State, template: p.Whole.Path}
	l.Hardware = l
	return l, d.furnish(ctx, p, l)
}

// furnish makes the hardware of l by its accelerator.
func (d *Driver) furnish(ctx context.Context, p stratum.Plan, l *launch) (err error) {
	boot := l.Notes.Boot
	if p.Hardware.AgentPort, err = agentPort(p, l.Kernel); err != nil {
		return err
	}
	l.Serial = p.Hardware.AgentPort == serialPort
	if l.spec, err = hardware(p, boot.Accelerator); err != nil {
		return err
	}
	l.spec.Memory.Size, l.spec.Processors.Count = boot.Memory, l.Notes.Present
	if l.From == nil { // else it is what it was, whatever the host has by now
		l.Notes.Boot.MostCPUs = roomHere(l.spec)
	}
	l.spec.Processors.Most = l.Notes.Boot.MostCPUs
	if l.From == nil {
		l.Notes.Boot.MostMemory = l.spec.Memory.Most
	}
	l.spec.Grow(l.Notes.Boot.MostMemory, virtual.MemorySlots)
	if l.spec.HugePages = p.Resources.HugePages; l.spec.HugePages != 0 {
		l.spec.Balloon = false // nothing smaller than a huge page goes back
	}
	if err := valid(carded(l.spec), "hardware."); err != nil {
		return err
	}
	if l.chip, err = d.chip(ctx, l.spec); err != nil {
		return err
	}
	if l.spec.Firmware != machine.BIOS {
		if l.firmware, err = machine.FindFirmware(l.spec.Firmware, machine.FirmwareFolders()); err != nil {
			return err
		}
		l.vars = filepath.Join(filepath.Dir(p.Disk), varsFile)
	}
	l.boot, err = d.o.Kernels.BootDisk(ctx, l.Kernel, l.Image, qemu.CommandLine(boot.Accelerator, counter(qemu.TSC()), !p.System, consoles...))
	return err
}

// counterStep is how exactly a boot disk says how fast the time stamp counter runs, so
// that a next daemon's measurement does not ask for another disk. The kernel measures
// the rest itself, by this board's timers. Unit: kHz.
const counterStep = 1000

func counter(khz int) int { return (khz + counterStep/2) / counterStep * counterStep }

// firmwares are the words for them.
var firmwares = map[string]machine.Firmware{"bios": machine.BIOS, "uefi": machine.UEFI, "secure": machine.UEFISecure}

// hardware is the board of a template: what is usual for Linux, with the drives and the
// card that it has, the agent's channels, and nothing to be plugged in.
func hardware(p stratum.Plan, accelerator string) (machine.Spec, error) {
	s, err := machine.Defaults(machine.Linux, cmp.Or(machine.Platform(p.Hardware.Board), machine.Q35), machine.Host{Accel: accelerator})
	if err != nil {
		return s, err
	}
	s.Name, s.Channels, s.GuestAgent, s.Panic = p.Name, machine.VirtioChannels, false, true
	if p.Firmware != "" {
		s.Firmware = firmwares[p.Firmware]
	}
	if p.Hardware.Floppy != "" {
		return s, fault.Invalidf("a template boots from a disk of strata's, and has no use for a floppy").At("hardware.floppy").Help("show it a folder of the host (-v)")
	}
	if s.Firmware == machine.UEFISecure {
		return s, fault.Invalidf("a template's boot disk is not signed, so it cannot have the firmware secure").At("firmware").Help("bios or uefi")
	}
	size, room, err := virtual.Memory(p.Resources, p.Hardware.MemoryMax)
	if err != nil {
		return s, err
	}
	s.Memory.Size = size
	s.Grow(room, virtual.MemorySlots)
	s.Balloon = true
	if p.Hardware.AgentPort == serialPort {
		s.Channels, s.Balloon = machine.SerialChannels, false // all of it stock hardware
	}
	s.Tablet = false // its driver is not in the initramfs
	s.Drives = []machine.Drive{
		{ID: bootDrive, Medium: machine.Disk, Serial: bootSerial},
		{ID: templateDrive, Medium: machine.Disk, Serial: qemu.TemplateSerial},
		{ID: privateDrive, Medium: machine.Disk, Serial: qemu.DiskSerial},
	}
	s.Boot = []string{bootDrive}
	for _, d := range p.Devices {
		s.Plugged = append(s.Plugged, plugged(d))
	}
	return s, choose(&s, p.Hardware, "hardware.")
}

// carded is s with a network card, which not all systems get.
func carded(s machine.Spec) machine.Spec {
	s.Cards = []machine.Card{{ID: card}}
	return s
}

// Open implements virtual.Hardware.
func (l *launch) Open(h *virtual.Handed) error {
	disk, err := os.Open(l.boot.Path)
	if err != nil {
		return fault.Internalf("open the boot disk: %w", err)
	}
	under := argv.Image{Format: "raw", FD: h.Add(disk)}
	over, err := layer(l.boot.Size)
	if err != nil {
		return err
	}
	l.bootImages = []argv.Image{{Format: layerFormat, FD: h.Add(over)}, under}
	template, err := os.Stat(l.template)
	if err != nil {
		return fault.Internalf("look at the template's image: %w", err)
	}
	if over, err = layer(template.Size()); err != nil {
		return err
	}
	l.layer = argv.Image{Format: layerFormat, FD: h.Add(over)}
	if err := l.attached.open(l.plan.Devices, l.state, h); err != nil {
		return err
	}
	if l.vars == "" {
		return nil
	}
	return l.openFirmware(h)
}

// varsFile has the variables of a machine's UEFI, beside its private disk.
const varsFile = "uefi-vars"

// openFirmware opens OVMF and the environment's own variables, which it makes.
func (l *launch) openFirmware(h *virtual.Handed) (err error) {
	l.code, l.store, err = openFirmware(l.firmware, l.vars, h)
	return err
}

// openFirmware opens a firmware and its variables at path, which it makes where they are
// missing.
func openFirmware(found machine.Found, path string, h *virtual.Handed) (code, store argv.Image, err error) {
	program, err := os.Open(found.Code)
	if err != nil {
		return code, store, fault.Unablef("open the firmware: %w", err).At("firmware")
	}
	code = argv.Image{Format: found.CodeFormat, FD: h.Add(program)}
	vars, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := found.NewVars(path); err != nil {
			return code, store, err
		}
		vars, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return code, store, fault.Internalf("open the variables of the firmware: %w", err)
	}
	return code, argv.Image{Format: found.VarsFormat, FD: h.Add(vars)}, nil
}

// Args implements virtual.Hardware.
func (l *launch) Args(w virtual.Wires) []string {
	s := l.spec
	f := machine.Files{
		Ring: l.QEMU.Ring, Turns: l.QEMU.Turns, Code: l.code, Vars: l.store, NoReset: true, Incoming: l.From != nil, Volumes: w.Volumes,
		Drives: map[string][]argv.Image{
			bootDrive:     l.bootImages,
			templateDrive: {l.layer, {Format: "raw", FD: w.Template}},
			privateDrive:  {{Format: "raw", FD: w.Disk}},
		},
		Control: w.Control, Monitor: w.Monitor, Streams: w.Streams, Console: w.Console, Events: w.Events, TPM: l.chip.control,
	}
	l.attached.add(&f)
	if w.Tap != 0 { // a system without a network has no card
		s.Cards = []machine.Card{{ID: card, MAC: w.MAC}}
		f.Taps[card] = w.Tap
	}
	return s.Args(f)
}

// Confine implements virtual.Hardware: all comes by descriptor.
func (l *launch) Confine(*confine.Spec) {}

// Rehearse implements stratum.Rehearser.
func (d *Driver) Rehearse(ctx context.Context, p stratum.Plan) error {
	if _, err := d.prepare(ctx, p); err != nil {
		return err
	}
	return d.Driver.Rehearse(ctx, p)
}

// Start implements stratum.Driver.
func (d *Driver) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	release, err := d.Held.Claim(p.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	if p.Foreign != nil {
		return d.startForeign(ctx, p, o)
	}
	l, err := d.prepare(ctx, p)
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
	if l.From != nil {
		v, err := d.Attempt(ctx, p, l.Launch, o)
		if err != nil {
			return nil, err
		}
		return d.live(v), nil
	}
	l.Notes.Boot.Cold = "a machine is always booted"
	v, err := d.AttemptTwice(ctx, p, l.Launch, o, func(ctx context.Context, accelerator string) error {
		fresh, err := d.prepare(ctx, p)
		if err != nil {
			return err
		}
		fresh.Tap, fresh.Notes.Boot.Cold = l.Tap, l.Notes.Boot.Cold
		fresh.Notes.Boot.Accelerator, fresh.Notes.Boot.Why = accelerator, l.Notes.Boot.Why
		*l.Launch = *fresh.Launch
		l.Hardware = l
		return d.furnish(ctx, p, l)
	})
	if err != nil {
		return nil, err
	}
	return d.live(v), nil
}
