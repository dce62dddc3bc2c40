package machine

import (
	"fmt"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/screen"
	"github.com/strata-project/strata/internal/unit"
)

// Files are QEMU's own descriptors, and how it starts. A descriptor 0 is none.
type Files struct {
	Ring  bool // images are read and written by io_uring, see qemu.Program
	Turns bool // processors take turns, see qemu.Program

	// Drives are the images by drive, opened for what the drive does with them: the
	// first is what the drive holds, each next one what that before it lies over,
	// opened for reading. Every disk has one; a CD or floppy drive without is empty.
	Drives map[string][]argv.Image

	// Plugged are the images of disks that are plugged in, of which each FD is the number
	// of a set of Sets, which begin where SetsOf says.
	Plugged map[string][]argv.Image
	Sets    []FDSet

	Code, Vars argv.Image     // of a UEFI firmware, see FindFirmware
	Taps       map[string]int // by card; a card without has no cable
	TPM        int            // swtpm's control socket, connected
	Console    int            // the first serial port, connected
	Control    int            // the agent's, a socket that listens
	Streams    int            // the agent's, connected
	Guest      int            // qemu-guest-agent's, a socket that listens
	Monitor    int            // QMP, a socket that listens
	Events     int            // QMP, connected
	Volumes    []qemu.Volume

	// Now is the time at the start, in the zone whose time the clock shows. QEMU has no
	// zones in its root. The zero value: as QEMU finds it.
	Now time.Time

	NoReset      bool // a reset ends QEMU, as a panic's
	Incoming     bool // wait for a saved system
	StartStopped bool // processors stand still until QMP says cont
}

// MaxVolumes is how many volumes a machine can have: functions of one PCI slot.
const MaxVolumes = 8

// tcgCache is how much of its translations QEMU keeps under TCG. Unit: MiB. QEMU's
// default takes 514 MiB for an idle machine where 64 takes 320. A start of a template takes 67.
const tcgCache = 80

// emulated is the processor under TCG: x86-64-v2, and random numbers. QEMU's "max"
// has vectors that systems then use, and which are slow to emulate, and five levels
// of page tables, which some cannot do. Source: the x86-64 psABI, "Micro-Architecture Levels".
const emulated = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"

// old is the processor for systems that are older than 64 bits.
const old = "pentium3"

// hyperV is what Windows makes use of. Source: QEMU, docs/system/i386/hyperv.rst.
const hyperV = ",hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff,hv-vpindex=on,hv-runtime=on,hv-time=on,hv-synic=on,hv-stimer=on,hv-frequencies=on,hv-tlbflush=on,hv-ipi=on,hv-reset=on"

// Args returns QEMU's arguments, without the program. It is pure. s is one that
// Validate lets pass.
func (s Spec) Args(f Files) []string {
	a := argv.Args{"-nodefaults", "-no-user-config"}
	a.Add(screen.Display()...)
	a.Add("-name", "guest="+argv.Escape(s.Name), "-sandbox", argv.Sandbox)
	if f.NoReset {
		a.Add("-no-reboot")
	}
	if s.UUID != "" {
		a.Add("-uuid", s.UUID)
	}
	s.board(&a, f)
	s.firmware(&a, f)
	s.clock(&a, f)
	if f.StartStopped {
		a.Add("-S")
	}
	if f.Incoming {
		a.Add("-incoming", "defer")
	}
	s.lines(&a, f)
	s.controllers(&a)
	for _, d := range s.Drives {
		s.drive(&a, d, f)
	}
	for i, c := range s.Cards {
		s.card(&a, c, i, f.Taps[c.ID])
	}
	s.people(&a)
	s.plugIn(&a, f)
	for i, v := range f.Volumes {
		id := "volume" + strconv.Itoa(i)
		a.Connected(id, v.FD)
		a.Device("vhost-user-fs-pci", "chardev="+id, "tag="+argv.Escape(v.Tag), s.root(), function(volumeSlot, i))
	}
	return a
}

