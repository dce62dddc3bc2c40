package cli

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// foreignFlags are the flags of a system that strata does not know.
type foreignFlags struct {
	api.Foreign
	boot, memoryMax string
}

func (s *foreignFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.DiskImage, "disk-image", "", "run the system on this disk image instead of a template: `FILE`, raw, qcow2, vmdk, vdi or vhdx; it is only read")
	f.StringVar(&s.Format, "image-format", "", "`format` of the disk image, such as raw (default: by its content)")
	f.BoolVar(&s.Import, "import", false, "copy the disk image, so that it is needed no longer")
	f.StringVar(&s.ISO, "iso", "", "run the system on this CD instead of a template: `FILE`; with --disk an empty disk beside it")
	f.StringVar(&s.OS, "os", "", "kind of such a system, for its hardware: linux, windows, bsd, dos or other (default: other)")
	f.BoolVar(&s.NoGuestAgent, "no-guest-agent", false, "give such a system no port for qemu-guest-agent, and so no virtio-serial device")
	f.StringVar(&s.Board, "board", "", "a machine's board: q35 (PCI Express) or pc (PCI, IDE) (default: q35; pc with --os dos)")
	f.StringVar(&s.DiskBus, "disk-bus", "", "what a machine's disks are attached to: ahci, ide, virtio, nvme or scsi (default: the board's controller)")
	f.StringVar(&s.AgentPort, "agent-port", "", "how the agent in a template's machine is reached: virtio, or serial, all else being stock hardware then (default: virtio where the kernel has drivers for it)")
	f.StringVar(&s.Card, "nic-model", "", "a machine's network card: e1000, e1000e, rtl8139 or virtio (default: by board and --os)")
	f.StringVar(&s.CPUModel, "cpu-model", "", "`model` of a machine's processor, as QEMU lists them (default: by the host and --os)")
	f.StringVar(&s.memoryMax, "memory-max", "", "how far a machine's memory can be raised while it runs: `SIZE`, such as 4G (default: not at all)")
	f.BoolVar(&s.HyperV, "hyperv", false, "give a machine Hyper-V's interfaces (default: with --os windows, by KVM)")
	f.BoolVar(&s.Nested, "nested", false, "let a machine run virtual machines of its own")
	f.BoolVar(&s.TPM, "tpm", false, "give a machine a TPM 2.0 (needs swtpm)")
	f.StringVar(&s.Floppy, "floppy", "", "raw image of what is in a foreign system's floppy drive: `FILE`; it is only read")
	f.StringVar(&s.boot, "boot", "", "`order` of what such a system is booted from, such as cd,disk (default: disk,cd)")
	f.StringVar(&s.BootOnce, "boot-once", "", "what its first start alone is from: disk, cd or network")
}

// build returns what was asked for; nil where it is no foreign system.
func (s *foreignFlags) build() (*api.Foreign, error) {
	if s.memoryMax != "" {
		n, err := unit.ParseSize(s.memoryMax)
		if err != nil {
			return nil, fault.Wrap(err, "read --memory-max")
		}
		s.MemoryMax = n
	}
	f := s.Foreign
	for _, path := range []*string{&f.DiskImage, &f.ISO, &f.Floppy} {
		if *path == "" {
			continue
		}
		whole, err := filepath.Abs(*path)
		if err != nil {
			return nil, fault.Wrap(err, "find %s", *path)
		}
		*path = whole
	}
	if s.boot != "" {
		f.Boot = strings.Split(s.boot, ",")
	}
	if f.DiskImage != "" || f.ISO != "" {
		return &f, nil
	}
	for flag, given := range map[string]bool{"import": f.Import, "image-format": f.Format != "", "os": f.OS != "", "boot": s.boot != "", "no-guest-agent": f.NoGuestAgent, "boot-once": f.BootOnce != "",
		"floppy": f.Floppy != ""} {
		if given {
			return nil, fault.Invalidf("--%s is for a system with a disk image or a CD of its own", flag).At(flag).Help("give one of the two: --disk-image FILE, --iso FILE")
		}
	}
	return nil, nil
}

// template asks for a template where no foreign system is asked for.
func (s *specFlags) template(cmd *cobra.Command, args []string) error {
	if s.foreign.DiskImage != "" || s.foreign.ISO != "" {
		return nil
	}
	return atLeast(1, "a template")(cmd, args)
}

// guestAgent writes who answers inside a foreign system.
func (f facts) guestAgent(g api.GuestAgent) {
	name := map[string]string{"qemu": "qemu-guest-agent ", "strata": "strata's own, "}[g.Kind]
	f.add("guest agent", name+g.Version+reason("it answers"))
	f.add("runs inside", g.System)
	f.add("has inside", strings.Join(g.Addresses, ", "))
}

// foreign writes what a foreign system was made of.
func (f facts) foreign(s api.Foreign) {
	if s.DiskImage != "" {
		how := "read where it lies"
		if s.Import {
			how = "copied"
		}
		f.add("disk image", s.DiskImage+reason(how))
	}
	f.add("cd", s.ISO)
	f.add("os", s.OS)
	f.add("boot order", strings.Join(s.Boot, ", "))
}

// hardware writes what was asked for of a machine by name; why says what else is to be
// known of it.
func (f facts) hardware(h api.Hardware, why string) {
	var parts []string
	for _, p := range []struct {
		given bool
		words string
	}{
		{h.Board != "", "board " + h.Board}, {h.DiskBus != "", "disks on " + h.DiskBus}, {h.Card != "", "card " + h.Card}, {h.AgentPort != "", "the agent by " + h.AgentPort},
		{h.CPUModel != "", "processor " + h.CPUModel}, {h.HyperV, "Hyper-V's interfaces"}, {h.Nested, "virtualization inside"}, {h.TPM, "TPM 2.0"},
		{h.MemoryMax != 0, "memory up to " + h.MemoryMax.String()},
		{h.Floppy != "", "floppy " + h.Floppy},
	} {
		if p.given {
			parts = append(parts, p.words)
		}
	}
	if len(parts) > 0 {
		f.add("hardware", strings.Join(parts, ", ")+reason(why))
	}
}
