package machine

import (
	"github.com/strata-project/strata/internal/unit"
)

// OS is the kind of system that a machine is made for. It decides on defaults only.
type OS string

// The kinds of systems.
const (
	Linux   OS = "linux"
	Windows OS = "windows"
	BSD     OS = "bsd"
	DOS     OS = "dos" // and what ran beside it: Windows 3 to 98, OS/2
	Other   OS = "other"
)

// Platform is the board.
type Platform string

// The boards.
const (
	Q35 Platform = "q35"
	PC  Platform = "pc"
)

// Firmware is what the machine starts with.
type Firmware string

// The firmwares.
const (
	BIOS       Firmware = "bios"        // SeaBIOS
	UEFI       Firmware = "uefi"        // OVMF
	UEFISecure Firmware = "uefi-secure" // OVMF that starts only what is signed (Secure Boot)
)

// Medium is what a drive holds.
type Medium string

// The media.
const (
	Disk   Medium = "disk"
	CD     Medium = "cd"
	Floppy Medium = "floppy"
)

// Bus is what a drive is attached to.
type Bus string

// The buses of drives. A floppy's is always FDC.
const (
	AHCI       Bus = "ahci"
	IDE        Bus = "ide"
	VirtioBlk  Bus = "virtio-blk"
	VirtioSCSI Bus = "virtio-scsi"
	NVMe       Bus = "nvme"
	USBStorage Bus = "usb" // of what is plugged in
	FDC        Bus = "floppy"
)

// CardModel is a network card.
type CardModel string

// The network cards.
const (
	E1000     CardModel = "e1000"
	E1000E    CardModel = "e1000e"
	RTL8139   CardModel = "rtl8139"
	VirtioNet CardModel = "virtio"
)

// Screen is the display adapter.
type Screen string

// The display adapters.
const (
	StdVGA    Screen = "std"
	Cirrus    Screen = "cirrus"
	VirtioVGA Screen = "virtio"
	NoScreen  Screen = "none"
)

// Keyboard says where the keyboard is.
type Keyboard string

// The keyboards. The board has a PS/2 one in any case.
const (
	PS2 Keyboard = "ps2"
	USB Keyboard = "usb"
)

// Clock says what the battery-backed clock shows.
type Clock string

// The clocks.
const (
	UTC       Clock = "utc"
	LocalTime Clock = "localtime"
)

// Channels says how the agent inside talks to the host.
type Channels string

// The channels.
const (
	NoChannels     Channels = "none"   // there is no agent
	VirtioChannels Channels = "virtio" // two ports of a virtio-serial device
	SerialChannels Channels = "serial" // the third and fourth serial port
)

// CPU is the processor's model.
type CPU struct {
	Model  string `json:"model,omitempty"` // of QEMU's list; "": the accelerator's default
	Nested bool   `json:"nested,omitempty"`
	HyperV bool   `json:"hyperv,omitempty"` // what Windows knows of Hyper-V, by KVM only
}

// Processors are how many there are, and may be later.
type Processors struct {
	Count int `json:"count"`
	Most  int `json:"most,omitempty"` // with those that can be plugged in; 0: none can
}

// Memory is how much there is, and may be later.
type Memory struct {
	Size  unit.Size `json:"size"`
	Most  unit.Size `json:"most,omitempty"`  // with what can be plugged in; 0: nothing can
	Slots int       `json:"slots,omitempty"` // for what is plugged in
}

// Drive is a disk, or a drive with or without a medium.
type Drive struct {
	ID       string `json:"id"` // of the device and its block node, such as disk0
	Medium   Medium `json:"medium"`
	Bus      Bus    `json:"bus,omitempty"` // "": Spec.Bus, and FDC for a floppy
	Serial   string `json:"serial,omitempty"`
	ReadOnly bool   `json:"read-only,omitempty"` // of disks on virtio and floppies; CDs always are
}

// Card is a network card.
type Card struct {
	ID    string    `json:"id"` // such as card0
	Model CardModel `json:"model,omitempty"`
	MAC   string    `json:"mac,omitempty"`
}

// Spec is a whole machine but for its files. It is plain data, which can be kept.
// Defaults makes one; the zero value is none.
type Spec struct {
	Name       string     `json:"name"`
	UUID       string     `json:"uuid,omitempty"` // as the system sees it, for licences that are bound to it
	OS         OS         `json:"os"`
	Platform   Platform   `json:"platform"`
	Firmware   Firmware   `json:"firmware"`
	Accel      string     `json:"accelerator"` // qemu.KVM or qemu.TCG
	CPU        CPU        `json:"cpu"`
	Processors Processors `json:"processors"`
	Memory     Memory     `json:"memory"`
	HugePages  unit.Size  `json:"huge-pages,omitempty"` // of the host, that memory lies in; 0: usual ones
	Bus        Bus        `json:"bus"`                  // of drives that name none
	Card       CardModel  `json:"card"`                 // of cards that name none
	Drives     []Drive    `json:"drives,omitempty"`
	Cards      []Card     `json:"cards,omitempty"`
	Screen     Screen     `json:"screen"`
	Tablet     bool       `json:"tablet,omitempty"` // a USB pointer that says where it is
	Keyboard   Keyboard   `json:"keyboard"`
	Clock      Clock      `json:"clock"`
	TPM        bool       `json:"tpm,omitempty"` // 2.0
	Channels   Channels   `json:"channels"`
	GuestAgent bool       `json:"guest-agent,omitempty"` // a port for qemu-guest-agent
	Panic      bool       `json:"panic,omitempty"`       // a device by which the system says that it panicked
	Balloon    bool       `json:"balloon,omitempty"`     // virtio's, by which the system gives memory back
	Spare      int        `json:"spare,omitempty"`       // places for devices that are plugged in later
	Plugged    []Plugged  `json:"plugged,omitempty"`
	Boot       []string   `json:"boot,omitempty"` // IDs, first first; none: disks, then CDs, then floppies
	Once       string     `json:"once,omitempty"` // ID of what is booted first until Steady is applied
}

// Grow has the board take memory while it runs, up to most in so many pieces; 0: none.
func (s *Spec) Grow(most unit.Size, slots int) {
	s.Memory.Most, s.Memory.Slots = most, slots
	if most == 0 {
		s.Memory.Slots = 0
	}
}

// bus is what the drive is attached to.
func (s Spec) bus(d Drive) Bus {
	switch {
	case d.Medium == Floppy && d.Bus == "":
		return FDC
	case d.Bus == "" && d.Medium == CD && (s.Bus == VirtioBlk || s.Bus == NVMe):
		// Neither has CD drives: the board's own controller has.
		if s.Platform == PC {
			return IDE
		}
		return AHCI
	case d.Bus == "":
		return s.Bus
	}
	return d.Bus
}

// model is the card's.
func (s Spec) model(c Card) CardModel {
	if c.Model == "" {
		return s.Card
	}
	return c.Model
}

// on returns the drives that are attached to a bus.
func (s Spec) on(bus Bus) (found []Drive) {
	for _, d := range s.Drives {
		if s.bus(d) == bus {
			found = append(found, d)
		}
	}
	return found
}

// uefi tells whether the firmware is one of OVMF's.
func (s Spec) uefi() bool { return s.Firmware == UEFI || s.Firmware == UEFISecure }
