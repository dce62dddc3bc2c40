package qemu

import (
	"fmt"
	"strconv"

	"github.com/strata-project/strata/internal/unit"
)

// The accelerators.
const (
	KVM = "kvm" // the processor runs the guest
	TCG = "tcg" // QEMU translates it
)

// Names of the virtio-serial ports, as the agent inside looks for them.
const (
	ControlPort = "strata.control"
	StreamsPort = "strata.streams"
)

// Serial numbers of the block devices.
const (
	TemplateSerial = "strata-template"
	DiskSerial     = "strata-disk"
)

// DiskNode names the private disk's node, for QMP.
const DiskNode = "disk"

// Guest is a virtual machine with nothing but virtio, and how QEMU is told of it.
// Files and sockets are descriptors of QEMU's own; paths are as QEMU sees them.
// The devices are the same ones, in the same order, whatever is behind them, since
// a saved system can only go on in a machine of the same shape; but for volumes,
// whose systems are never saved.
type Guest struct {
	Name        string
	Accelerator string // KVM or TCG
	Memory      unit.Size
	Processors  int
	TSC         int // kHz of the time stamp counter of the host, for TCG; 0: not known

	Kernel, Initrd, Firmware string // "": a saved system needs none

	Template, Disk    int  // descriptors of the images
	Ring              bool // they are read and written by io_uring, see Program
	Tap               int  // 0: the card has no network behind it
	MAC               string
	Control, Monitor  int // sockets that listen
	Streams, Console  int // sockets that are connected
	Events            int // a monitor of the keeper's, connected
	Volumes           []Volume
	Backing           Backing
	Incoming          bool // wait for a saved system
	StartStopped      bool // processors stand still until QMP says cont
	ConsoleOnHardware bool // for tests: early messages go to a serial port on standard output
}

// Volume is a folder that a virtiofsd serves.
type Volume struct {
	Tag string
	FD  int // socket that is connected to it
}

// Backing is what the machine's memory lies in.
type Backing struct {
	File   string // "": anonymous memory, or memory that is shared with a virtiofsd
	Shared bool   // writes reach the file
}

// tcgCache is how much of its translations QEMU keeps under TCG. Unit: MiB. With
// 32 an idle guest costs 20 MiB less than with QEMU's default, and boots as fast.
const tcgCache = 32

