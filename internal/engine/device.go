package engine

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
)

// AttachDisk attaches a disk to a machine, now and for later starts, and returns it
// with its name. Kinds: Missing, Invalid, Conflict (the image is in use), Unable (it has no
// place for one, which the fault gives the reason of), Denied.
func (e *Engine) AttachDisk(ctx context.Context, ref string, d api.Disk) (api.Disk, error) {
	made, err := e.attach(ctx, ref, func(rec environment.Record, place int) environment.Device {
		own := 1
		if rec.Spec.Foreign == nil {
			own = templateDisks
		}
		d.Name = "disk" + itoa(place+own)
		return environment.Device{Place: place, Disk: &d}
	})
	if err != nil {
		return d, err
	}
	return *made.Disk, nil
}

// AttachCard attaches a network card to a machine, now and for later starts, and
// returns it with its name and addresses. Kinds: as AttachDisk's.
func (e *Engine) AttachCard(ctx context.Context, ref string, c api.Card) (api.Card, error) {
	made, err := e.attach(ctx, ref, func(_ environment.Record, place int) environment.Device {
		c.Name = "card" + itoa(place+1)
		return environment.Device{Place: place, Card: &c, Key: environment.NewID()}
	})
	if err != nil {
		return c, err
	}
	return *made.Card, nil
}

// templateDisks is how many disks a template's machine has: what firmware boots, the
// template, and the private disk.
const templateDisks = 3

// attachable locks an environment that devices can be attached to, for the caller to
// unlock, and returns what runs it.
func (e *Engine) attachable(ctx context.Context, ref string) (_ *entry, _ stratum.Hoster, err error) {
	if err := e.open(); err != nil {
		return nil, nil, err
	}
	en, err := e.find(ref)
	if err != nil {
		return nil, nil, err
	}
	if err := en.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			en.unlock()
		}
	}()
	rec := en.snapshot()
	if rec.Stratum != stratum.Machine {
		why := map[string]string{
			stratum.Zone:  "a zone has no hardware: it runs on the host's kernel",
			stratum.Guest: "a guest's board (microvm) has no bus with places",
		}[rec.Stratum]
		return nil, nil, fault.Unablef("nothing can be plugged into %s: %s", rec.Name, why).Help("show it a folder of the host (-v), or move it: strata move %s machine", rec.Name)
	}
	host, ok := e.drivers[rec.Stratum].(stratum.Hoster)
	if !ok {
		return nil, nil, fault.Unablef("stratum %s of this strata has no places for devices", rec.Stratum)
	}
	en.mu.Lock()
	run, state := en.run, en.state
	en.mu.Unlock()
	if state == environment.Suspended {
		return nil, nil, fault.Conflictf("environment %s is suspended, and goes on with the hardware that it had", rec.Name).Help("resume it first")
	}
	if run == nil && state.Active() {
		return nil, nil, fault.Conflictf("environment %s is %s", rec.Name, state).Help("try again")
	}
	return en, host, nil
}

// device is one in the words of drivers.
func device(d environment.Device) stratum.Device {
	return stratum.Device{Place: d.Place, Disk: d.Disk, Card: d.Card, Images: d.Images}
}

// attach attaches what made makes for a place.
func (e *Engine) attach(ctx context.Context, ref string, made func(rec environment.Record, place int) environment.Device) (d environment.Device, err error) {
	en, host, err := e.attachable(ctx, ref)
	if err != nil {
		return d, err
	}
	defer en.unlock()
	rec := en.snapshot()
	place := 0
	for slices.ContainsFunc(rec.Devices, func(d environment.Device) bool { return d.Place == place }) {
		place++
	}
	d = made(rec, place)
	plan, err := e.plan(ctx, rec, false)
	if err != nil {
		return d, err
	}
	if err := e.unused(d); err != nil {
		return d, err
	}
	fitted, err := host.Fit(ctx, plan, device(d))
	if err != nil {
		return d, fault.Wrap(err, "attach a device to %s", rec.Name)
	}
	d.Disk, d.Card, d.Images = fitted.Disk, fitted.Card, fitted.Images
	var back undo.Stack
	defer back.Unless(ctx, &err)
	if err := e.giveAddress(ctx, rec, &d, &back); err != nil {
		return d, err
	}
	keep := func() error {
		en.do(func() { en.rec.Devices = append(slices.Clone(rec.Devices), d) })
		return e.save(en)
	}
	back.Push("forget it", func(context.Context) error {
		en.do(func() { en.rec.Devices = rec.Devices })
		return e.save(en)
	})
	en.mu.Lock()
	d.Pending = en.run != nil
	en.mu.Unlock()
	if d.Pending { // a daemon that ends now leaves word of it
		if err := keep(); err != nil {
			return d, err
		}
	}
	if err := e.plug(ctx, en, plan, d, &back); err != nil {
		return d, fault.Wrap(err, "attach %s to %s", d.Name(), rec.Name)
	}
	d.Pending = false
	if err := keep(); err != nil {
		return d, err
	}
	e.tell(ctx, en, "attach", "device", d.Name())
	return d, nil
}

