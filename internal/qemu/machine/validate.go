package machine

import (
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

// Limits.
const (
	// MaxProcessors: APIC ids of one byte, of which one is everybody's. More take an
	// interrupt remapper that systems must know. Source: QEMU, hw/i386/pc.c.
	MaxProcessors = 255
	// MaxMemory is less than what 40 bits of addresses reach, which QEMU's emulated
	// processor has, with devices and the room for what is plugged in beside it.
	MaxMemory = 512 * unit.GiB
	// MaxSlots is what the firmware's tables have room for. Source: QEMU,
	// include/hw/acpi/acpi.h, ACPI_MAX_RAM_SLOTS.
	MaxSlots = 256
	// leastBIOS and leastUEFI are what the firmware comes up with. Pinned by
	// TestQEMUTakesWhatValidateTakes.
	leastBIOS = 8 * unit.MiB
	leastUEFI = 128 * unit.MiB
)

// room is how many drives a bus takes.
func (s Spec) room(b Bus) int {
	switch b {
	case AHCI:
		return 6
	case IDE:
		return 4
	case FDC:
		return 2
	case VirtioSCSI:
		return 64
	}
	if s.Platform == PC {
		return 8
	}
	return 16
}

// Forms of words that become part of a command line.
var (
	nameForm   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
	modelForm  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)
	uuidForm   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	serialForm = regexp.MustCompile(`^[a-zA-Z0-9_.-]{0,20}$`) // 20: ATA8-ACS, words 10 to 19; NVMe and virtio have as many
	driveForm  = regexp.MustCompile(`^(disk|cd|floppy)[0-9]{1,2}$`)
	cardForm   = regexp.MustCompile(`^card[0-9]{1,2}$`)
)

// faults are all that is wrong.
type faults []error

func (f *faults) add(e *fault.Error, field, help string, args ...any) {
	*f = append(*f, e.At(field).Help(help, args...))
}

// oneOf complains of a value that is none of those.
func oneOf[T ~string](f *faults, field string, value T, values ...T) {
	if !slices.Contains(values, value) {
		f.add(fault.Invalidf("%q is not known", value), field, "one of %s", list(values))
	}
}

// Validate says all that is wrong with s, each with the field and what would be
// accepted. nil: QEMU takes it. Kinds: Invalid, for what no host could do.
func (s Spec) Validate() error {
	var f faults
	oneOf(&f, "os", s.OS, Systems()...)
	oneOf(&f, "platform", s.Platform, Q35, PC)
	oneOf(&f, "firmware", s.Firmware, BIOS, UEFI, UEFISecure)
	oneOf(&f, "accelerator", s.Accel, qemu.KVM, qemu.TCG)
	oneOf(&f, "screen", s.Screen, StdVGA, Cirrus, VirtioVGA, NoScreen)
	oneOf(&f, "keyboard", s.Keyboard, PS2, USB)
	oneOf(&f, "clock", s.Clock, UTC, LocalTime)
	oneOf(&f, "channels", s.Channels, NoChannels, VirtioChannels, SerialChannels)
	oneOf(&f, "bus", s.Bus, AHCI, IDE, VirtioBlk, VirtioSCSI, NVMe)
	oneOf(&f, "card", s.Card, E1000, E1000E, RTL8139, VirtioNet)
	if !nameForm.MatchString(s.Name) {
		f.add(fault.Invalidf("%q is no name", s.Name), "name", "letters, digits, and . _ - after the first")
	}
	if s.UUID != "" && !uuidForm.MatchString(s.UUID) {
		f.add(fault.Invalidf("%q is no UUID", s.UUID), "uuid", "such as 5d3c1f5e-7f0a-4d0b-9a52-0c8f6d1f2b11")
	}
	if len(f) > 0 {
		return fault.Join(f...) // the rest is about combinations of known values
	}
	if s.uefi() && s.Platform == PC {
		f.add(fault.Invalidf("%s does not start on pc as it should: OVMF loses an IDE channel there", s.Firmware), "firmware", "bios, or platform q35")
	}
	s.checkProcessors(&f)
	s.checkMemory(&f)
	s.checkDrives(&f)
	s.checkCards(&f)
	s.checkBoot(&f)
	s.checkPlugged(&f)
	if s.Spare < 0 || s.Spare > maxSpare {
		f.add(fault.Invalidf("%d spare places", s.Spare), "spare", "0 to %d", maxSpare)
	}
	return fault.Join(f...)
}

