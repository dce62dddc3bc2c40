package machine

import (
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

// Systems are the kinds of systems that there are defaults for.
func Systems() []OS { return []OS{Linux, Windows, BSD, DOS, Other} }

// choice is a part's value for a kind of system, and why it is.
type choice struct{ value, why string }

// everyOS is where a part's table says what holds for kinds that it does not name.
const everyOS OS = ""

// table is all that Defaults chooses and Describe explains, in the order in which it
// is printed, the board first, as others depend on it. set takes only values of the
// table.
var table = []struct {
	part string
	set  func(*Spec, string)
	get  func(Spec) string
	by   map[OS]choice
	pc   choice // where a pc is asked for and q35 is usual; "": no other
}{
	{"board", func(s *Spec, v string) { s.Platform = Platform(v) }, func(s Spec) string { return string(s.Platform) }, map[OS]choice{
		everyOS: {"q35", "PCI Express and AHCI, as computers have them since 2007; devices can be plugged in"},
		DOS:     {"pc", "PCI, IDE and a floppy controller, as computers had them in 1996"},
	}, choice{}},
	{"firmware", func(s *Spec, v string) { s.Firmware = Firmware(v) }, func(s Spec) string { return string(s.Firmware) }, map[OS]choice{
		everyOS: {"bios", "SeaBIOS starts in a quarter of a second, OVMF in three, and boots nearly everything"},
		Windows: {"uefi", "Windows 11 starts by UEFI only, and 10 is sold on nothing else"},
		DOS:     {"bios", "it calls the BIOS"},
	}, choice{"bios", "UEFI does not start on a pc as it should"}},
	{"processors", func(s *Spec, v string) { s.Processors.Count, _ = strconv.Atoi(v) }, func(s Spec) string { return strconv.Itoa(s.Processors.Count) }, map[OS]choice{
		everyOS: {"1", "one, unless --cpus says otherwise"},
		Windows: {"2", "Windows 11 asks for two"},
		DOS:     {"1", "it knows of one"},
	}, choice{}},
	{"memory", setMemory, func(s Spec) string { return s.Memory.Size.String() }, map[OS]choice{
		everyOS: {"1G", "current systems' installers need that much"},
		Windows: {"4G", "what Windows 11 asks for"},
		DOS:     {"64M", "more than 64M is more than most of its programs can count"},
		Other:   {"512M", "enough for what is small; say --memory where it is not"},
	}, choice{}},
	{"disks", func(s *Spec, v string) { s.Bus = Bus(v) }, func(s Spec) string { return string(s.Bus) }, map[OS]choice{
		everyOS: {"ahci", "the board's own controller, which every system since 2007 has a driver for"},
		DOS:     {"ide", "the board's own controller, which the BIOS and every old system know"},
	}, choice{"ide", "the controller of this board"}},
	{"network card", func(s *Spec, v string) { s.Card = CardModel(v) }, func(s Spec) string { return string(s.Card) }, map[OS]choice{
		everyOS: {"e1000", "Intel's 82540EM: nearly every system has had a driver since 2002"},
		Linux:   {"e1000e", "Intel's 82574L: in every kernel since 2.6.24, and can be plugged in"},
		Windows: {"e1000e", "Intel's 82574L: Windows brings its driver since 8"},
		DOS:     {"rtl8139", "there are packet drivers for it, and drivers for Windows 95"},
	}, choice{"e1000", "there is no PCI Express on this board"}},
	{"screen", func(s *Spec, v string) { s.Screen = Screen(v) }, func(s Spec) string { return string(s.Screen) }, map[OS]choice{
		everyOS: {"std", "VGA with VESA modes, which needs no driver"},
		DOS:     {"cirrus", "Cirrus Logic's GD5446, for which Windows 3 and 95 have a driver"},
	}, choice{}},
	{"pointer", func(s *Spec, v string) { s.Tablet = v == tablet }, pointer, map[OS]choice{
		everyOS: {tablet, "it says where it is, so that the viewer's pointer and the system's are one"},
		DOS:     {mouse, "there are no USB drivers"},
	}, choice{}},
	{"keyboard", func(s *Spec, v string) { s.Keyboard = Keyboard(v) }, func(s Spec) string { return string(s.Keyboard) }, map[OS]choice{
		everyOS: {"ps2", "it works in firmware and boot loaders as well, without a driver"},
	}, choice{}},
	{"clock", func(s *Spec, v string) { s.Clock = Clock(v) }, func(s Spec) string { return string(s.Clock) }, map[OS]choice{
		everyOS: {"utc", "what Unix systems expect of it"},
		Windows: {"localtime", "what Windows expects of it"},
		DOS:     {"localtime", "DOS knows no time zones"},
	}, choice{}},
	{"agent", func(s *Spec, v string) { s.Channels = Channels(v) }, func(s Spec) string { return string(s.Channels) }, map[OS]choice{
		everyOS: {"none", "nothing of strata's is inside, unless it is put there"},
	}, choice{}},
	{"guest agent", func(s *Spec, v string) { s.GuestAgent = v == guestPort }, guestAgent, map[OS]choice{
		everyOS: {guestPort, "by port " + qemu.GuestAgentPort + " strata speaks with qemu-guest-agent, where that is installed"},
		DOS:     {"none", "there is none for it"},
		Other:   {"none", "not known whether there is one for it: say --os where there is"},
	}, choice{}},
	{"spare places", func(s *Spec, v string) { s.Spare, _ = strconv.Atoi(v) }, func(s Spec) string { return strconv.Itoa(s.Spare) }, map[OS]choice{
		everyOS: {"4", "for disks and cards that are plugged in while it runs"},
		DOS:     {"0", "it finds devices at its start only"},
	}, choice{"0", "this board finds devices at its start only"}},
}

// guestPort is where qemu-guest-agent is listened for.
const guestPort = "virtio-serial"

func guestAgent(s Spec) string {
	if s.GuestAgent {
		return guestPort
	}
	return "none"
}

// The pointers.
const (
	tablet = "usb-tablet"
	mouse  = "ps2-mouse"
)

func pointer(s Spec) string {
	if s.Tablet {
		return tablet
	}
	return mouse
}

func setMemory(s *Spec, v string) { s.Memory.Size, _ = unit.ParseSize(v) }

// usual returns what a row of the table chooses for a kind of system on a board.
func usual(by map[OS]choice, pc choice, os OS, p Platform) choice {
	if pc.value != "" && (p == PC) != (os == DOS) && p != "" { // another board than the kind's usual one
		if p == PC {
			return pc
		}
		return by[everyOS]
	}
	if c, ok := by[os]; ok {
		return c
	}
	return by[everyOS]
}

// Host is what there is on the host, as far as defaults depend on it.
type Host struct {
	Accel string // qemu.KVM or qemu.TCG
	TPM   bool   // see FindTPM
}

// Defaults returns the machine for a kind of system on a board, "" for the usual one,
// with no drives and no cards. Kinds: Invalid where there is no such kind.
func Defaults(os OS, p Platform, h Host) (Spec, error) {
	var f faults
	oneOf(&f, "os", os, Systems()...)
	if p != "" {
		oneOf(&f, "platform", p, Q35, PC)
	}
	if len(f) > 0 {
		return Spec{}, fault.Join(f...)
	}
	s := Spec{OS: os, Accel: h.Accel}
	for _, row := range table {
		row.set(&s, usual(row.by, row.pc, os, s.Platform).value)
		if row.part == "board" && p != "" {
			s.Platform = p
		}
	}
	s.CPU.HyperV = os == Windows
	s.TPM = os == Windows && h.TPM
	return s, nil
}

// list writes the values that would be accepted.
func list[T ~string](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
