package machine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

func drives(n int, m Medium, b Bus) (all []Drive) {
	for i := range n {
		all = append(all, Drive{ID: fmt.Sprint(m, i), Medium: m, Bus: b})
	}
	return all
}

func TestWhatCannotBeIsRefusedByName(t *testing.T) {
	onPC := func(s *Spec) { s.Platform, s.Bus, s.Card = PC, IDE, E1000 }
	for sentence, c := range map[string]struct {
		change            func(*Spec)
		field, says, help string
	}{
		"an unknown board":                 {func(s *Spec) { s.Platform = "microvm" }, "platform", `"microvm" is not known`, "one of q35, pc"},
		"an unknown screen":                {func(s *Spec) { s.Screen = "qxl" }, "screen", `"qxl"`, "std, cirrus, virtio, none"},
		"no name":                          {func(s *Spec) { s.Name = "" }, "name", `""`, "letters"},
		"a name with an option in it":      {func(s *Spec) { s.Name = "a,debug-threads=on" }, "name", "is no name", "letters"},
		"a UUID that is none":              {func(s *Spec) { s.UUID = "5d3c" }, "uuid", "5d3c", "such as"},
		"no processor":                     {func(s *Spec) { s.Processors.Count = 0 }, "processors.count", "0 processors", "1 to 255"},
		"more processors than ids":         {func(s *Spec) { s.Processors.Count = 256 }, "processors.count", "256 processors are not what q35 has", "1 to 255"},
		"fewer at most than from start":    {func(s *Spec) { s.Processors = Processors{4, 2} }, "processors.most", "2 processors at most, with 4", "4 to 255, or 0"},
		"less memory than a BIOS takes":    {func(s *Spec) { s.Memory.Size = unit.MiB }, "memory.size", "1M of memory", "8M to 512G"},
		"less memory than OVMF takes":      {func(s *Spec) { s.Firmware, s.Memory.Size = UEFI, 64*unit.MiB }, "memory.size", "with uefi", "128M to 512G"},
		"more memory than addresses":       {func(s *Spec) { s.Memory.Size = unit.TiB }, "memory.size", "1T", "8M to 512G"},
		"memory of half a megabyte":        {func(s *Spec) { s.Memory.Size += unit.KiB }, "memory.size", "no whole number of MiB", "512M"},
		"memory for later without slots":   {func(s *Spec) { s.Memory.Most = 8 * unit.GiB }, "memory.slots", "0 slots", "1 to 256"},
		"less memory later":                {func(s *Spec) { s.Memory.Most, s.Memory.Slots = unit.MiB, 1 }, "memory.most", "1M of memory at most", "more than 1G"},
		"a processor that is an option":    {func(s *Spec) { s.CPU.Model = "max,vmx=on" }, "cpu.model", "is no model", "cpu help"},
		"the host's processor under TCG":   {func(s *Spec) { s.CPU.Model = "host" }, "cpu.model", "by KVM only", "max, qemu64"},
		"virtualization in an old one":     {func(s *Spec) { s.Accel, s.CPU = qemu.KVM, CPU{Model: "pentium3", Nested: true} }, "cpu.nested", "pentium3", "model host"},
		"UEFI on a pc":                     {func(s *Spec) { onPC(s); s.Firmware = UEFI }, "firmware", "OVMF", "bios, or platform q35"},
		"Secure Boot without OVMF":         {func(s *Spec) { onPC(s); s.Firmware = UEFISecure }, "firmware", "uefi-secure does not start on pc", "bios, or platform q35"},
		"an IDE disk on a q35":             {func(s *Spec) { s.Drives = drives(1, Disk, IDE) }, "drives.disk0.bus", "no disk on ide of a q35", "one of ahci, virtio-blk, virtio-scsi, nvme"},
		"NVMe on a pc":                     {func(s *Spec) { onPC(s); s.Drives = drives(1, Disk, NVMe) }, "drives.disk0.bus", "no disk on nvme of a pc", "one of ide, ahci"},
		"a CD on virtio-blk":               {func(s *Spec) { s.Drives = drives(1, CD, VirtioBlk) }, "drives.cd0.bus", "no cd on virtio-blk", "one of ahci, virtio-scsi"},
		"a floppy on AHCI":                 {func(s *Spec) { s.Drives = drives(1, Floppy, AHCI) }, "drives.floppy0.bus", "no floppy on ahci", "one of floppy"},
		"a floppy with UEFI":               {func(s *Spec) { s.Firmware, s.Drives = UEFI, drives(1, Floppy, "") }, "drives.floppy0.bus", "UEFI knows no floppies", "firmware bios"},
		"more floppies than drives":        {func(s *Spec) { s.Drives = drives(3, Floppy, "") }, "drives", "3 drives", "at most 2 on floppy"},
		"more disks than AHCI has ports":   {func(s *Spec) { s.Drives = drives(7, Disk, "") }, "drives", "7 drives are more than ahci", "at most 6 on ahci"},
		"more disks than IDE has":          {func(s *Spec) { onPC(s); s.Drives = drives(5, Disk, "") }, "drives", "5 drives are more than ide", "at most 4 on ide"},
		"more disks than places":           {func(s *Spec) { s.Drives = drives(17, Disk, NVMe) }, "drives", "17 drives on virtio-blk and nvme", "at most 16"},
		"a disk that is read-only":         {func(s *Spec) { s.Drives = []Drive{{ID: "disk0", Medium: Disk, ReadOnly: true}} }, "drives.disk0.read-only", "disks on ahci can be written to", "a cd, or bus virtio-blk"},
		"two drives of one name":           {func(s *Spec) { s.Drives = append(drives(1, Disk, ""), drives(1, Disk, "")...) }, "drives", `"disk0" is no name of its own`, "such as disk0"},
		"a disk that is called a CD":       {func(s *Spec) { s.Drives = []Drive{{ID: "cd0", Medium: Disk}} }, "drives", `"cd0" is no name of its own for a disk`, "such as disk0"},
		"a serial number that is too long": {func(s *Spec) { s.Drives = []Drive{{ID: "disk0", Medium: Disk, Serial: "123456789012345678901"}} }, "drives.disk0.serial", "is no serial number", "at most 20"},
		"a serial number with an option":   {func(s *Spec) { s.Drives = []Drive{{ID: "disk0", Medium: Disk, Serial: "a,b=c"}} }, "drives.disk0.serial", "is no serial number", "at most 20"},
		"an e1000e on a pc":                {func(s *Spec) { onPC(s); s.Cards = []Card{{ID: "card0", Model: E1000E}} }, "cards.card0.model", "no network card e1000e for a pc", "one of e1000, rtl8139, virtio"},
		"a card without a name":            {func(s *Spec) { s.Cards = []Card{{}} }, "cards", "no name of its own", "such as card0"},
		"more cards than slots":            {func(s *Spec) { s.Cards = make([]Card, 9) }, "cards", "9 network cards", "at most 8"},
		"an address of many cards":         {func(s *Spec) { s.Cards = []Card{{ID: "card0", MAC: "01:00:5e:00:00:01"}} }, "cards.card0.mac", "is no card's address", "52:54:00"},
		"an address with an option":        {func(s *Spec) { s.Cards = []Card{{ID: "card0", MAC: "52:54:00:12:34:56,x=y"}} }, "cards.card0.mac", "is no card's address", "52:54:00"},
		"a boot order of what is not":      {func(s *Spec) { s.Boot = []string{"disk7"} }, "boot", `"disk7"`, "of disk0, cd0, card0"},
		"a boot order with one twice":      {func(s *Spec) { s.Boot = []string{"cd0", "cd0"} }, "boot", `"cd0"`, "each once"},
		"a start once from nothing":        {func(s *Spec) { s.Once = "cd1" }, "once", `"cd1"`, "of disk0, cd0, card0"},
		"a start once from a floppy":       {func(s *Spec) { s.Drives, s.Once = drives(1, Floppy, ""), "floppy0" }, "once", `"floppy0"`, "a disk, CD or card"},
		"more spare places than ports":     {func(s *Spec) { s.Spare = 9 }, "spare", "9 spare", "0 to 8"},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := made(t, Linux, Host{Accel: qemu.TCG})
			c.change(&s)
			err := s.Validate()
			for _, f := range fault.All(err) {
				if f.Kind == fault.Invalid && f.Field == c.field && strings.Contains(f.Message, c.says) && strings.Contains(f.Hint, c.help) {
					return
				}
				t.Logf("%s: %s (%s)", f.Field, f.Message, f.Hint)
			}
			t.Errorf("got %v; want %s, %q, hint %q", err, c.field, c.says, c.help)
		})
	}
}