// board is processors, memory and the board.
func (s Spec) board(a *argv.Args, f Files) {
	m := string(s.Platform) + ",memory-backend=ram,usb=off,vmport=off,dump-guest-core=off"
	if s.OS == Windows {
		m += ",hpet=off" // Windows would take it, and each look at it is a way out of the machine
	}
	if s.Firmware == UEFISecure {
		m += ",smm=on" // where the variables' keeper runs, away from the system
	}
	if s.uefi() {
		m += ",pflash0=code,pflash1=vars"
	}
	a.Add("-M", m)
	most := max(s.Processors.Count, s.Processors.Most)
	if s.Accel == qemu.KVM {
		a.Add("-accel", "kvm")
	} else {
		a.Add("-accel", qemu.Translator(tcgCache, f.Turns && most > 1 && !s.CPU.Nested)) // in turns, a guest inside does not come up
	}
	a.Add("-cpu", s.cpu())
	// Cores of one socket: Windows for homes and offices uses two sockets at most.
	a.Add("-smp", fmt.Sprintf("cpus=%d,maxcpus=%d,sockets=1,cores=%d,threads=1", s.Processors.Count, most, most))
	size := fmt.Sprintf("size=%dM", s.Memory.Size/unit.MiB)
	if s.Memory.Slots > 0 {
		size += fmt.Sprintf(",slots=%d,maxmem=%dM", s.Memory.Slots, s.Memory.Most/unit.MiB)
	}
	a.Add("-m", size)
	backend := "memory-backend-ram"
	share := ""
	if len(f.Volumes) > 0 {
		backend, share = "memory-backend-memfd", ",share=on"
	}
	if s.HugePages > 0 {
		backend, share = "memory-backend-memfd", qemu.Huge(s.HugePages)+",share="+argv.OnOff(len(f.Volumes) > 0)
	}
	a.Add("-object", fmt.Sprintf("%s,id=ram,size=%d%s", backend, s.Memory.Size, share))
	// A machine that sleeps looks like one that hangs, and nobody is there to wake it.
	pm := "ICH9-LPC"
	if s.Platform == PC {
		pm = "PIIX4_PM"
	}
	a.Add("-global", pm+".disable_s3=1", "-global", pm+".disable_s4=1")
}

// model64 is the processor's model in words.
func (s Spec) model64() string {
	switch {
	case s.CPU.Model != "":
		return s.CPU.Model
	case s.OS == DOS:
		return old
	case s.Accel == qemu.KVM:
		return "host"
	}
	return "qemu64 with SSE 4.2"
}

func (s Spec) cpu() string {
	model := s.model64()
	if s.CPU.Model == "" && s.OS != DOS && s.Accel != qemu.KVM {
		model = emulated
	}
	switch {
	case !s.CPU.Nested:
		model += ",vmx=off,svm=off"
	case s.Accel != qemu.KVM:
		model += ",svm=on" // of the two, QEMU emulates this one
	}
	if s.CPU.HyperV && s.Accel == qemu.KVM {
		model += hyperV
	}
	return model
}

func (s Spec) firmware(a *argv.Args, f Files) {
	// No menu, and nothing is tried that is not in the order.
	a.Add("-boot", "menu=off,strict=on")
	if !s.uefi() {
		return
	}
	a.Node(f.Code.Node("code", a.FD(f.Code.FD), true, nil))
	a.Node(f.Vars.Node("vars", a.FD(f.Vars.FD), false, nil))
	if s.Firmware == UEFISecure {
		a.Add("-global", "driver=cfi.pflash01,property=secure,value=on")
	}
}

func (s Spec) clock(a *argv.Args, f Files) {
	base := string(s.Clock)
	if s.Clock == LocalTime && !f.Now.IsZero() {
		base = f.Now.Format("2006-01-02T15:04:05")
	}
	if s.OS == Windows {
		base += ",driftfix=slew" // it counts ticks, and would miss those that came late
	}
	a.Add("-rtc", "base="+base)
}

