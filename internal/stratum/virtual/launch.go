package virtual

import (
	"context"
	"os"
	"slices"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// The sockets of a run folder, besides the keeper's.
const (
	ControlSocket = place.ControlSocket // the agent's, by QEMU
	MonitorSocket = "qmp.sock"          // QEMU's
	guestSocket   = "guest.sock"        // qemu-guest-agent's, by QEMU
)

// Hardware is a stratum's own part of a launch.
type Hardware interface {
	// Open opens what QEMU gets besides Wires, with h.Add; an attempt calls it once.
	Open(h *Handed) error
	// Args returns QEMU's arguments, without the program.
	Args(w Wires) []string
	// Confine adds what QEMU finds in its root.
	Confine(c *confine.Spec)
	// Form returns what of Args a suspended system depends on, whatever descriptors,
	// name and addresses the run has. It is asked once the network is known.
	Form() []string
}

// Accompanied is hardware that has programs beside QEMU.
type Accompanied interface {
	// Beside opens what those need; an attempt calls it once, before Open.
	Beside(h *Handed) ([]keeper.Beside, error)
}

// Wires are QEMU's descriptors that every machine has, by number; 0: it has none.
type Wires struct {
	Template, Disk   int // images
	Control, Monitor int // sockets that listen
	Guest            int // a socket that listens, where Launch.Guest is set
	Streams, Console int // sockets that are connected
	Events           int // a monitor of the keeper's, connected
	Tap              int
	MAC              string
	Volumes          []qemu.Volume
}

// Launch is a whole start as a value, but for descriptors.
type Launch struct {
	QEMU     qemu.Program
	Kernel   kernel.Kernel
	Image    kernel.Image // its initramfs
	Hardware Hardware
	Resume   func(context.Context) error // has a machine go on that waits for a saved state; nil: it boots
	Unplug   bool                        // without a network its card gets a tap that leads nowhere
	Run      spec.Run
	Notes    Notes
	Tap      *stratum.Tap                // nil: no network
	Proven   bool                        // a system has run by this accelerator before
	Last     bool                        // there will be no further attempt
	Begun    bool                        // QEMU was let run
	Met      bool                        // the agent inside has answered
	From     *Saved                      // the suspended system that it goes on from; nil: it starts
	Guest    bool                        // there is a port for qemu-guest-agent
	Alone    bool                        // no agent is inside, and no template: all disks are the hardware's
	Serial   bool                        // the agent's ports are serial ports
	Copy     *Image                      // it is one of this; nil: QEMU is executed
	Disks    func(*Wires, *Handed) error // opens what is behind its disks; nil: what the plan says
}

// Prepare finds out all that p needs but for the hardware, and changes nothing but what
// is kept for all. The kernel is one that has what wanted requires.
func (d *Driver) Prepare(ctx context.Context, p stratum.Plan, needed kernel.Wanted) (*Launch, error) {
	if err := d.check(p); err != nil {
		return nil, err
	}
	memory, processors, err := wanted(p.Resources)
	if err != nil {
		return nil, err
	}
	if err := hugeRoom(p.Resources.HugePages, memory, hugeFolder); err != nil {
		return nil, err
	}
	if p.Saved != "" && p.Kernel == "" { // the default one may be another by now
		if p.Kernel, err = kernelOf(p.Saved); err != nil {
			return nil, err
		}
	}
	needed.Required = append(slices.Clip(needed.Required), modules(p)...)
	if len(p.Volumes) > 0 { // they are mounted before the first program runs
		needed.Optional = append(slices.Clip(needed.Optional), "virtiofs")
	}
	l := &Launch{}
	if l.QEMU, err = qemu.Find(ctx); err != nil {
		return nil, err
	}
	if l.Kernel, err = d.o.Kernels.GetFor(p.Kernel, needed); err != nil {
		return nil, err
	}
	set, err := l.Kernel.Set(needed)
	if err != nil {
		return nil, err
	}
	if len(p.Volumes) > 0 && !set.Has("virtiofs") {
		return nil, fault.Unablef("kernel %s has no module virtiofs, which volumes need", l.Kernel.Name).At("volumes").Help("use another kernel: strata kernel ls")
	}
	if l.Image, err = d.o.Kernels.Initramfs(ctx, l.Kernel, d.inside, set); err != nil {
		return nil, err
	}
	// The kernel holds the archive and what it unpacks from it at the same time.
	if need := unit.Size(2*l.Image.Size) + api.OwnShare/3; need > memory {
		return nil, fault.Unablef("the initramfs of kernel %s (%s) does not fit into %s of memory", l.Kernel.Name, unit.Size(l.Image.Size), memory).
			At("resources.memory").Help("give the environment more memory, or use another kernel")
	}
	filter, err := d.filter(l.Kernel.Release)
	if err != nil {
		return nil, err
	}
	verdict := d.Judge.Choose(ctx, l.QEMU)
	accelerator := verdict.Accelerator
	l.Proven = verdict.Booted
	l.Notes = notesOf(p)
	if l.Notes.Disks, err = disks(p); err != nil {
		return nil, err
	}
	l.Notes.Boot = api.Boot{
		Kernel: l.Kernel.Name, Release: l.Kernel.Release, Accelerator: accelerator, Why: verdict.Reason, Memory: memory, CPUs: processors,
	}
	l.Notes.Present = processors
	l.Notes.Program = programOf(l.QEMU)
	if accelerator == qemu.KVM {
		l.Notes.Processor = qemu.Processor()
	}
	if p.Saved != "" {
		if err := l.goOn(p); err != nil {
			return nil, err
		}
		l.Resume = func(ctx context.Context) error { return d.enter(ctx, p.ID, p.Saved) }
	}
	l.Run = inside(p, filter)
	l.Notes.told(p, filter)
	return l, nil
}

// Connect makes the network's end of its card; made is as stratum.Link has it.
func (l *Launch) Connect(ctx context.Context, link stratum.Link, made *os.File) (err error) {
	if link == nil {
		return nil
	}
	l.Tap, err = link.Tap(ctx, made)
	return fault.Wrap(err, "connect the network")
}

// Disconnect gives up the driver's own hold of it, which every start ends with.
func (l *Launch) Disconnect() {
	if l.Tap != nil {
		l.Tap.File.Close()
	}
}