// fixImages notes what the images of attached disks lie over, where an earlier strata did
// not: a QEMU that was taken over could write that, and does not choose what is opened next.
func (e *Engine) fixImages(ctx context.Context, en *entry, d stratum.Driver, p *stratum.Plan) error {
	host, ok := d.(stratum.Hoster)
	if !ok {
		return nil
	}
	devices := en.snapshot().Devices
	for i := range p.Devices {
		if p.Devices[i].Disk == nil || len(p.Devices[i].Images) > 0 {
			continue
		}
		without := *p
		without.Devices = slices.Delete(slices.Clone(p.Devices), i, i+1)
		fitted, err := host.Fit(ctx, without, p.Devices[i])
		if err != nil {
			return fault.Wrap(err, "attach %s", p.Devices[i].Name())
		}
		p.Devices[i] = fitted
		devices = slices.Clone(devices)
		devices[i].Images = fitted.Images
		en.do(func() { en.rec.Devices = devices })
		if err := e.save(en); err != nil {
			return err
		}
	}
	return nil
}

// giveAddress gives a card its addresses.
func (e *Engine) giveAddress(ctx context.Context, rec environment.Record, d *environment.Device, back *undo.Stack) error {
	if d.Card == nil {
		return nil
	}
	c := *d.Card
	a, err := e.o.Network.Allocate(ctx, first(c.Address.Network, "default"), d.Key, rec.Name)
	if err != nil {
		return err
	}
	c.Address = a
	d.Card = &c
	back.Push("give the address back", func(ctx context.Context) error { return e.o.Network.Release(ctx, d.Key) })
	return nil
}

// plug attaches d to the run, where there is one.
func (e *Engine) plug(ctx context.Context, en *entry, plan stratum.Plan, d environment.Device, back *undo.Stack) error {
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	if r == nil {
		return nil
	}
	live, ok := r.live.(stratum.Plugger)
	if !ok {
		return fault.Unablef("nothing can be plugged in while it runs").Help("stop it first")
	}
	var tap *stratum.Tap
	if d.Card != nil {
		var err error
		if tap, err = e.cardLink(en.snapshot(), d).Tap(ctx, nil); err != nil {
			return err
		}
		defer tap.File.Close() // QEMU has its own
		back.Push("disconnect the card", func(ctx context.Context) error { return e.o.Network.Disconnect(ctx, d.Key) })
	}
	if err := live.Plug(ctx, plan, device(d), tap); err != nil {
		return err
	}
	back.Push("unplug it again", func(ctx context.Context) error { return live.Unplug(ctx, device(d)) })
	return nil
}

// Detach takes an attached disk or card away, now and for later starts. Kinds: Missing,
// Conflict where the system inside does not let go of it.
func (e *Engine) Detach(ctx context.Context, ref, name string) error {
	en, _, err := e.attachable(ctx, ref)
	if err != nil {
		return err
	}
	defer en.unlock()
	rec := en.snapshot()
	at := slices.IndexFunc(rec.Devices, func(d environment.Device) bool { return d.Name() == name })
	if at < 0 {
		return fault.Missingf("%s has no %s that was attached", rec.Name, name).At("name").Help("see strata disk ls %s and strata card ls %s", rec.Name, rec.Name)
	}
	d := rec.Devices[at]
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	if r != nil {
		live, ok := r.live.(stratum.Plugger)
		if !ok {
			return fault.Unablef("nothing can be unplugged while it runs").Help("stop it first")
		}
		if err := live.Unplug(ctx, device(d)); err != nil {
			return fault.Wrap(err, "detach %s from %s", name, rec.Name)
		}
	}
	en.do(func() { en.rec.Devices = slices.Delete(slices.Clone(rec.Devices), at, at+1) })
	if err := e.save(en); err != nil {
		return err
	}
	if d.Card != nil {
		if err := e.o.Network.Release(context.WithoutCancel(ctx), d.Key); err != nil {
			e.log.Warn("address not released", "id", rec.ID, "error", err)
		}
	}
	e.tell(ctx, en, "detach", "device", name)
	return nil
}

