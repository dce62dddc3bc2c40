package machine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/qemu"
)

// Row is a part of the machine, for people.
type Row struct {
	Part  string `json:"part"`
	Model string `json:"model"`
	Why   string `json:"why"`
}

// asked is the reason of what differs from the defaults.
const asked = "asked for"

// Describe returns what the machine has, and why. It is what `strata plan` prints.
func (s Spec) Describe() []Row {
	var rows []Row
	for _, t := range table {
		expected := usual(t.by, t.pc, s.OS, s.Platform)
		r := Row{t.part, t.get(s), expected.why}
		if r.Model != expected.value {
			r.Why = asked
		}
		if explain := models[t.part+" "+r.Model]; explain != "" {
			r.Model = explain
		}
		rows = append(rows, r)
		if t.part == "firmware" {
			rows = append(rows, s.processor())
		}
	}
	for _, d := range s.Drives {
		rows = append(rows, s.describeDrive(d))
	}
	for _, c := range s.Cards {
		r := Row{c.ID, string(s.model(c)), "as the machine's cards are"}
		if c.Model != "" && c.Model != s.Card {
			r.Why = asked
		}
		rows = append(rows, r)
	}
	rows = append(rows, s.trust(), s.later())
	rows = append(rows, Row{"boot order", strings.Join(s.boot(), ", "), s.bootWhy()},
		Row{"serial ports", s.serial(), "the first one is the console: strata console"},
		Row{"sound", "none", "nobody hears it"})
	return slices.DeleteFunc(rows, func(r Row) bool { return r.Model == "" })
}

// models are the words of the table as people know them.
var models = map[string]string{
	"board q35":            "q35 (Intel Q35, ICH9)",
	"board pc":             "pc (Intel 440FX, PIIX3)",
	"firmware bios":        "bios (SeaBIOS)",
	"firmware uefi":        "uefi (OVMF)",
	"firmware uefi-secure": "uefi-secure (OVMF, Secure Boot with Microsoft's keys)",
	"agent virtio":         "virtio (virtio-serial)",
	"agent serial":         "serial (COM3, COM4)",
}

func (s Spec) processor() Row {
	r := Row{"processor", s.model64(), asked}
	if s.CPU.Model == "" {
		r.Why = "the host's own, by KVM"
		if s.OS == DOS {
			r.Why = "what systems of its time know"
		} else if s.Accel == qemu.TCG {
			r.Why = "x86-64-v2, which current systems need, and cheap to emulate: KVM does not run here"
		}
	}
	if s.CPU.Nested {
		r.Model += ", with virtualization inside"
	}
	if s.CPU.HyperV && s.Accel == qemu.KVM {
		r.Model += ", with Hyper-V's interfaces"
		r.Why += "; Windows waits less with them"
	}
	return r
}

func (s Spec) describeDrive(d Drive) Row {
	r := Row{d.ID, fmt.Sprintf("%s on %s", d.Medium, s.bus(d)), "as the machine's disks are"}
	switch {
	case d.Medium == Floppy:
		r.Model, r.Why = "floppy", "floppies have a controller of their own"
	case d.Bus != "" && d.Bus != s.Bus:
		r.Why = asked
	case s.bus(d) != s.Bus:
		r.Why = "there are no CDs on " + string(s.Bus)
	}
	if d.ReadOnly && d.Medium != CD {
		r.Model += ", read-only"
	}
	return r
}

func (s Spec) trust() Row {
	switch {
	case s.TPM && s.OS == Windows:
		return Row{"TPM", "2.0 (" + s.tpmDevice() + ")", "Windows 11 asks for one"}
	case s.TPM:
		return Row{"TPM", "2.0 (" + s.tpmDevice() + ")", asked}
	case s.OS == Windows:
		return Row{"TPM", "none", "swtpm is not installed, or it was not wanted; Windows 11's installer asks for one"}
	}
	return Row{"TPM", "none", "only Windows asks for one"}
}

// later is what can be plugged in.
func (s Spec) later() Row {
	var parts []string
	if s.Processors.Most > s.Processors.Count {
		parts = append(parts, "processors to "+strconv.Itoa(s.Processors.Most))
	}
	if s.Memory.Most > s.Memory.Size {
		parts = append(parts, "memory to "+s.Memory.Most.String())
	}
	if n := len(s.Free()); n > 0 {
		parts = append(parts, fmt.Sprintf("%d disks or cards", n))
	}
	if len(parts) == 0 {
		return Row{"while it runs", "nothing can be plugged in", "there are no spare places"}
	}
	return Row{"while it runs", strings.Join(parts, ", "), "spare places of the board"}
}

func (s Spec) bootWhy() string {
	if s.Once != "" {
		return "the next start is from " + s.Once
	}
	if len(s.Boot) > 0 {
		return asked
	}
	return "disks, then CDs, then floppies"
}

func (s Spec) serial() string {
	if s.Channels == SerialChannels {
		return "COM1, COM3, COM4"
	}
	return "COM1"
}