func (s Spec) checkProcessors(f *faults) {
	p := s.Processors
	switch {
	case p.Count < 1 || p.Count > MaxProcessors:
		f.add(fault.Invalidf("%d processors are not what %s has", p.Count, s.Platform), "processors.count", "1 to %d", MaxProcessors)
	case p.Most != 0 && (p.Most < p.Count || p.Most > MaxProcessors):
		f.add(fault.Invalidf("%d processors at most, with %d from the start", p.Most, p.Count), "processors.most", "%d to %d, or 0", p.Count, MaxProcessors)
	}
	c := s.CPU
	switch {
	case c.Model != "" && !modelForm.MatchString(c.Model):
		f.add(fault.Invalidf("%q is no model of a processor", c.Model), "cpu.model", "a name that qemu-system-x86_64 -cpu help lists")
	case c.Model == "host" && s.Accel != qemu.KVM:
		f.add(fault.Invalidf("the host's own processor is there by KVM only, and this machine runs by %s", s.Accel), "cpu.model", "max, qemu64, or another name that qemu-system-x86_64 -cpu help lists")
	case c.Nested && s.Accel == qemu.KVM && c.Model != "host" && (c.Model != "" || s.OS == DOS):
		f.add(fault.Invalidf("virtualization inside %s is not known to work", s.model64()), "cpu.nested", "model host")
	}
}

func (s Spec) checkMemory(f *faults) {
	m, least := s.Memory, unit.Size(leastBIOS)
	if s.uefi() {
		least = leastUEFI
	}
	whole := func(field string, v unit.Size) {
		if v%unit.MiB != 0 {
			f.add(fault.Invalidf("%d bytes are no whole number of MiB", v), field, "such as 512M")
		}
	}
	if m.Size < least || m.Size > MaxMemory {
		f.add(fault.Invalidf("%s of memory are not what %s with %s has", m.Size, s.Platform, s.Firmware), "memory.size", "%s to %s", least, unit.Size(MaxMemory))
	}
	whole("memory.size", m.Size)
	whole("memory.most", m.Most)
	if m.Most != 0 && (m.Most <= m.Size || m.Most > MaxMemory) {
		f.add(fault.Invalidf("%s of memory at most, with %s from the start", m.Most, m.Size), "memory.most", "more than %s, to %s, or 0", m.Size, unit.Size(MaxMemory))
	}
	if m.Most != 0 && s.HugePages != 0 {
		f.add(fault.Unablef("memory that lies in huge pages cannot grow while the machine runs"), "memory.most", "leave out one of the two")
	}
	if m.Slots < 0 || m.Slots > MaxSlots || (m.Slots == 0) != (m.Most == 0) {
		f.add(fault.Invalidf("%d slots for memory that is plugged in, and %s at most", m.Slots, m.Most), "memory.slots", "1 to %d with memory.most, or 0 without", MaxSlots)
	}
}

