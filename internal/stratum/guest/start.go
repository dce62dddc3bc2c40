package guest

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/virtiofs"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// The sockets of a run folder, besides the keeper's.
const (
	controlSocket = "control.sock" // the agent's, by QEMU
	monitorSocket = "qmp.sock"     // QEMU's
)

// What QEMU finds in its root.
const (
	kernelPlace    = "/vmlinux"
	initramfsPlace = "/initramfs"
)

// launch is a whole guest as a value, but for descriptors.
type launch struct {
	QEMU    qemu.Program
	Kernel  kernel.Kernel
	Image   kernel.Image // its initramfs
	Machine qemu.Guest
	Run     spec.Run
	Notes   notes
	Filter  []byte
	Tap     *stratum.Tap // nil: no network
	Saved   *warm.Image  // to go on from; nil: it boots
	Proven  bool         // a guest has run by this accelerator before
	Begun   bool         // QEMU was let run
	Met     bool         // the agent inside has answered
}

// prepare finds out all that p needs, and changes nothing but what is kept for all guests.
func (d *Driver) prepare(ctx context.Context, p stratum.Plan) (*launch, error) {
	if err := check(p); err != nil {
		return nil, err
	}
	memory, err := machineMemory(p.Resources.Memory)
	if err != nil {
		return nil, err
	}
	processors, err := machineProcessors(p.Resources.CPUs)
	if err != nil {
		return nil, err
	}
	l := &launch{}
	if l.QEMU, err = qemu.Find(ctx); err != nil {
		return nil, err
	}
	if l.Kernel, err = d.o.Kernels.Get(p.Kernel); err != nil {
		return nil, err
	}
	set, err := l.Kernel.Set(kernel.Guest)
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
	if need := unit.Size(2*l.Image.Size) + ownShare/2; need > memory {
		return nil, fault.Unablef("the initramfs of kernel %s (%s) does not fit into %s of memory", l.Kernel.Name, unit.Size(l.Image.Size), memory).
			At("resources.memory").Help("give the environment more memory, or use another kernel")
	}
	if l.Filter, err = d.filter(l.Kernel.Release); err != nil {
		return nil, err
	}
	verdict := d.judge.Choose(ctx, l.QEMU)
	accelerator, why := verdict.Accelerator, ""
	if accelerator != qemu.KVM {
		why = verdict.Reason
	}
	l.Proven = verdict.Booted
	l.Notes = notesOf(p)
	l.Notes.Boot = api.Boot{
		Kernel: l.Kernel.Name, Release: l.Kernel.Release, Accelerator: accelerator, Why: why, Memory: memory, CPUs: processors,
	}
	l.Machine = qemu.Guest{
		Name: p.Name, Accelerator: accelerator, Memory: memory, Processors: processors, TSC: qemu.TSC(),
		Kernel: kernelPlace, Initrd: initramfsPlace, Firmware: l.QEMU.Firmware, Ring: l.QEMU.Ring,
	}
	l.Run = inside(p, l.Filter)
	return l, nil
}

// Start implements stratum.Driver.
func (d *Driver) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (_ stratum.Live, err error) {
	release, err := d.runs.Claim(p.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := d.prepare(ctx, p)
	if err != nil {
		return nil, err
	}
	if o.Link != nil {
		if l.Tap, err = o.Link.Tap(ctx); err != nil {
			return nil, fault.Wrap(err, "connect the network")
		}
		if l.Tap != nil {
			defer l.Tap.File.Close()
		}
	}
	save := d.warm(ctx, l, p)
	if l.Saved != nil {
		defer l.Saved.Close()
		live, err := d.start(ctx, p, l, o)
		if err == nil || ctx.Err() != nil || blames(err) {
			return live, err
		}
		d.o.Log.Warn("a guest did not go on from a saved system, and is booted", "id", p.ID, "error", err)
		if err := d.cold(ctx, l, p, "the saved system did not go on: "+err.Error()); err != nil {
			return nil, err
		}
	}
	accelerator := l.Machine.Accelerator
	live, err := orByTCG(ctx, d.judge, l, attempts{
		now: func(ctx context.Context, l *launch) (stratum.Live, error) { return d.start(ctx, p, l, o) },
		byTCG: func(ctx context.Context, l *launch, why error) error {
			d.o.Log.Warn("a guest did not boot by KVM, and is booted by TCG", "id", p.ID, "error", why)
			return d.byTCG(ctx, l, p, why)
		},
	})
	if err == nil && save != nil && l.Machine.Accelerator == accelerator {
		save()
	}
	return live, err
}

// start is one attempt.
func (d *Driver) start(ctx context.Context, p stratum.Plan, l *launch, o stratum.StartOptions) (_ stratum.Live, err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	if err := d.runs.Make(ctx, p.ID, l.Notes); err != nil {
		return nil, err
	}
	back.Push("remove the run folder", func(context.Context) error { return d.runs.Remove(p.ID) })
	for _, dir := range []string{p.Log.Dir, p.Console.Dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Internalf("make the folder of logs: %w", err)
		}
	}
	group, err := d.o.Resources.Create(ctx, p.ID, hostLimits(l.Machine.Memory, p.Resources.CPUs), devices(l.Machine.Accelerator), 0)
	if err != nil {
		return nil, fault.Wrap(err, "make the control group")
	}
	back.Push("remove the control group", func(ctx context.Context) error {
		if err := group.Kill(ctx); err != nil {
			return err
		}
		return group.Remove(ctx)
	})
	k, client, err := d.apply(ctx, p, l, o, group)
	if err != nil {
		return nil, err
	}
	return d.live(d.runs.Take(p.ID, k, group), l.Notes, client), nil
}

