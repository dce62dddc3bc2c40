package machine

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// buses are the words for what disks are plugged into.
var buses = map[string]machine.Bus{
	"usb": machine.USBStorage, "virtio": machine.VirtioBlk, "nvme": machine.NVMe,
	"ahci": machine.AHCI, "ide": machine.IDE, "scsi": machine.VirtioSCSI,
}

// plugged is a device as the board has it.
func plugged(d stratum.Device) machine.Plugged {
	p := machine.Plugged{ID: d.Name(), Place: d.Place}
	if d.Card != nil {
		p.Model, p.MAC = machine.CardModel(d.Card.Model), d.Card.Address.MAC
	} else {
		p.Bus, p.Serial = buses[d.Disk.Bus], "strata-"+d.Disk.Name
	}
	return p
}

// Fit implements stratum.Hoster.
func (d *Driver) Fit(ctx context.Context, p stratum.Plan, v stratum.Device) (stratum.Device, error) {
	if c := v.Card; c != nil && c.Model == "" {
		whole := *c
		whole.Model = string(machine.E1000E)
		v.Card = &whole
	}
	if disk := v.Disk; disk != nil {
		whole := *disk
		if whole.Bus == "" && p.Foreign != nil {
			whole.Bus = "usb" // which needs no driver that a system does not have
		} else if whole.Bus == "" {
			whole.Bus = "virtio"
		}
		v.Disk = &whole
	}
	p.Devices = append(slices.Clip(p.Devices), v)
	if p.Foreign == nil {
		if _, err := d.Devices(ctx, p, true); err != nil {
			return v, err
		}
	} else if _, err := d.prepareForeign(ctx, p); err != nil {
		return v, err
	}
	if v.Disk != nil {
		c, err := openAttached(v, d.o.Places.State)
		if err != nil {
			return v, err
		}
		defer c.Close()
		v.Disk.Format, v.Images = string(c.Format), c.Members()
	}
	return v, nil
}

// openAttached opens the image of a disk, to write to it. Further files that it names must
// be beside it and those that they were, and none may be strata's own.
func openAttached(d stratum.Device, state string) (*image.Chain, error) {
	path := d.Disk.File
	c, err := image.Open(path, image.Rules{Format: image.Format(d.Disk.Format), Within: filepath.Dir(path), Without: state, Images: d.Images})
	if err != nil {
		return nil, named(err, "file")
	}
	if err := c.Writable(); err != nil {
		c.Close()
		return nil, named(err, "file")
	}
	return c, nil
}

// sets is how QEMU is told of a chain in the sets of a place; the files are in their order,
// the first one in the first set.
func sets(c *image.Chain, place int) (images []argv.Image, files []*os.File, err error) {
	images, err = c.Images(func(f *os.File) int {
		_ = unix.SetNonblock(int(f.Fd()), false) // as blocking does
		files = append(files, f)
		return machine.SetsOf(place) + len(files) - 1
	})
	return images, files, err
}

// attached is what attached devices add to a start.
type attached struct {
	images map[string][]argv.Image
	sets   []machine.FDSet
	taps   map[string]*stratum.Tap // by card
	cables map[string]int          // their descriptors
}

// connect makes the cables of attached cards.
func (a *attached) connect(ctx context.Context, links map[string]stratum.Link) error {
	a.taps = map[string]*stratum.Tap{}
	for name, link := range links {
		tap, err := link.Tap(ctx, nil)
		if err != nil {
			a.disconnect()
			return fault.Wrap(err, "connect %s", name)
		}
		a.taps[name] = tap
	}
	return nil
}

// disconnect gives up the driver's own hold of them, which every start ends with.
func (a *attached) disconnect() {
	for _, tap := range a.taps {
		tap.File.Close()
	}
}

// add tells QEMU of what open has opened.
func (a *attached) add(f *machine.Files) {
	f.Plugged, f.Sets, f.Taps = a.images, a.sets, map[string]int{}
	for name, tap := range a.cables {
		f.Taps[name] = tap
	}
}

// open opens what devices need; state is strata's own folder. An attempt calls it once.
func (a *attached) open(devices []stratum.Device, state string, h *virtual.Handed) error {
	a.images, a.sets, a.cables = map[string][]argv.Image{}, nil, map[string]int{}
	for _, d := range devices {
		if d.Card != nil {
			tap := a.taps[d.Name()]
			if tap == nil {
				continue
			}
			f, err := virtual.Again(tap.File)
			if err != nil {
				return err
			}
			a.cables[d.Name()] = h.Add(f)
			continue
		}
		c, err := openAttached(d, state)
		if err != nil {
			return fault.Wrap(err, "attach %s", d.Name())
		}
		images, files, err := sets(c, d.Place)
		if err != nil {
			c.Close()
			return fault.Wrap(err, "attach %s", d.Name())
		}
		a.images[d.Name()] = images
		for i, f := range files {
			a.sets = append(a.sets, machine.FDSet{FD: h.Add(f), Set: machine.SetsOf(d.Place) + i})
		}
	}
	return nil
}