func (s Spec) checkDrives(f *faults) {
	seen := map[string]bool{}
	for _, d := range s.Drives {
		field := "drives." + d.ID
		if !driveForm.MatchString(d.ID) || !strings.HasPrefix(d.ID, string(d.Medium)) || seen[d.ID] {
			f.add(fault.Invalidf("%q is no name of its own for a %s", d.ID, d.Medium), "drives", "its medium, which is disk, cd or floppy, and a number, such as disk0")
			continue
		}
		seen[d.ID] = true
		if !serialForm.MatchString(d.Serial) {
			f.add(fault.Invalidf("%q is no serial number of a drive", d.Serial), field+".serial", "at most 20 letters, digits, and . _ -")
		}
		s.checkBus(f, d, field+".bus")
		bus := s.bus(d)
		if d.ReadOnly && d.Medium == Disk && bus != VirtioBlk && bus != VirtioSCSI {
			f.add(fault.Invalidf("disks on %s can be written to", bus), field+".read-only", "a cd, or bus virtio-blk or virtio-scsi")
		}
	}
	for _, b := range []Bus{AHCI, IDE, FDC, VirtioSCSI} {
		if n := len(s.on(b)); n > s.room(b) {
			f.add(fault.Invalidf("%d drives are more than %s has room for", n, b), "drives", "at most %d on %s; others on another bus, such as virtio-scsi", s.room(b), b)
		}
	}
	if n := s.plugged(); n > s.room(VirtioBlk) {
		f.add(fault.Invalidf("%d drives on virtio-blk and nvme are more than %s has places for", n, s.Platform), "drives", "at most %d; others on another bus, such as virtio-scsi", s.room(VirtioBlk))
	}
}

func (s Spec) checkBus(f *faults, d Drive, field string) {
	bus := s.bus(d)
	accepted := []Bus{AHCI, VirtioBlk, VirtioSCSI, NVMe}
	if s.Platform == PC {
		accepted = []Bus{IDE, AHCI, VirtioBlk, VirtioSCSI}
	}
	switch d.Medium {
	case CD:
		accepted = slices.DeleteFunc(accepted, func(b Bus) bool { return b == VirtioBlk || b == NVMe })
	case Floppy:
		accepted = []Bus{FDC}
		if s.uefi() {
			f.add(fault.Invalidf("UEFI knows no floppies"), field, "firmware bios, or a cd")
		}
	}
	if !slices.Contains(accepted, bus) {
		f.add(fault.Invalidf("there is no %s on %s of a %s", d.Medium, bus, s.Platform), field, "one of %s", list(accepted))
	}
}

func (s Spec) checkCards(f *faults) {
	if len(s.Cards) > maxCards {
		f.add(fault.Invalidf("%d network cards", len(s.Cards)), "cards", "at most %d", maxCards)
	}
	accepted := []CardModel{E1000, RTL8139, VirtioNet}
	if s.Platform == Q35 {
		accepted = append(accepted, E1000E)
	}
	seen := map[string]bool{}
	for _, c := range s.Cards {
		field := "cards." + c.ID
		if !cardForm.MatchString(c.ID) || seen[c.ID] {
			f.add(fault.Invalidf("%q is no name of its own for a network card", c.ID), "cards", "card and a number, such as card0")
			continue
		}
		seen[c.ID] = true
		if m := s.model(c); !slices.Contains(accepted, m) {
			f.add(fault.Invalidf("there is no network card %s for a %s", m, s.Platform), field+".model", "one of %s", list(accepted))
		}
		if mac, err := net.ParseMAC(c.MAC); c.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0 || !strings.Contains(c.MAC, ":")) {
			f.add(fault.Invalidf("%q is no card's address", c.MAC), field+".mac", "such as 52:54:00:12:34:56; the first number is even")
		}
	}
}

func (s Spec) checkBoot(f *faults) {
	var known []string
	for _, d := range s.Drives {
		known = append(known, d.ID)
	}
	for _, c := range s.Cards {
		known = append(known, c.ID)
	}
	for i, id := range s.Boot {
		if !slices.Contains(known, id) || slices.Contains(s.Boot[:i], id) {
			f.add(fault.Invalidf("%q cannot be booted from, or twice", id), "boot", "each once, of %s", list(known))
		}
	}
	if s.Once != "" && (!slices.Contains(known, s.Once) || strings.HasPrefix(s.Once, string(Floppy))) {
		f.add(fault.Invalidf("the machine cannot start once from %q", s.Once), "once", "a disk, CD or card of %s", list(known))
	}
}
