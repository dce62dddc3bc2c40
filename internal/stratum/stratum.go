package stratum

import (
	"context"
	"net/netip"
	"os"
	"syscall"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// The strata, shallowest first.
const (
	Zone    = "zone"    // programs, on the host's kernel
	Guest   = "guest"   // an operating system with its own kernel, that knows it is virtual
	Machine = "machine" // virtual hardware under stock firmware
)

// Capability is a set of what only some strata can do.
type Capability uint32

// The capabilities; each licenses the optional interface of the same name.
const (
	CanPause     Capability = 1 << iota // Pauser
	CanLimit                            // Limiter: limits change while it runs
	CanConsole                          // Consoler
	CanKernelLog                        // KernelLogger
	CanScreen                           // Screener
	CanList                             // Lister
	CanSuspend                          // Suspender
	CanReset                            // Resetter
	CanInterrupt                        // Interrupter
	CanCount                            // Counter
	CanReclaim                          // Reclaimer
	CanGrowDisk                         // DiskGrower
)

// Driver runs environments at one depth. It is safe for concurrent use.
type Driver interface {
	// Stratum returns the depth's name.
	Stratum() string
	// Capabilities returns what this stratum can do beyond Driver and Live.
	Capabilities() Capability
	// Start runs p and returns once the main program runs (with kind system: the
	// template's init). ctx bounds the start, not the run. If Start fails,
	// nothing that it made is left on the host. A fault at field "command" means
	// that the main program is missing (kind Missing) or cannot be executed
	// (kind Unable). Kinds: Unable, Missing, Busy, Conflict where it runs already.
	Start(ctx context.Context, p Plan, o StartOptions) (Live, error)
	// Adopt finds a run that an earlier daemon started.
	// Kinds: Missing where nothing of that id runs.
	Adopt(ctx context.Context, id string) (Live, error)
	// Clean removes whatever a run that is over has left on the host, and returns
	// how it ended where the keeper could still write that down, else nil.
	// Cleaning twice is no error. It must not be called while a run is live.
	Clean(ctx context.Context, id string) (*api.Exit, error)
	// Runs returns the ids that have anything of a run on the host, live or not.
	Runs(ctx context.Context) ([]string, error)
}

// Live is one run of one environment. It is safe for concurrent use, and every
// method but Wait answers within a bounded time.
type Live interface {
	// PID is the host's number of the first process; KeeperPID of its keeper.
	PID() int
	KeeperPID() int
	// Ready is closed once it is up: with kind app at once, with kind system when
	// the init has said so.
	Ready() <-chan struct{}
	// Wait blocks until the run is over. A keeper that was lost is a crash.
	Wait(ctx context.Context) (api.Exit, error)
	// Signal sends sig to the main program (with kind system: to the init).
	Signal(ctx context.Context, sig syscall.Signal) error
	// Kill ends every process of the environment at once.
	Kill(ctx context.Context) error
	// Attach lets conn take part in the main program's standard streams, in
	// frames of package api/stream. The driver keeps a duplicate of conn.
	Attach(ctx context.Context, conn *os.File) error
	// Exec starts a further program inside, with conn as its streams, and
	// returns once it runs; its exit status is conn's last frame. Faults of the
	// program are as Start's.
	Exec(ctx context.Context, p Process, conn *os.File) error
	// Stats returns what it uses now.
	Stats(ctx context.Context) (api.Stats, error)
}

// Dropper is a run that may still write its disk out when its main program has ended.
type Dropper interface {
	// Told is closed once it is known how the main program ended, if the run has not
	// ended by then.
	Told() <-chan struct{}
	// Drop ends the run with that, at once: nobody wants its disk any more.
	// Kinds: Conflict where the main program has not ended.
	Drop(ctx context.Context) error
}

// Pauser holds every process of a run still.
type Pauser interface {
	// Kinds: Busy where it stands still for want of room on the host, and goes on by itself.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}

// Limiter changes limits of a run.
type Limiter interface {
	SetLimits(ctx context.Context, r api.Resources) error
}

// DiskGrower makes the private disk of a run larger, in use.
type DiskGrower interface {
	// GrowDisk makes the disk as large as size, whose image the driver was told in the plan.
	// If it fails the file system is whole, and as large as it came to be; what is asked
	// again goes on from there. Kinds: as
	// disk.Pool's Lengthen, Unable.
	GrowDisk(ctx context.Context, image string, size unit.Size) error
	// MostDisk returns how large it can become so.
	MostDisk(image string) (unit.Size, error)
}

// Sharer is a driver whose runs share processors and memory as they are told.
type Sharer interface {
	// Share sets what a run gets beside others; with id "" what all runs of the host
	// get together, beside what else it does: any driver may be told. A run that is gone
	// is no error.
	Share(id string, s Share) error
}

// Share is what one gets where not all can have what they want.
type Share struct {
	Weight int       // of processor time, 1 to 10000
	Memory unit.Size // kept while others want more; -1: nobody has a guarantee
}

// Consoler has a console: what firmware, kernel and init write to before and
// beside any program.
type Consoler interface {
	// Console lets conn take part in the console, in frames of package
	// api/stream; all of it comes as standard output.
	Console(ctx context.Context, conn *os.File) error
}

// KernelLogger has a kernel of its own.
type KernelLogger interface {
	// KernelLog returns the log of the kernel inside, oldest line first.
	KernelLog(ctx context.Context) ([]byte, error)
}

// Prober is a driver of virtual machines: it tells what the host gives them.
type Prober interface {
	// Probe tells whether virtual processors run at the host's speed, and why not.
	// Kinds: Unable where the host lacks a program that the stratum takes.
	Probe(ctx context.Context) (kvm bool, why string, err error)
}

// Rehearser finds out beforehand what would keep a start from coming through.
type Rehearser interface {
	// Rehearse does what Start of p does before it makes anything for p alone, and so
	// fails as Start would. Another driver may have a run of p's environment meanwhile.
	Rehearse(ctx context.Context, p Plan) error
}

// Shower has room for so many of the host's folders and files to be shown inside.
type Shower interface {
	// MayShow refuses more volumes than a run can have. Kinds: Invalid.
	MayShow(volumes int) error
}

// Booter tells how a system of its own was started.
type Booter interface {
	Boot() api.Boot
}

// Outfitter tells what hardware it gives.
type Outfitter interface {
	// Devices returns a line for each part of what p's template gets, with a network card
	// or none. Of p only firmware, hardware, kernel, modules, devices, resources and volumes count.
	// Kinds: Invalid and Unable where it cannot have what is asked for by name, Missing
	// where there is no kernel with drivers for it; the lines are returned then as well.
	Devices(ctx context.Context, p Plan, network bool) ([]string, error)
}

// Link joins a run to its network. The engine gives it; a driver calls the
// method that fits its depth, once.
type Link interface {
	// IntoNamespace puts the environment's interface, addresses and routes into
	// the network namespace of a process, and publishes its ports.
	IntoNamespace(ctx context.Context, pid int) error
	// Tap makes the environment's interface as a tap device and publishes its
	// ports. The device is gone when the last descriptor of the file is closed.
	// With no network it returns nil. made is a tap device that was made before it was
	// known for whom, of the same kind and not up; nil: one is made.
	Tap(ctx context.Context, made *os.File) (*Tap, error)
}

// Tap is the host's end of a virtual network card, and what the system behind
// the card has to be told.
type Tap struct {
	File     *os.File // of /dev/net/tun, with a virtio-net header (IFF_VNET_HDR); the caller closes it
	MAC      string
	MTU      int
	Address  []netip.Prefix
	Gateways []netip.Addr // default routes
}

// StartOptions are what belongs to one start and not to the plan.
type StartOptions struct {
	Link   Link
	Links  map[string]Link // of attached cards, by their names
	Attach *os.File        // joins the main program's streams before it runs; nil: nobody does
}

// Plan is all that one run needs.
type Plan struct {
	ID       string
	Name     string
	System   bool        // the template's init is the main program
	Idle     bool        // no main program: only the agent runs, so that files can be reached
	Main     Process     //
	Layers   []LayerFile // lowest first
	Whole    LayerFile   // all of them as one; empty at stratum zone
	Disk     string      // path of the private disk's image
	IDBase   uint32      // first of its 65,536 ids on the host
	Hostname string
	Files    []File // written into /etc: hosts, hostname, resolv.conf
	Volumes  []api.Volume
	Tmpfs    []api.Tmpfs

	Resources     api.Resources
	Victim        int // see Victim
	ReadOnly      bool
	NewPrivileges bool
	Log           LogPlan
	Console       LogPlan // kept of the console, where there is one

	Kernel string // name or id of the kernel of a system of its own; "": the default one
	Cold   bool   // no warm start

	Modules []string // that its kernel loads before anything runs

	Firmware string       // of a machine: bios, uefi or secure; "": the stratum's choice
	Hardware api.Hardware // of a machine, asked for by name
	Devices  []Device     // attached to a machine

	Foreign *Foreign // a system that strata does not know, instead of a template; nil: none

	Saved string // folder that a Suspender wrote, to go on from; "": it starts
}

// Process is one program to run inside.
type Process struct {
	Args    []string // Args[0] is looked for on the PATH in Env where it has no slash
	Env     []string // complete: nothing is added but HOME and TERM where they are missing
	WorkDir string   // made where it is missing, for the main program only
	User    string   // user[:group], names or numbers as the environment's own /etc/passwd has them
	TTY     bool
	Stdin   bool
	Rows    uint16
	Cols    uint16
	Agent   bool // Args name a command of the agent's own, not a program of the template's
}

// LayerFile is one read-only layer.
type LayerFile struct {
	Digest string
	Path   string // the EROFS image
}

// File is a small file that strata writes for the environment.
type File struct {
	Path string // absolute, inside
	Data []byte
}

// LogPlan says where the main program's output is kept and how much of it.
type LogPlan struct {
	Dir   string
	Size  int64 // of one file, in bytes
	Files int
}