// kvm is /dev/kvm. Source: Documentation/admin-guide/devices.txt.
var kvm = resource.Device{Type: 'c', Major: 10, Minor: 232, Access: "rw"}

const kvmPath = "/dev/kvm"

func devices(accelerator string) []resource.Device {
	if accelerator == qemu.KVM {
		return append(resource.DefaultDevices(), kvm)
	}
	return resource.DefaultDevices()
}

// apply makes everything that l needs and starts it.
func (d *Driver) apply(ctx context.Context, p stratum.Plan, l *launch, o stratum.StartOptions, group *resource.Group) (*keeper.Keeper, *control.Client, error) {
	var h handed
	defer h.close()
	machine, err := d.hand(ctx, p, l, &h)
	if err != nil {
		return nil, nil, err
	}
	options := keeper.Options{
		Binary: d.keeper, Spec: d.spec(p, l, &h), Files: h.files, Attach: o.Attach, Machine: machine,
	}
	options.Spec.Payload.Join = group.ThreadFiles()
	options.Spec.OOM.File, options.Spec.OOM.Key = group.OOMSource()
	if cgroup, err := group.OpenUnified(); err == nil {
		defer cgroup.Close()
		options.Cgroup = cgroup
	} else if fault.KindOf(err) != fault.Unable {
		return nil, nil, err
	}
	starting, err := keeper.Start(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	h.close() // the keeper and QEMU have their own
	if l.Saved != nil {
		if err := d.resume(ctx, p, l); err != nil {
			return nil, nil, errors.Join(err, starting.Abort(context.WithoutCancel(ctx)))
		}
	}
	return d.boot(ctx, p, group, l, starting)
}

// handed are the payload's descriptors. They live until the keeper has its own.
type handed struct {
	files  []*os.File // QEMU's, in the order of their numbers
	closer []*os.File // further ones
}

// add gives f to QEMU, and returns its number there.
func (h *handed) add(f *os.File) int {
	h.files = append(h.files, f)
	return wire.PayloadSyncFD + len(h.files)
}

func (h *handed) close() {
	for _, f := range append(h.files, h.closer...) {
		f.Close()
	}
	h.files, h.closer = nil, nil
}

// hand opens all that QEMU and the keeper get, and enters the numbers into the machine.
func (d *Driver) hand(ctx context.Context, p stratum.Plan, l *launch, h *handed) (*keeper.Machine, error) {
	agent, err := os.Open(d.agent)
	if err != nil {
		return nil, fault.Internalf("open the agent: %w", err)
	}
	h.add(agent) // by descriptor, as its folder may be closed to QEMU's user
	m := &l.Machine
	template, err := os.Open(p.Whole.Path)
	if err != nil {
		return nil, fault.Internalf("open the template's image: %w", err)
	}
	m.Template = h.add(template)
	disk, err := d.openDisk(ctx, p.Disk)
	if err != nil {
		return nil, err
	}
	m.Disk = h.add(disk)
	for name, number := range map[string]*int{controlSocket: &m.Control, monitorSocket: &m.Monitor} {
		f, err := listen(d.runs.Path(p.ID, name))
		if err != nil {
			return nil, err
		}
		*number = h.add(f)
	}
	k := &keeper.Machine{ConsoleLog: wire.Log{Dir: p.Console.Dir, Size: p.Console.Size, Files: p.Console.Files}}
	for _, s := range []struct {
		number *int
		ours   **os.File
	}{{&m.Streams, &k.Streams}, {&m.Console, &k.Console}, {&m.Events, &k.Monitor}} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fault.Internalf("make the machine's sockets: %w", err)
		}
		*s.ours = os.NewFile(uintptr(pair[0]), "keeper")
		h.closer = append(h.closer, *s.ours)
		*s.number = h.add(os.NewFile(uintptr(pair[1]), "qemu"))
	}
	if err := d.volumes(ctx, p, l, k, h); err != nil {
		return nil, err
	}
	return k, d.card(l, h)
}