func TestEveryFaultIsSaidAtOnce(t *testing.T) {
	s := made(t, Linux, Host{Accel: qemu.TCG})
	s.Processors, s.Memory.Size, s.Once = Processors{300, 300}, 0, "cd9" // the same wrong twice is one
	if all := fault.All(s.Validate()); len(all) != 3 {
		t.Errorf("got %v", all)
	}
	if _, err := Defaults("plan9", "riscv", Host{}); len(fault.All(err)) != 2 || !strings.Contains(fault.All(err)[0].Hint, "linux, windows, bsd, dos, other") {
		t.Errorf("got %v", err)
	}
}

func TestDefaultsAreValidOnEachBoard(t *testing.T) {
	for _, os := range Systems() {
		for _, p := range []Platform{"", Q35, PC} {
			for _, accel := range []string{qemu.KVM, qemu.TCG} {
				s, err := Defaults(os, p, Host{Accel: accel, TPM: true})
				if err != nil {
					t.Fatal(err)
				}
				s.Name, s.Drives, s.Cards = "box", append(drives(1, Disk, ""), drives(1, CD, "")...), []Card{{ID: "card0"}}
				if err := s.Validate(); err != nil || p != "" && s.Platform != p {
					t.Errorf("%s on %s: %v", os, s.Platform, err)
				}
				for _, r := range s.Describe() {
					if r.Why == asked && r.Part != "board" {
						t.Errorf("%s on %s: nobody asked for %s %s", os, s.Platform, r.Part, r.Model)
					}
				}
			}
		}
	}
}

func TestWhereADeviceIsDoesNotDependOnOthers(t *testing.T) {
	few := made(t, Linux, Host{Accel: qemu.TCG})
	few.Cards = []Card{{ID: "card0"}, {ID: "card1", Model: E1000}}
	many := few
	many.TPM, many.Screen, many.Tablet, many.Channels, many.Spare, many.Bus = true, NoScreen, false, VirtioChannels, 8, AHCI
	many.Drives = append(append(few.Drives[:2:2], Drive{ID: "disk1", Medium: Disk}), drives(3, Disk, VirtioBlk)[2])
	many.Cards = append(few.Cards[:2:2], Card{ID: "card2", Model: VirtioNet})
	if err := many.Validate(); err != nil {
		t.Fatal(err)
	}
	few.Boot, many.Boot = []string{"disk0", "cd0"}, []string{"disk0", "cd0"}
	for _, a := range few.Args(numbered(few)) {
		for _, id := range []string{"id=disk0,bus", "id=cd0,bus", "id=card0", "id=card1", "id=port24,"} {
			if strings.Contains(a, id) && !slices.Contains(many.Args(numbered(many)), a) {
				t.Errorf("%s is not in a machine with more", a)
			}
		}
	}
}
