package virtual

import (
	"context"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/virtiofs"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Attempt starts l, once. The caller has claimed the id.
func (d *Driver) Attempt(ctx context.Context, p stratum.Plan, l *Launch, o stratum.StartOptions) (_ *Live, err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	boot := &l.Notes.Boot
	boot.Turns = l.QEMU.Turns && boot.Accelerator == qemu.TCG && max(boot.CPUs, boot.MostCPUs) > 1 && !p.Hardware.Nested
	l.Notes.Form = formOf(l.Hardware.Form())
	if err := l.sameForm(); err != nil {
		return nil, err
	}
	if err := d.Held.Make(ctx, p.ID, l.Notes); err != nil {
		return nil, err
	}
	back.Push("remove the run folder", func(context.Context) error { return d.Held.Remove(p.ID) })
	for _, dir := range []string{p.Log.Dir, p.Console.Dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Internalf("make the folder of logs: %w", err)
		}
	}
	group, err := d.o.Resources.Create(ctx, p.ID, hostLimits(boot.Memory, p.Resources, l.Notes.Disks), Devices(boot.Accelerator), 0)
	if err != nil {
		return nil, fault.Wrap(err, "make the control group")
	}
	back.Push("remove the control group", func(ctx context.Context) error {
		if err := group.Kill(ctx); err != nil {
			return err
		}
		return group.Remove(ctx)
	})
	k, first, err := d.apply(ctx, p, l, o, group)
	if err != nil {
		return nil, err
	}
	return d.live(d.Held.Take(p.ID, k, group), l.Notes, first), nil
}

// kvm is /dev/kvm. Source: Documentation/admin-guide/devices.txt.
var kvm = resource.Device{Type: 'c', Major: 10, Minor: 232, Access: "rw"}

const kvmPath = "/dev/kvm"

// Devices are what QEMU's control group may use.
func Devices(accelerator string) []resource.Device {
	if accelerator == qemu.KVM {
		return append(resource.DefaultDevices(), kvm)
	}
	return resource.DefaultDevices()
}