// cardLink is the cable of an attached card, by which its system is told its address.
func (e *Engine) cardLink(rec environment.Record, d environment.Device) link {
	return link{network: e.o.Network, id: d.Key, address: d.Card.Address, rate: rateOf(rec.Spec.Resources), leased: true}
}

func (e *Engine) cardLinks(rec environment.Record) map[string]stratum.Link {
	all := map[string]stratum.Link{}
	for _, d := range rec.Devices {
		if d.Card != nil {
			all[d.Name()] = e.cardLink(rec, d)
		}
	}
	return all
}

// unused refuses the image of a disk that is another environment's, or that another's disk
// lies over. Kinds: Conflict.
func (e *Engine) unused(d environment.Device) error {
	if d.Disk == nil {
		return nil
	}
	info, err := os.Stat(d.Disk.File)
	if err != nil {
		return nil // who opens it says so
	}
	for _, en := range e.entries() {
		rec := en.snapshot()
		if f := rec.Spec.Foreign; f != nil && !f.Import && same(info, f.DiskImage) {
			return fault.Conflictf("the disk of %s lies over the image %s, which must stay as it is", rec.Name, d.Disk.File).At("file").Help("use a copy of it")
		}
		for _, other := range rec.Devices {
			if other.Disk != nil && same(info, other.Disk.File) {
				return fault.Conflictf("the image %s is attached to %s as %s", d.Disk.File, rec.Name, other.Name()).At("file").Help("detach it there, or use a copy of it")
			}
		}
	}
	return nil
}

// same tells whether the file at path is that one.
func same(info os.FileInfo, path string) bool {
	if path == "" {
		return false
	}
	other, err := os.Stat(path)
	return err == nil && os.SameFile(info, other)
}

// notAttached refuses an image that a disk is to lie over and that another environment
// writes to. Kinds: Conflict.
func (e *Engine) notAttached(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // who opens it says so
	}
	for _, en := range e.entries() {
		rec := en.snapshot()
		for _, d := range rec.Devices {
			if d.Disk != nil && same(info, d.Disk.File) {
				return fault.Conflictf("the image %s is attached to %s, which writes to it", path, rec.Name).At("foreign.disk_image").Help("detach it there, or use a copy of it")
			}
		}
	}
	return nil
}

// settleDevices finds out what became of devices that an earlier daemon was plugging in:
// one that the run does not have, or that nobody can tell of, is forgotten.
func (e *Engine) settleDevices(ctx context.Context, en *entry) {
	rec := en.snapshot()
	if !slices.ContainsFunc(rec.Devices, func(d environment.Device) bool { return d.Pending }) {
		return
	}
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	var kept []environment.Device
	for _, d := range rec.Devices {
		if d.Pending && !e.isPlugged(ctx, r, d) {
			if d.Card != nil {
				if err := e.o.Network.Release(ctx, d.Key); err != nil {
					e.log.Warn("address not released", "id", rec.ID, "error", err)
				}
			}
			continue
		}
		d.Pending = false
		kept = append(kept, d)
	}
	en.do(func() { en.rec.Devices = kept })
	e.saved(en)
}

// lookPatience bounds the wait for a run to say what it has.
const lookPatience = 10 * time.Second

// isPlugged tells whether a run has d; what has no run, has not. A device that was half
// plugged in is taken away.
func (e *Engine) isPlugged(ctx context.Context, r *run, d environment.Device) bool {
	if r == nil {
		return false
	}
	live, ok := r.live.(stratum.Plugger)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	has, err := live.Has(ctx, device(d))
	if err == nil && !has {
		err = live.Unplug(ctx, device(d)) // its image or its cable may be there
	}
	if err != nil {
		e.log.Warn("what was being plugged in cannot be looked for", "device", d.Name(), "error", err)
	}
	return has
}
