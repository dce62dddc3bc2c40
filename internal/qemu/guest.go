package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// The accelerators.
const (
	KVM = "kvm" // the processor runs the guest
	TCG = "tcg" // QEMU translates it
)

// Names of the virtio-serial ports, as the agent inside looks for them.
const (
	ControlPort = "strata.control"
	// GuestAgentPort is where qemu-guest-agent looks for its host.
	// Source: QEMU, qga/main.c, QGA_VIRTIO_PATH_DEFAULT.
	GuestAgentPort = "org.qemu.guest_agent.0"
	StreamsPort    = "strata.streams"
)

// I/O ports of the serial ports that stand for them where there is no virtio-serial, as
// the agent inside looks for them: a PC's third and fourth.
const (
	ControlIO = "0x3e8"
	StreamsIO = "0x2e8"
)

// Serial numbers of the block devices.
const (
	TemplateSerial = "strata-template"
	DiskSerial     = "strata-disk"
)

// Balloon is the balloon's name, for QMP.
const Balloon = "balloon"

// Names of the block devices' nodes, for QMP.
const (
	TemplateNode = "template"
	DiskNode     = "disk"
)

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
	Turns             bool // processors take turns, see Program
	Tap               int  // 0: the card has no network behind it
	MAC               string
	Control, Monitor  int // sockets that listen
	Streams, Console  int // sockets that are connected
	Events            int // a monitor of the keeper's, connected
	Volumes           []Volume
	Backing           Backing
	HugePages         unit.Size // that memory lies in; 0: usual ones. There is no balloon then
	Fixed             bool      // no balloon and no rdrand, as with Backing: a system goes on that was saved without
	Incoming          bool      // wait for a saved system
	Rehearsed         bool      // it does things once before they count, see rehearsedCache
	OwnEntropy        bool      // numbers are read from RandomDevice: what QEMU draws itself, all copies of it would draw
	StartStopped      bool      // processors stand still until QMP says cont
	Untraced          bool      // nobody inside may trace the kernel, see CommandLine
	ConsoleOnHardware bool      // for tests: early messages go to a serial port on standard output
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

// tcgCache is how much of its translations QEMU keeps under TCG. Unit: MiB. All of it is
// in use once a guest has gone on from a saved system and started. With 32 a guest of 512 MiB costs 20 MiB less than
// with QEMU's default and starts as fast; with 16 it takes 12 MiB less again,
// and more of a processor, since it translates the same things twice.
func tcgCache(memory unit.Size) int {
	return int(min(max(memory/16, 16*unit.MiB), 128*unit.MiB) / unit.MiB)
}

// bootedCache is the same of a machine that boots, which to its first program takes 60 MiB. With
// 32 QEMU throws everything away in the middle of it, and a start costs an eighth more.
func bootedCache(memory unit.Size) int { return max(96, tcgCache(memory)) }

// rehearsedCache is the same of a machine that is to hold at once what a start needs and all
// that came before: QEMU throws everything away when its cache is full, and a
// rehearsal would be for nothing. Two starts take 38 MiB.
func rehearsedCache(memory unit.Size) int { return max(64, tcgCache(memory)) }

// Args returns QEMU's arguments, without the program. It is pure.
func (g Guest) Args() []string {
	a := argv.Args{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", "guest=" + g.Name,
		"-sandbox", argv.Sandbox,
	}
	g.machine(&a)
	g.boot(&a)
	g.sockets(&a)
	g.serial(&a)
	g.disks(&a)
	g.card(&a)
	a.Device("virtio-rng-device", "rng=entropy", "max-bytes=4096", "period=1000")
	// Pages that the guest frees go back to the host. For memory in a file there is none:
	// QEMU would punch holes into what others share, and where it cannot, it says so for
	// each page, as often as the guest likes.
	if !g.fixed() && g.HugePages == 0 {
		a.Device("virtio-balloon-device", "id="+Balloon, "free-page-reporting=on", "deflate-on-oom=on")
	}
	a.Device("pvpanic") // says GUEST_PANICKED, and ends
	for i, v := range g.Volumes {
		id := "volume" + strconv.Itoa(i)
		a.Connected(id, v.FD)
		a.Device("vhost-user-fs-device", "chardev="+id, "tag="+argv.Escape(v.Tag))
	}
	return a
}

// fixed tells whether the machine is one of those whose system is saved, or was.
func (g Guest) fixed() bool { return g.Backing.File != "" || g.Fixed }

