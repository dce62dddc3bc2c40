package environment

import (
	"slices"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// foreign checks what is asked of a system that strata does not know, and refuses what
// takes a template or an agent inside.
func (c *check) foreign(spec api.Spec) {
	f := spec.Foreign
	if spec.Template != "" {
		c.fault("template", "a foreign system has a disk or a CD of its own, and no template").Help("leave out one of the two: the template, or disk image and ISO")
	}
	if f.DiskImage == "" && f.ISO == "" && spec.Resources.Disk == 0 {
		c.fault("foreign", "a foreign system has nothing to boot").Help("give a disk image or an ISO")
	}
	if f.DiskImage != "" {
		c.absolute("foreign.disk_image", f.DiskImage)
		c.oneOf("foreign.format", f.Format, "raw", "qcow2", "vmdk", "vdi", "vhdx", "iso")
	} else if f.Import || f.Format != "" {
		c.fault("foreign.disk_image", "there is no disk image to import, or of a format").Help("give one, or leave import and format out")
	}
	if f.ISO != "" {
		c.absolute("foreign.iso", f.ISO)
	}
	c.oneOf("foreign.os", f.OS, "linux", "windows", "bsd", "dos", "other")
	c.hardware("foreign.", f.Hardware)
	if f.AgentPort != "" {
		c.fault("foreign.agent_port", "a foreign system has no agent of strata's from the start").Help("leave it out; `strata agent install` puts one in")
	}
	if spec.Hardware != (api.Hardware{}) {
		c.fault("hardware", "a foreign system's hardware is asked for with the system").Help("put it into foreign")
	}
	c.bootable("foreign.boot_once", f.BootOnce, spec)
	for i, word := range f.Boot {
		c.bootable(index("foreign.boot", i), word, spec)
		if slices.Contains(f.Boot[:i], word) {
			c.fault(index("foreign.boot", i), "%q is there twice", clip(word)).Help("name each once")
		}
	}
	c.templateOnly(spec)
}

// hardware checks what of a machine is asked for by name.
func (c *check) hardware(field string, h api.Hardware) {
	c.oneOf(field+"board", h.Board, "q35", "pc")
	c.oneOf(field+"disk_bus", h.DiskBus, "ahci", "ide", "virtio", "nvme", "scsi", "usb")
	c.oneOf(field+"card", h.Card, "e1000", "e1000e", "rtl8139", "virtio")
	c.oneOf(field+"agent_port", h.AgentPort, "virtio", "serial")
	if h.MemoryMax < 0 || h.MemoryMax%unit.MiB != 0 {
		c.fault(field+"memory_max", "%d bytes are no whole number of MiB", h.MemoryMax).Help("such as 4G")
	}
	if h.Floppy != "" {
		c.absolute(field+"floppy", h.Floppy)
	}
}

// bootable checks a word for what is booted from.
func (c *check) bootable(field, word string, spec api.Spec) {
	c.oneOf(field, word, "disk", "cd", "network")
	switch {
	case word == "disk" && spec.Foreign.DiskImage == "" && spec.Resources.Disk == 0:
		c.fault(field, "the system has no disk to boot from").Help("give it one with a size or an image, or leave disk out")
	case word == "network" && spec.Network == NoNetwork:
		c.fault(field, "the system has no network to boot from").Help("leave --network none out, or network")
	}
}

// templateOnly refuses what only a template's environment has.
func (c *check) templateOnly(spec api.Spec) {
	for _, o := range []struct {
		field string
		given bool
		why   string
	}{
		{"command", len(spec.Command)+len(spec.Entrypoint) > 0, "boots its own program"},
		{"env", len(spec.Env) > 0, "is told no variables"},
		{"workdir", spec.WorkDir != "", "has folders of its own"},
		{"user", spec.User != "", "has users of its own"},
		{"tty", spec.TTY || spec.Stdin, "has no main program: its serial line is strata console"},
		{"hostname", spec.Hostname != "", "names itself; other environments find it by its name"},
		{"dns", len(spec.DNS) > 0, "is told strata's own DNS server, by DHCP"},
		{"volumes", len(spec.Volumes) > 0, "cannot be shown folders: nothing of strata's is inside"},
		{"tmpfs", len(spec.Tmpfs) > 0, "mounts its own file systems"},
		{"read_only", spec.ReadOnly, "mounts its own root"},
		{"new_privileges", spec.NewPrivileges, "decides on privileges itself"},
		{"kernel", spec.Kernel != "", "has a kernel of its own"},
		{"modules", len(spec.Modules) > 0, "loads its own modules"},
		{"kind", spec.Kind != "", "is neither app nor system"},
		{"health", !mayAnswer(spec.Foreign) && spec.Health != nil && len(spec.Health.Test) > 0 && spec.Health.Test[0] != "NONE", "runs checks by a guest agent, and has no port for one: say --os linux, windows or bsd"},
		{"resources.pids", spec.Resources.PIDs != 0, "has processes that nobody counts"},
		{"resources.hugepages", spec.Resources.HugePages != 0, "has its memory in usual pages"},
		{"resources.reclaim", spec.Resources.Reclaim == api.ReclaimIdle, "has no balloon, by which it could give memory back"},
		{"cold", spec.Cold, "is always booted"},
	} {
		if o.given {
			c.fault(o.field, "a foreign system %s", o.why).Help("leave it out")
		}
	}
}

// mayAnswer tells whether a system may have a guest agent that answers.
func mayAnswer(f *api.Foreign) bool {
	return !f.NoGuestAgent && slices.Contains([]string{"linux", "windows", "bsd"}, f.OS)
}

// Foreign is the kind of an environment that runs a foreign system, as users see it.
const Foreign = "foreign"

// ForeignDisk tells whether a foreign system has a disk, and the size of one that is
// asked for; 0: that of its image.
func ForeignDisk(spec api.Spec) (bool, unit.Size) {
	return spec.Foreign.DiskImage != "" || spec.Resources.Disk != 0, spec.Resources.Disk
}