// QEMU's names of what agents are connected by.
const (
	GuestLine   = "guest-agent" // qemu-guest-agent
	ControlLine = "control"     // strata's own
	StreamsLine = "streams"     // strata's own, whose device has the same name in a foreign system
)

// lines are the ends that the host talks to.
func (s Spec) lines(a *argv.Args, f Files) {
	a.Listening("monitor", f.Monitor)
	a.Connected("events", f.Events)
	a.Add("-mon", "chardev=monitor,mode=control", "-mon", "chardev=events,mode=control")
	a.Connected("console", f.Console)
	a.Device("isa-serial", "chardev=console", "iobase=0x3f8", "irq=4")
	if s.Channels != NoChannels {
		a.Listening("control", f.Control)
		a.Connected("streams", f.Streams)
	}
	if s.Channels == VirtioChannels || s.GuestAgent {
		a.Device("virtio-serial-pci", "id=channels", "max_ports=4", s.root(), slot(channelSlot))
	}
	switch s.Channels {
	case VirtioChannels:
		a.Device("virtserialport", "bus=channels.0", "chardev=control", "name="+qemu.ControlPort)
		a.Device("virtserialport", "bus=channels.0", "chardev=streams", "name="+qemu.StreamsPort, s.streamsID())
	case SerialChannels:
		// OVMF reads and writes COM1 and COM2, as consoles. The third port is not at the
		// first one's interrupt, as on old boards: two cannot use it at once.
		a.Device("isa-serial", "chardev=control", "iobase="+qemu.ControlIO, "irq=5")
		a.Device("isa-serial", "chardev=streams", "iobase="+qemu.StreamsIO, "irq=3")
	}
	if s.GuestAgent {
		a.Listening(GuestLine, f.Guest)
		a.Device("virtserialport", "bus=channels.0", "chardev="+GuestLine, "name="+qemu.GuestAgentPort)
	}
	if s.TPM {
		a.Connected("tpm", f.TPM)
		a.Add("-tpmdev", "emulator,id=tpm0,chardev=tpm")
		a.Device(s.tpmDevice(), "tpmdev=tpm0")
	}
	if s.Panic {
		a.Device("pvpanic")
	}
	if s.Balloon {
		a.Device("virtio-balloon-pci", "id="+qemu.Balloon, "free-page-reporting=on", "deflate-on-oom=on", s.root(), slot(balloonSlot))
	}
}

// streamsID names the streams' port in a system where an agent may come and go, so that
// QEMU tells of that. One that is there from the start is not told of.
func (s Spec) streamsID() string {
	if s.GuestAgent {
		return "id=" + StreamsLine
	}
	return ""
}

func (s Spec) tpmDevice() string {
	if s.Platform == PC {
		return "tpm-tis"
	}
	return "tpm-crb"
}

// people are screen, keyboard and pointer.
func (s Spec) people(a *argv.Args) {
	if device := adapters[s.Screen]; device != "" {
		a.Device(device, "id=screen", s.root(), slot(s.screenSlot()))
	}
	if !s.Tablet && s.Keyboard != USB {
		return
	}
	if s.Platform == PC {
		a.Device("piix3-usb-uhci", "id=usb", s.root(), function(1, 2)) // where the board's own would be
	} else {
		a.Device("qemu-xhci", "id=usb", s.root(), slot(usbSlot), s.usbPorts())
	}
	if s.Tablet {
		a.Device("usb-tablet", "bus=usb.0", "port=1")
	}
	if s.Keyboard == USB {
		a.Device("usb-kbd", "bus=usb.0", "port=2")
	}
}

// adapters are QEMU's devices.
var adapters = map[Screen]string{StdVGA: "VGA", Cirrus: "cirrus-vga", VirtioVGA: "virtio-vga"}