// Args returns QEMU's arguments, without the program. It is pure.
func (g Guest) Args() []string {
	a := args{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", "guest=" + g.Name,
		// No new programs, privileges or scheduling: see qemu(1), -sandbox.
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	g.machine(&a)
	g.boot(&a)
	g.sockets(&a)
	g.serial(&a)
	g.disks(&a)
	g.card(&a)
	a.device("virtio-rng-device", "rng=entropy", "max-bytes=4096", "period=1000")
	// Pages that the guest frees go back to the host. For memory in a file there is none:
	// QEMU would punch holes into what others share, and where it cannot, it says so for
	// each page, as often as the guest likes.
	if g.Backing.File == "" {
		a.device("virtio-balloon-device", "free-page-reporting=on", "deflate-on-oom=on")
	}
	a.device("pvpanic") // says GUEST_PANICKED, and ends
	for i, v := range g.Volumes {
		id := "volume" + strconv.Itoa(i)
		a.connected(id, v.FD)
		a.device("vhost-user-fs-device", "chardev="+id, "tag="+escape(v.Tag))
	}
	return a
}

// machine is processors, memory and the board.
func (g Guest) machine(a *args) {
	// ACPI is how the kernel finds virtio-mmio devices, and how power-off reaches
	// QEMU. Timer and interrupt controller of the PC are of no use beside it.
	a.add("-M", machineType+",acpi=on,pit=off,pic=off,rtc=on,isa-serial="+onOff(g.ConsoleOnHardware)+",memory-backend=ram")
	// Devices of virtio 1 only: virtiofs has no other.
	a.add("-global", "virtio-mmio.force-legacy=false")
	if g.Accelerator == KVM {
		a.add("-accel", "kvm", "-cpu", "host")
	} else {
		a.add("-accel", "tcg,tb-size="+strconv.Itoa(tcgCache), "-cpu", "qemu64,+rdrand")
	}
	a.add("-smp", strconv.Itoa(g.Processors), "-m", "size="+strconv.FormatInt(int64(g.Memory/unit.MiB), 10)+"M")
	size := ",id=ram,size=" + strconv.FormatInt(int64(g.Memory), 10)
	switch {
	case g.Backing.File != "":
		a.add("-object", "memory-backend-file"+size+",share="+onOff(g.Backing.Shared)+",mem-path="+escape(g.Backing.File))
	case len(g.Volumes) > 0:
		a.add("-object", "memory-backend-memfd"+size+",share=on")
	default:
		a.add("-object", "memory-backend-ram"+size)
	}
	a.add("-object", "rng-builtin,id=entropy")
}

func (g Guest) boot(a *args) {
	if g.StartStopped {
		a.add("-S")
	}
	if g.Incoming {
		a.add("-incoming", "defer")
	}
	if g.Firmware != "" {
		a.add("-bios", g.Firmware)
	}
	if g.Kernel == "" {
		return
	}
	// cryptomgr.notests, noreplace-smp: 80 ms less under TCG. A kernel that panics
	// resets at once, which ends QEMU. net.ifnames=0: a system's udev leaves the card
	// the name that it has with every other kind.
	line := "quiet cryptomgr.notests noreplace-smp panic=-1 console=hvc0 net.ifnames=0"
	if g.Accelerator == TCG && g.TSC > 0 {
		// Without it the kernel measures the counter against timers that are late
		// under TCG, and hangs at times; and where it then watches the counter by them,
		// it takes it for broken on a busy host, and goes on with a clock that ticks
		// every 4 ms and loses ticks. The counter is the host's.
		line += fmt.Sprintf(" tsc=reliable tsc_early_khz=%d", g.TSC)
	}
	if g.ConsoleOnHardware {
		line = "earlyprintk=ttyS0 console=ttyS0 " + line
		a.add("-serial", "stdio")
	}
	a.add("-kernel", g.Kernel, "-initrd", g.Initrd, "-append", line)
}

// sockets are the ends that the host talks to.
func (g Guest) sockets(a *args) {
	a.listening("control", g.Control)
	a.listening("monitor", g.Monitor)
	a.connected("streams", g.Streams)
	a.connected("console", g.Console)
	a.connected("events", g.Events)
	a.add("-mon", "chardev=monitor,mode=control", "-mon", "chardev=events,mode=control")
}

func (g Guest) serial(a *args) {
	a.device("virtio-serial-device", "max_ports=4")
	a.device("virtconsole", "chardev=console")
	a.device("virtserialport", "chardev=control", "name="+ControlPort)
	a.device("virtserialport", "chardev=streams", "name="+StreamsPort)
}

func (g Guest) disks(a *args) {
	// Both through the host's page cache: a template's is shared by all guests and
	// zones, and what a guest reads again of its disk is there when it had to give up
	// its own cache. Measured with O_DIRECT inside, TCG, MB/s by threads, io_uring, and
	// past the cache: reads of 1 MiB 2,500, 2,700, 820; of 4 KiB 18, 30, 12; writes of
	// 1 MiB 310, 650, 760. Only flushes are slower, 3 ms instead of 0.7.
	a.file("template", g.Template, g.Ring, "read-only=on", "cache.direct=off")
	a.device("virtio-blk-device", "drive=template", "serial="+TemplateSerial)
	// Discarded blocks become holes of the sparse image again.
	a.file(DiskNode, g.Disk, g.Ring, "discard=unmap", "cache.direct=off")
	a.device("virtio-blk-device", "drive=disk", "serial="+DiskSerial)
}

func (g Guest) card(a *args) {
	if g.Tap == 0 {
		// A port of a hub that nothing else is on: a card without a cable.
		a.add("-netdev", "hubport,id=card,hubid=0")
	} else {
		a.add("-netdev", fmt.Sprintf("tap,id=card,fd=%d,vhost=off", g.Tap))
	}
	mac := ""
	if g.MAC != "" {
		mac = "mac=" + g.MAC
	}
	a.device("virtio-net-device", "netdev=card", mac)
}

// args are a command line in the making.
type args []string

func (a *args) add(more ...string) { *a = append(*a, more...) }

func (a *args) device(name string, properties ...string) {
	for _, p := range properties {
		if p != "" {
			name += "," + p
		}
	}
	a.add("-device", name)
}

func (a *args) listening(id string, fd int) {
	a.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d,server=on,wait=off", id, fd))
}

func (a *args) connected(id string, fd int) {
	a.add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, fd))
}

// file makes a descriptor a raw block device.
func (a *args) file(id string, fd int, ring bool, properties ...string) {
	a.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd))
	aio := "threads"
	if ring {
		aio = "io_uring"
	}
	node := fmt.Sprintf("driver=raw,node-name=%s,file.driver=file,file.aio=%s,file.filename=/dev/fdset/%d", id, aio, fd)
	for _, p := range properties {
		node += "," + p
		if p == "read-only=on" {
			node += ",file.read-only=on"
		}
	}
	a.add("-blockdev", node)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// escape writes a value in which QEMU takes a comma for the end.
func escape(value string) string {
	out := make([]byte, 0, len(value))
	for i := range len(value) {
		if value[i] == ',' {
			out = append(out, ',')
		}
		out = append(out, value[i])
	}
	return string(out)
}