// machine is processors, memory and the board.
func (g Guest) machine(a *argv.Args) {
	// ACPI is how the kernel finds virtio-mmio devices, and how power-off reaches
	// QEMU. Timer and interrupt controller of the PC are of no use beside it.
	a.Add("-M", machineType+",acpi=on,pit=off,pic=off,rtc=on,isa-serial="+argv.OnOff(g.ConsoleOnHardware)+",memory-backend=ram")
	// Devices of virtio 1 only: virtiofs has no other.
	a.Add("-global", "virtio-mmio.force-legacy=false")
	if g.Accelerator == KVM {
		a.Add("-accel", "kvm", "-cpu", "host")
	} else {
		cache := bootedCache(g.Memory)
		switch {
		case g.Rehearsed:
			cache = rehearsedCache(g.Memory)
		case g.Backing.File != "" && !g.Backing.Shared:
			cache = tcgCache(g.Memory)
		}
		processor := "qemu64,+arat"
		// For rdrand QEMU draws from a generator of its own, which copies of it would have alike. A kernel
		// that boots has its first random numbers by it; without it takes a fifteenth longer.
		if !g.fixed() {
			processor += ",+rdrand"
		}
		// With arat a kernel can do without a tick that comes 250 times a second: an idle guest
		// takes 0.4 % of a processor instead of 4.6 %.
		a.Add("-accel", Translator(cache, g.Turns && g.Processors > 1), "-cpu", processor)
	}
	a.Add("-smp", strconv.Itoa(g.Processors), "-m", "size="+strconv.FormatInt(int64(g.Memory/unit.MiB), 10)+"M")
	size := ",id=ram,size=" + strconv.FormatInt(int64(g.Memory), 10)
	switch {
	case g.Backing.File != "":
		a.Add("-object", "memory-backend-file"+size+",share="+argv.OnOff(g.Backing.Shared)+",mem-path="+argv.Escape(g.Backing.File))
	case g.HugePages > 0:
		a.Add("-object", "memory-backend-memfd"+size+Huge(g.HugePages)+",share="+argv.OnOff(len(g.Volumes) > 0))
	case len(g.Volumes) > 0:
		a.Add("-object", "memory-backend-memfd"+size+",share=on")
	default:
		a.Add("-object", "memory-backend-ram"+size)
	}
	if g.OwnEntropy {
		a.Add("-object", "rng-random,id=entropy,filename="+RandomDevice)
	} else {
		a.Add("-object", "rng-builtin,id=entropy")
	}
}

// RandomDevice is where a QEMU finds numbers that has none of its own.
const RandomDevice = "/dev/urandom"

// Translator is TCG with so many MiB for its translations, which has a thread for each
// processor of a machine, or one that they take turns on. Before 8.1 QEMU may go on running
// what it translated of code that another processor has changed since. A kernel that changes
// its own code while it runs, as Linux does for what is switched on and off, then stands
// still with both processors busy: within seconds where that is done again and again.
// Source: QEMU, commit deba78709ae8 (accel/tcg: Always lock pages before translation).
func Translator(cache int, turns bool) string {
	thread := ""
	if turns {
		thread = ",thread=single"
	}
	return "tcg" + thread + ",tb-size=" + strconv.Itoa(cache)
}

// Huge are the properties of a memory-backend-memfd whose pages are so large. All are taken
// at the start: where one is missing later, the kernel ends QEMU.
func Huge(page unit.Size) string {
	return ",hugetlb=on,prealloc=on,hugetlbsize=" + strconv.FormatInt(int64(page/unit.MiB), 10) + "M"
}

// emulated is what a kernel is told besides where QEMU translates it. Each thing that it
// does costs as much as tens do on a processor, the first time above all. Mitigations are
// of a processor that speculates on the guest's own instructions, which none does here;
// of the security modules those are left out that do nothing without a policy of their
// own; and the agent's runtime (GODEBUG) sends itself no signals to be fair, and keeps no
// record of what takes memory. The kernel tries
// whether the timer's interrupts come by counting them for a tenth of a second, and panics
// where the host was too busy to bring them (IO-APIC + timer doesn't work), so it is told
// not to; by KVM it knows that by itself. Source: Linux, arch/x86/kernel/apic/io_apic.c.
// The agent's runtime does not look again and again how many processors there are, and there is
// no watchdog: a busy host holds a system up for seconds, which the kernel would take for
// a fault of its own.
const emulated = " no_timer_check mitigations=off lsm=landlock,lockdown,yama,apparmor GODEBUG=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0,memprofilerate=0 nowatchdog " + spec.Emulated

// untraced spares a kernel what only those can use who trace it or have certificates of
// their own checked: thousands of files of tracefs, names for what their formats say, a look
// at every function, keys. By TCG it is a seventh of a start. Where a kernel has no such part
// it changes nothing. Source: Linux, kernel/trace, certs/system_keyring.c.
const untraced = " initcall_blacklist=trace_eval_init,tracer_init_tracefs,init_kprobe_trace,init_uprobe_trace,init_dynamic_event," +
	"init_trace_printk_function_export,ftrace_check_for_weak_functions,load_system_certificate_list"

