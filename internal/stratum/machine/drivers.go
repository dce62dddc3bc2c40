package machine

import (
	"slices"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
)

// The kernel's modules for what a template's machine can have. Source: the kernel's own
// names, drivers/ata, drivers/block, drivers/nvme, drivers/scsi, drivers/net,
// drivers/char/tpm, arch/x86/kvm.
var (
	busDrivers = map[machine.Bus][]string{
		machine.AHCI: {"ahci", "sd_mod"}, machine.IDE: {"ata_piix", "sd_mod"}, machine.VirtioBlk: {"virtio_blk"}, machine.NVMe: {"nvme"},
		machine.VirtioSCSI: {"virtio_scsi", "sd_mod"}, machine.USBStorage: {"xhci_pci", "usb_storage", "sd_mod"},
	}
	cardDrivers = map[machine.CardModel][]string{
		machine.E1000: {"e1000"}, machine.E1000E: {"e1000e"}, machine.RTL8139: {"8139cp"}, machine.VirtioNet: {"virtio_pci", "virtio_net"},
	}
	chipDrivers   = map[machine.Platform]string{machine.Q35: "tpm_crb", machine.PC: "tpm_tis"}
	nestedDrivers = []string{"kvm_amd", "kvm_intel"} // one of them loads
)

// drivers are what the kernel of p's template needs for the hardware that p asks for, and
// for what is attached. It is pure. Kinds: Invalid.
func drivers(p stratum.Plan) (kernel.Wanted, error) {
	w := kernel.Machine
	s, err := hardware(p, qemu.KVM) // by which all can be had
	if err != nil {
		return w, err
	}
	w.Required = slices.Clone(w.Required)
	usual := slices.Concat(cardDrivers[machine.E1000E], busDrivers[machine.AHCI])
	own := slices.Concat(cardDrivers[s.Card], busDrivers[s.Bus]) // the card first: its link takes its time
	if slices.ContainsFunc(s.Plugged, func(d machine.Plugged) bool { return d.Model != "" }) {
		w.Card = cardDrivers[s.Card]
	}
	if s.TPM {
		w.Required = append(w.Required, chipDrivers[s.Platform])
	}
	if s.CPU.Nested {
		w.Required = append(w.Required, nestedDrivers...)
	}
	for _, d := range s.Plugged {
		own = append(own, busDrivers[d.Bus]...)
		w.Required = append(w.Required, cardDrivers[d.Model]...)
	}
	w.Abreast = append(own, slices.DeleteFunc(slices.Clone(w.Abreast), func(name string) bool { return slices.Contains(usual, name) })...)
	if s.Spare > 0 { // what can be plugged in while it runs
		w.Later = append(slices.Clone(w.Later), slices.Concat(busDrivers[machine.VirtioBlk], cardDrivers[machine.E1000E])...)
	}
	return w, nil
}

// driven tells whether what runs by p has a driver for v: a template's machine has those
// that its start took, and a foreign system knows best. Kinds: Conflict.
func (d *Driver) driven(p stratum.Plan, v stratum.Device) error {
	if p.Foreign != nil {
		return nil
	}
	w, err := drivers(p)
	if err != nil {
		return err
	}
	k, err := d.o.Kernels.GetFor(p.Kernel, w)
	if err != nil {
		return err
	}
	set, err := k.Set(w)
	if err != nil {
		return err
	}
	one := plugged(v)
	for _, name := range slices.Concat(busDrivers[one.Bus], cardDrivers[one.Model]) {
		if !set.Has(name) {
			return fault.Conflictf("the kernel inside has no driver for it: %s was not needed at its start", name).
				Help("disks on virtio and cards e1000e can be plugged in at any time; or stop it first: its next start has the driver")
		}
	}
	return nil
}
