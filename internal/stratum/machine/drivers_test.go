package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
)

// TestATemplatesHardware goes from what is asked for by name to modules and QEMU's words.
func TestATemplatesHardware(t *testing.T) {
	for name, c := range map[string]struct {
		asked   api.Hardware
		devices []stratum.Device
		modules string // required, as far as they differ
		lacks   string
		words   []string // parts of the command line, each of it whole
		field   string   // of the fault
	}{
		"what is usual":     {modules: "ahci,sd_mod,e1000e", lacks: "virtio_blk,ata_piix", words: []string{"q35,", "ide-hd,id=disk2,bus=ide.2,", "e1000e,id=card0,", "pcie-root-port,id=port27,"}},
		"an old board":      {asked: api.Hardware{Board: "pc"}, modules: "ata_piix,sd_mod,e1000", lacks: "ahci,e1000e", words: []string{"pc,", "ide-hd,id=disk2,bus=ide.1,unit=0,", "e1000,id=card0,"}},
		"virtio":            {asked: api.Hardware{DiskBus: "virtio", Card: "virtio"}, modules: "virtio_blk,virtio_net", lacks: "ahci,sd_mod,e1000e", words: []string{"virtio-blk-pci,id=disk0,", "virtio-net-pci,id=card0,"}},
		"NVMe":              {asked: api.Hardware{DiskBus: "nvme"}, modules: "nvme,e1000e", lacks: "ahci", words: []string{"nvme,id=disk1,"}},
		"SCSI":              {asked: api.Hardware{DiskBus: "scsi"}, modules: "virtio_scsi,sd_mod", lacks: "ahci", words: []string{"scsi-hd,id=disk1,"}},
		"a Realtek card":    {asked: api.Hardware{Card: "rtl8139"}, modules: "ahci,8139cp", lacks: "e1000e", words: []string{"rtl8139,id=card0,"}},
		"a TPM":             {asked: api.Hardware{TPM: true}, modules: "tpm_crb", words: []string{"tpm-crb,tpmdev=tpm0"}},
		"a TPM of a pc":     {asked: api.Hardware{Board: "pc", TPM: true}, modules: "tpm_tis", lacks: "tpm_crb", words: []string{"tpm-tis,tpmdev=tpm0"}},
		"machines inside":   {asked: api.Hardware{Nested: true, CPUModel: "max"}, modules: "kvm_amd,kvm_intel", words: []string{"max,svm=on"}},
		"an attached disk":  {devices: []stratum.Device{{Place: 1, Disk: &api.Disk{Name: "disk4", Bus: "nvme"}}}, modules: "ahci,nvme"},
		"a card for a pc":   {asked: api.Hardware{Board: "pc", Card: "e1000e"}, field: "hardware.card"},
		"NVMe on a pc":      {asked: api.Hardware{Board: "pc", DiskBus: "nvme"}, field: "hardware.disk_bus"},
		"IDE on a q35":      {asked: api.Hardware{DiskBus: "ide"}, field: "hardware.disk_bus"},
		"USB":               {asked: api.Hardware{DiskBus: "usb"}, field: "hardware.disk_bus"},
		"no such processor": {asked: api.Hardware{CPUModel: "a b"}, field: "hardware.cpu_model"},
		"the host's own":    {asked: api.Hardware{CPUModel: "host"}, field: "hardware.cpu_model"},
		"Hyper-V by TCG":    {asked: api.Hardware{HyperV: true}, field: "hardware.hyperv"},
		"a floppy":          {asked: api.Hardware{Floppy: "/a"}, field: "hardware.floppy"},
		"a pc's places":     {asked: api.Hardware{Board: "pc"}, devices: []stratum.Device{{Disk: &api.Disk{Name: "disk3", Bus: "virtio"}}}, field: "place"},
	} {
		t.Run(name, func(t *testing.T) {
			p := stratum.Plan{Name: "box", Hardware: c.asked, Devices: c.devices}
			s, err := hardware(p, qemu.TCG)
			if err == nil {
				s.Memory.Size, s.Processors.Count = 256<<20, 1
				err = valid(carded(s), "hardware.")
			}
			if c.field != "" {
				if all := fault.All(err); len(all) != 1 || all[0].Field != c.field || all[0].Hint == "" {
					t.Errorf("%v, want one fault at %s, with a hint", err, c.field)
				} else if strings.Contains(all[0].Hint, "virtio-") {
					t.Errorf("it hints at what no option takes: %s", all[0].Hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			w, err := drivers(p)
			if err != nil {
				t.Fatal(err)
			}
			all := slices.Concat(w.Card, w.Abreast, w.Required)
			for module := range strings.SplitSeq(c.modules, ",") {
				if !slices.Contains(all, module) {
					t.Errorf("module %s is not among %q", module, all)
				}
			}
			for module := range strings.SplitSeq(c.lacks, ",") {
				if slices.Contains(all, module) {
					t.Errorf("module %s is among %q", module, all)
				}
			}
			s.Plugged = nil
			f := machine.Files{Drives: map[string][]argv.Image{}, TPM: 9}
			for _, d := range s.Drives {
				f.Drives[d.ID] = []argv.Image{{Format: "raw", FD: 20}}
			}
			args := carded(s).Args(f)
			for _, word := range c.words {
				if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a+",", word) || strings.HasPrefix(a, word) }) {
					t.Errorf("no argument begins with %q:\n%s", word, strings.Join(args, "\n"))
				}
			}
			if lines := describe(s, 0); !slices.Contains(lines, "board: "+map[machine.Platform]string{machine.Q35: "q35 (Intel Q35, ICH9)", machine.PC: "pc (Intel 440FX, PIIX3)"}[s.Platform]) {
				t.Errorf("the plan says %q", lines)
			}
		})
	}
}

// TestTheOwnCardIsFoundFirst has all that the machine's own card needs loaded, one after the other,
// before the driver of an attached one: the kernel calls eth0 what it finds first. A card that is
// alone is looked for beside the rest.
func TestTheOwnCardIsFoundFirst(t *testing.T) {
	p := stratum.Plan{Name: "box", Hardware: api.Hardware{Card: "virtio"}}
	own := []string{"virtio_pci", "virtio_net"}
	w, err := drivers(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Card) > 0 || !slices.Equal(w.Abreast[:2], own) {
		t.Errorf("a card that is alone: first %q, then abreast %q", w.Card, w.Abreast)
	}
	p.Devices = []stratum.Device{{Place: 1, Card: &api.Card{Name: "card1", Model: "e1000e"}}}
	if w, err = drivers(p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.Card, own) || !slices.Contains(w.Required, "e1000e") || slices.Contains(w.Abreast, "e1000e") {
		t.Errorf("beside an attached one: first %q, abreast %q, then %q", w.Card, w.Abreast, w.Required)
	}
}