// CommandLine is the command line of a kernel that boots a template by accelerator,
// whose time stamp counter runs at tsc kHz (0: not known). An app's cannot be traced, since no
// program of one has a capability for that. The last of consoles is that of process 1.
func CommandLine(accelerator string, tsc int, app bool, consoles ...string) string {
	where := make([]string, len(consoles))
	for i, c := range consoles {
		where[i] = "console=" + c
	}
	// cryptomgr.notests, noreplace-smp: 80 ms less under TCG; the test of a key's derivation
	// (crypto_kdf108_init is nothing else) 16. Expedited, mounts, modules
	// and control groups wait half as long for the kernel's own readers. A kernel that
	// panics resets at once, which ends QEMU. net.ifnames=0: a system's udev leaves the card
	// the name that it has with every other kind.
	line := "quiet cryptomgr.notests initcall_blacklist=crypto_kdf108_init noreplace-smp rcupdate.rcu_expedited=1 panic=-1 " + strings.Join(where, " ") + " net.ifnames=0"
	if app {
		line += untraced
	}
	if accelerator == TCG {
		line += emulated
		if tsc > 0 {
			// Without it the kernel measures the counter against timers that are late
			// under TCG, and hangs at times; and where it then watches the counter by them,
			// it takes it for broken on a busy host, and goes on with a clock that ticks
			// every 4 ms and loses ticks. The counter is the host's.
			line += fmt.Sprintf(" tsc=reliable tsc_early_khz=%d", tsc)
		}
	}
	return line
}

func (g Guest) boot(a *argv.Args) {
	if g.StartStopped {
		a.Add("-S")
	}
	if g.Incoming {
		a.Add("-incoming", "defer")
	}
	if g.Firmware != "" {
		a.Add("-bios", g.Firmware)
	}
	if g.Kernel == "" {
		return
	}
	toSave := g.Backing.Shared // for guests of either kind
	line := CommandLine(g.Accelerator, g.TSC, g.Untraced && !toSave, "hvc0")
	if toSave {
		line += " " + spec.ToSave
	}
	if g.ConsoleOnHardware {
		line = "earlyprintk=ttyS0 console=ttyS0 " + line
		a.Add("-serial", "stdio")
	} else {
		line += " 8250.nr_uarts=0" // there is none to look for
	}
	a.Add("-kernel", g.Kernel, "-initrd", g.Initrd, "-append", line)
}

// sockets are the ends that the host talks to.
func (g Guest) sockets(a *argv.Args) {
	a.Listening("control", g.Control)
	a.Listening("monitor", g.Monitor)
	a.Connected("streams", g.Streams)
	a.Connected("console", g.Console)
	a.Connected("events", g.Events)
	a.Add("-mon", "chardev=monitor,mode=control", "-mon", "chardev=events,mode=control")
}

func (g Guest) serial(a *argv.Args) {
	a.Device("virtio-serial-device", "max_ports=4")
	a.Device("virtconsole", "chardev=console")
	a.Device("virtserialport", "chardev=control", "name="+ControlPort)
	a.Device("virtserialport", "chardev=streams", "name="+StreamsPort)
}

func (g Guest) disks(a *argv.Args) {
	// Both through the host's page cache: a template's is shared by all guests and
	// zones, and what a guest reads again of its disk is there when it had to give up
	// its own cache. Measured with O_DIRECT inside, TCG, MB/s by threads, io_uring, and
	// past the cache: reads of 1 MiB 2,500, 2,700, 820; of 4 KiB 18, 30, 12; writes of
	// 1 MiB 310, 650, 760. Only flushes are slower, 3 ms instead of 0.7.
	a.File(TemplateNode, g.Template, g.Ring, "read-only=on", "cache.direct=off")
	a.Device("virtio-blk-device", "drive=template", "serial="+TemplateSerial)
	// Discarded blocks become holes of the sparse image again.
	a.File(DiskNode, g.Disk, g.Ring, "discard=unmap", "cache.direct=off")
	a.Device("virtio-blk-device", "drive=disk", "serial="+DiskSerial)
}

func (g Guest) card(a *argv.Args) {
	if g.Tap == 0 {
		// A port of a hub that nothing else is on: a card without a cable.
		a.Add("-netdev", "hubport,id=card,hubid=0")
	} else {
		a.Add("-netdev", fmt.Sprintf("tap,id=card,fd=%d,vhost=off", g.Tap))
	}
	mac := ""
	if g.MAC != "" {
		mac = "mac=" + g.MAC
	}
	// A system that goes on is where it was, or has no address yet: it need tell nobody.
	a.Device("virtio-net-device", "netdev=card", "guest_announce=off", mac)
}
