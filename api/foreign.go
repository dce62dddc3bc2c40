package api

import "github.com/strata-project/strata/internal/unit"

// GuestAgent is who answers inside a foreign system.
type GuestAgent struct {
	Kind      string   `json:"kind" enum:"qemu,strata" doc:"qemu: qemu-guest-agent. strata: strata's own, which was installed into it."`
	Version   string   `json:"version,omitempty" doc:"As it says."`
	System    string   `json:"system,omitempty" doc:"What runs inside, as it says."`
	Addresses []string `json:"addresses,omitempty" doc:"Of the system's network cards, as it says, with prefix length."`
}

// AgentInstalled is how strata's own agent got into a foreign system, or gets there.
type AgentInstalled struct {
	By      string `json:"by" enum:"guest-agent,cd" doc:"guest-agent: it was installed by qemu-guest-agent, and answers. cd: a CD is in the drive, and Command is to be typed inside."`
	Said    string `json:"said,omitempty" doc:"What the installation said."`
	Command string `json:"command,omitempty" doc:"To be typed by root inside."`
}

// Foreign asks for a system that strata does not know, at stratum machine: with a disk, a
// CD and hardware of its own instead of a template.
type Foreign struct {
	DiskImage    string   `json:"disk_image,omitempty" maxLength:"4096" doc:"Absolute path on the host of a disk image: raw, qcow2, vmdk, vdi, vhdx or an ISO. It is only read: what changes is kept in the environment."`
	Format       string   `json:"format,omitempty" enum:"raw,qcow2,vmdk,vdi,vhdx,iso" doc:"Of the disk image. Default: what it is by its content, which a raw disk without partitions does not tell."`
	Import       bool     `json:"import,omitempty" doc:"Copy the disk image, so that it is needed no longer."`
	ISO          string   `json:"iso,omitempty" maxLength:"4096" doc:"Absolute path on the host of what is in the CD drive."`
	OS           string   `json:"os,omitempty" enum:"linux,windows,bsd,dos,other" doc:"Kind of system, which decides on the hardware. Default: other."`
	Boot         []string `json:"boot,omitempty" maxItems:"3" doc:"What is booted from: disk, cd, network, first first. Default: disk, cd."`
	NoGuestAgent bool     `json:"no_guest_agent,omitempty" doc:"Give it no port for qemu-guest-agent, and so no device of virtio-serial."`
	BootOnce     string   `json:"boot_once,omitempty" enum:"disk,cd,network" doc:"What the first start alone is from."`

	Hardware
}

// Hardware is what of a machine is asked for by name, instead of what is usual for a
// template or for a foreign system's kind.
type Hardware struct {
	Board     string    `json:"board,omitempty" enum:"q35,pc" doc:"Its board: q35 (PCI Express, AHCI) or pc (PCI, IDE). Default: by its kind; q35 for templates."`
	DiskBus   string    `json:"disk_bus,omitempty" enum:"ahci,ide,virtio,nvme,scsi,usb" doc:"What its disks are attached to. Default: by its kind and board."`
	Card      string    `json:"card,omitempty" enum:"e1000,e1000e,rtl8139,virtio" doc:"Its network card. Default: by its kind and board."`
	CPUModel  string    `json:"cpu_model,omitempty" maxLength:"64" doc:"Model of the processor, as QEMU lists them. Default: by its kind and the host."`
	HyperV    bool      `json:"hyperv,omitempty" doc:"Hyper-V's interfaces, which Windows waits less with. Default: with os windows. By KVM only."`
	Nested    bool      `json:"nested,omitempty" doc:"Virtualization inside."`
	TPM       bool      `json:"tpm,omitempty" doc:"A TPM 2.0, whose state is the environment's."`
	AgentPort string    `json:"agent_port,omitempty" enum:"virtio,serial" doc:"How strata's agent is reached: virtio (virtio-serial) or serial (the third and fourth serial port, all else being stock hardware then, but for volumes). For templates. Default: virtio where the kernel has drivers for it."`
	MemoryMax unit.Size `json:"memory_max,omitempty" doc:"How far memory can be raised while it runs: the board has room for it. Default: it has none."`
	Floppy    string    `json:"floppy,omitempty" maxLength:"4096" doc:"Absolute path on the host of the raw image of what is in the floppy drive; it is only read. For foreign systems."`
}