// apply makes everything that l needs and starts it.
func (d *Driver) apply(ctx context.Context, p stratum.Plan, l *Launch, o stratum.StartOptions, group *resource.Group) (*keeper.Keeper, *session, error) {
	var h Handed
	defer h.Close()
	var w Wires
	machine, err := d.hand(ctx, p, l, &w, &h)
	if err != nil {
		return nil, nil, err
	}
	options := keeper.Options{
		Binary: d.keeper, Spec: d.spec(p, l, w, &h), Files: h.Files, Attach: o.Attach, Machine: machine,
	}
	entered, err := held.Enter(&options, group)
	if err != nil {
		return nil, nil, err
	}
	defer entered.Close()
	starting, err := keeper.Start(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	h.Close() // the keeper and QEMU have their own
	if l.Resume != nil {
		if err := l.Resume(ctx); err != nil {
			if qemu.Gone(err) {
				if why := ended(ctx, starting); why != nil {
					return nil, nil, why
				}
			}
			return nil, nil, errors.Join(err, starting.Abort(context.WithoutCancel(ctx)))
		}
	}
	if l.Alone {
		k, err := d.alone(ctx, p.ID, starting)
		return k, nil, err
	}
	return d.boot(ctx, p, group, l, starting)
}

// hand opens all that QEMU and the keeper get.
func (d *Driver) hand(ctx context.Context, p stratum.Plan, l *Launch, w *Wires, h *Handed) (*keeper.Machine, error) {
	if err := d.AddAgent(h); err != nil {
		return nil, err
	}
	if !l.Alone {
		open := l.Disks
		if open == nil {
			open = func(w *Wires, h *Handed) error { return d.disks(ctx, p, w, h) }
		}
		if err := open(w, h); err != nil {
			return nil, err
		}
	}
	if err := d.Listen(p.ID, w, h); err != nil {
		return nil, err
	}
	if l.Guest {
		f, err := listen(d.Held.Path(p.ID, guestSocket))
		if err != nil {
			return nil, err
		}
		w.Guest = h.Add(f)
	}
	k, err := keeperEnds(w, h)
	if err != nil {
		return nil, err
	}
	k.Alone, k.Serial, k.ConsoleLog = l.Alone, l.Serial, consoleLog(p)
	if err := d.volumes(ctx, p, l, k, w, h); err != nil {
		return nil, err
	}
	if err := d.card(l, w, h); err != nil {
		return nil, err
	}
	if a, ok := l.Hardware.(Accompanied); ok {
		beside, err := a.Beside(h)
		if err != nil {
			return nil, err
		}
		k.Beside = append(k.Beside, beside...)
	}
	if err := l.Hardware.Open(h); err != nil {
		return nil, err
	}
	return k, l.copied(h.Files[max(w.Tap-wire.PayloadSyncFD-1, 0)], h)
}

func consoleLog(p stratum.Plan) wire.Log {
	return wire.Log{Dir: p.Console.Dir, Size: p.Console.Size, Files: p.Console.Files}
}

// keeperEnds connects QEMU and the keeper.
func keeperEnds(w *Wires, h *Handed) (_ *keeper.Machine, err error) {
	k := &keeper.Machine{}
	for _, s := range []struct {
		number *int
		ours   **os.File
	}{{&w.Streams, &k.Streams}, {&w.Console, &k.Console}, {&w.Events, &k.Monitor}} {
		if *s.ours, err = h.Connected(s.number); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// disks opens the template's image and the private disk.
func (d *Driver) disks(ctx context.Context, p stratum.Plan, w *Wires, h *Handed) error {
	template, err := os.Open(p.Whole.Path)
	if err != nil {
		return fault.Internalf("open the template's image: %w", err)
	}
	w.Template = h.Add(template)
	disk, err := d.OpenDisk(ctx, p.Disk)
	if err != nil {
		return err
	}
	w.Disk = h.Add(disk)
	return nil
}

// card gives the machine its tap.
func (d *Driver) card(l *Launch, w *Wires, h *Handed) error {
	switch t := l.Tap; {
	case t != nil:
		f, err := Again(t.File) // a second attempt needs it as well
		if err != nil {
			return err
		}
		w.Tap, w.MAC = h.Add(f), t.MAC
		if l.Run.Network, err = Network(t); err != nil {
			return err
		}
	case l.Unplug:
		f, err := Unplugged()
		if err != nil {
			return err
		}
		w.Tap = h.Add(f)
	}
	return nil
}

// Rehearse checks what starts of p need besides what Prepare finds: the template's
// image, and what serves volumes.
func (d *Driver) Rehearse(ctx context.Context, p stratum.Plan) error {
	if _, err := os.Stat(p.Whole.Path); err != nil {
		return fault.Internalf("look at the template's image: %w", err)
	}
	if len(p.Volumes) == 0 {
		return nil
	}
	_, err := d.server(ctx, p)
	return err
}

// server finds what serves volumes.
func (d *Driver) server(ctx context.Context, p stratum.Plan) (virtiofs.Program, error) {
	if err := d.MayShow(len(p.Volumes)); err != nil {
		return virtiofs.Program{}, err
	}
	return virtiofs.FindOr(ctx, d.volume)
}

// MayShow implements stratum.Shower.
func (d *Driver) MayShow(volumes int) error {
	if volumes > d.o.Volumes {
		return fault.Invalidf("%d volumes are more than a %s can have", volumes, d.o.Stratum).At("volumes").Help("give at most %d", d.o.Volumes)
	}
	return nil
}

var _ stratum.Shower = (*Driver)(nil)

// volumes has a server for each volume beside QEMU.
func (d *Driver) volumes(ctx context.Context, p stratum.Plan, l *Launch, k *keeper.Machine, w *Wires, h *Handed) error {
	if len(p.Volumes) == 0 {
		return nil
	}
	program, err := d.server(ctx, p)
	if err != nil {
		return err
	}
	for i, v := range p.Volumes {
		s, err := program.Open(ctx, d.Held.Path(p.ID), virtiofs.Volume{Tag: "volume" + strconv.Itoa(i), Source: v.Source, ReadOnly: v.ReadOnly})
		if err != nil {
			return fault.Wrap(err, "show %s inside", v.Source)
		}
		h.Keep(s.Tree, s.Listener)
		path, args := s.Command(d.Agent, 3, 4)
		k.Beside = append(k.Beside, keeper.Beside{Name: program.Kind.String() + " of " + v.Source, Path: path, Args: args, CloneFlags: virtiofs.Namespaces, Files: []*os.File{s.Tree, s.Listener}})
		w.Volumes = append(w.Volumes, qemu.Volume{Tag: s.Tag, FD: h.Add(s.QEMU)})
		l.Run.Volumes = append(l.Run.Volumes, spec.Volume{Tag: s.Tag, File: s.File, Target: v.Target, ReadOnly: v.ReadOnly})
	}
	stratum.OuterFirst(l.Run.Volumes, func(v spec.Volume) string { return v.Target })
	return nil
}

// Payload is QEMU with args, confined as user, with the descriptors of h, of which the
// first is the agent.
func (l *Launch) Payload(user uint32, args []string, h *Handed) wire.Payload {
	c := confine.Spec{
		Program: l.QEMU.Path, Args: args, User: user, First: wire.PayloadSyncFD + 2, Last: wire.PayloadSyncFD + len(h.Files),
	}
	l.Hardware.Confine(&c)
	if l.Copy != nil {
		c.Image = c.Last
	}
	if l.Notes.Boot.Accelerator == qemu.KVM {
		c.Devices = append(c.Devices, kvmPath)
		var st unix.Stat_t
		if unix.Stat(kvmPath, &st) == nil {
			c.Groups = []uint32{st.Gid}
		}
	}
	return wire.Payload{
		Path: "/proc/self/fd/" + strconv.Itoa(wire.PayloadSyncFD+1), Args: c.Encode(), CloneFlags: confine.Namespaces,
	}
}

// spec is what the keeper is told.
func (d *Driver) spec(p stratum.Plan, l *Launch, w Wires, h *Handed) wire.Spec {
	main := l.Run.Main
	payload := l.Payload(p.IDBase, l.Hardware.Args(w), h)
	payload.Victim = p.Victim
	return wire.Spec{
		ID: p.ID, Socket: d.Held.Path(p.ID, "keeper.sock"), ExitFile: d.Held.Path(p.ID, "exit.json"), StatusFile: d.Held.Path(p.ID, "status.json"),
		Log: wire.Log{Dir: p.Log.Dir, Size: p.Log.Size, Files: p.Log.Files}, Owner: p.IDBase,
		System: p.System,
		TTY:    main != nil && main.TTY, Stdin: main != nil && (main.Stdin || main.TTY && p.System),
		Payload: payload,
	}
}