// card gives the machine its tap, and memory that is a saved system's.
func (d *Driver) card(l *launch, h *handed) error {
	m := &l.Machine
	switch t := l.Tap; {
	case t != nil:
		f, err := again(t.File) // a second attempt needs it as well
		if err != nil {
			return err
		}
		m.Tap, m.MAC = h.add(f), t.MAC
		l.Run.Network = &spec.Network{MAC: t.MAC, MTU: t.MTU, Address: t.Address, Gateways: t.Gateways}
	default:
		f, err := unplugged()
		if err != nil {
			return err
		}
		m.Tap = h.add(f)
	}
	if l.Saved != nil {
		f, err := again(l.Saved.Memory)
		if err != nil {
			return err
		}
		m.Backing.File = memoryPlace(h.add(f))
	}
	return nil
}

// again returns another descriptor of f's file.
func again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fault.Internalf("duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// volumes has a server for each volume beside QEMU.
func (d *Driver) volumes(ctx context.Context, p stratum.Plan, l *launch, k *keeper.Machine, h *handed) error {
	if len(p.Volumes) == 0 {
		return nil
	}
	if len(p.Volumes) > virtiofs.MaxVolumes {
		return fault.Invalidf("%d volumes are more than a guest can have", len(p.Volumes)).At("volumes").Help("at most %d", virtiofs.MaxVolumes)
	}
	program, err := virtiofs.Find(ctx)
	if err != nil {
		return err
	}
	for i, v := range p.Volumes {
		s, err := program.Open(ctx, d.runs.Path(p.ID), virtiofs.Volume{Tag: "volume" + strconv.Itoa(i), Source: v.Source, ReadOnly: v.ReadOnly})
		if err != nil {
			return fault.Wrap(err, "show %s inside", v.Source)
		}
		h.closer = append(h.closer, s.Tree, s.Listener)
		path, args := s.Command(d.agent, 3, 4)
		k.Beside = append(k.Beside, keeper.Beside{Path: path, Args: args, CloneFlags: virtiofs.Namespaces, Files: []*os.File{s.Tree, s.Listener}})
		l.Machine.Volumes = append(l.Machine.Volumes, qemu.Volume{Tag: s.Tag, FD: h.add(s.QEMU)})
		l.Run.Volumes = append(l.Run.Volumes, spec.Volume{Tag: s.Tag, Type: "virtiofs", File: s.File, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	sortVolumes(l.Run.Volumes)
	return nil
}

// spec is what the keeper is told.
func (d *Driver) spec(p stratum.Plan, l *launch, h *handed) wire.Spec {
	c := confine.Spec{
		Program: l.QEMU.Path, Args: l.Machine.Args(), User: p.IDBase, First: wire.PayloadSyncFD + 2, Last: wire.PayloadSyncFD + len(h.files),
		Files: l.Machine.Backing.File != "",
	}
	if l.Saved == nil {
		c.Show = []confine.Shown{{Path: l.Kernel.Vmlinux(), At: kernelPlace}, {Path: l.Image.Path, At: initramfsPlace}}
	}
	if l.Machine.Accelerator == qemu.KVM {
		c.Devices = append(c.Devices, kvmPath)
		var st unix.Stat_t
		if unix.Stat(kvmPath, &st) == nil {
			c.Groups = []uint32{st.Gid}
		}
	}
	main := l.Run.Main
	return wire.Spec{
		ID: p.ID, Socket: d.runs.Path(p.ID, "keeper.sock"), ExitFile: d.runs.Path(p.ID, "exit.json"), StatusFile: d.runs.Path(p.ID, "status.json"),
		Log: wire.Log{Dir: p.Log.Dir, Size: p.Log.Size, Files: p.Log.Files}, Owner: p.IDBase,
		System: p.System,
		TTY:    main != nil && main.TTY, Stdin: main != nil && (main.Stdin || main.TTY && p.System),
		Payload: wire.Payload{
			Path: "/proc/self/fd/" + strconv.Itoa(wire.PayloadSyncFD+1), Args: c.Encode(), CloneFlags: confine.Namespaces,
		},
	}
}

// openDisk opens a private disk for one machine, and locks it, so that nobody else
// ever has it at the same time. The lock is the open file's, and so QEMU's for as long
// as that lives. Kinds: Missing, Conflict where another has it.
func (d *Driver) openDisk(ctx context.Context, path string) (*os.File, error) {
	f, err := d.o.Pool.Hold(ctx, path)
	if fault.Is(err, fault.Conflict) {
		e := *fault.All(err)[0]
		return nil, e.At("disk")
	}
	return f, fault.Wrap(err, "open the private disk")
}

// listen makes a socket for QEMU to listen on.
func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fault.Internalf("make a socket of the machine's: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return nil, fault.Internalf("make a socket of the machine's: %w", err)
	}
	return f, nil
}
