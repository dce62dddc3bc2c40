package machine

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/argv"
)

// Plugged is a disk or a network card in a spare place: it was plugged in while a machine
// ran, and is in the same place at its later starts.
type Plugged struct {
	ID     string    `json:"id"`    // such as disk1 or card2
	Place  int       `json:"place"` // less than Spec.Spare
	Bus    Bus       `json:"bus,omitempty"`
	Model  CardModel `json:"model,omitempty"` // of a card; "": it is a disk
	MAC    string    `json:"mac,omitempty"`
	Serial string    `json:"serial,omitempty"`
}

// FDSet is a descriptor of QEMU's, and the set that it is in.
type FDSet struct{ FD, Set int }

// firstSet and setsEach say which sets a place's images have. Descriptors that QEMU is
// started with are sets of their own number, which are less, and image.maxDepth images
// may lie over one another, each with a file that it names.
const (
	firstSet = 1000
	setsEach = 64
)

// SetsOf is the number of the first set of a place; those that follow are its as well,
// as long as Own says so.
func SetsOf(place int) int { return firstSet + place*setsEach }

// OwnSet tells whether a set is a place's.
func OwnSet(place, set int) bool { return set >= SetsOf(place) && set < SetsOf(place+1) }

// firstUSB is the port of place 0: pointer and keyboard have those before it.
const firstUSB = 3

// usbPorts has the USB controller have a port for each place.
func (s Spec) usbPorts() string {
	if s.Spare == 0 {
		return ""
	}
	n := firstUSB - 1 + maxSpare
	return fmt.Sprintf("p2=%d,p3=%d", n, n)
}

// Netdev is the name of the cable of a card.
func (p Plugged) Netdev() string { return "net-" + p.ID }

// Device is the device, as QMP's device_add takes it.
func (p Plugged) Device() map[string]any {
	d := map[string]any{"id": p.ID}
	if p.Model != "" {
		d["driver"], d["netdev"], d["mac"], d["romfile"] = cards[p.Model], p.Netdev(), p.MAC, ""
	} else {
		d["driver"], d["drive"], d["serial"] = plugDevices[p.Bus], p.ID, p.Serial
	}
	if p.Bus == USBStorage {
		d["bus"], d["port"] = "usb.0", strconv.Itoa(firstUSB+p.Place)
		return d
	}
	d["bus"], d["addr"] = port(sparePorts+p.Place), "0x00"
	return d
}

// plugDevices are QEMU's devices of the disks that can be plugged in.
var plugDevices = map[Bus]string{USBStorage: "usb-storage", VirtioBlk: "virtio-blk-pci", NVMe: "nvme"}

// Nodes are the block devices of a disk by the name of its ID, the lowest image first. Each
// image's FD is the number of a set.
func (p Plugged) Nodes(images []argv.Image, ring bool) (nodes []argv.Node) {
	var backing any
	for i, image := range slices.Backward(images) {
		name := p.ID
		if i > 0 {
			name += "-" + strconv.Itoa(i)
		}
		n := image.Node(name, argv.Set(image.FD), i > 0, backing)
		n.File.AIO = argv.AIO(ring && !image.Uneven)
		if i == 0 {
			n.Discard = "unmap"
		}
		nodes, backing = append(nodes, n), name
	}
	return nodes
}

// plugIn adds what is in spare places.
func (s Spec) plugIn(a *argv.Args, f Files) {
	for _, set := range f.Sets {
		a.Add("-add-fd", fmt.Sprintf("fd=%d,set=%d", set.FD, set.Set))
	}
	for _, p := range s.Plugged {
		switch tap := f.Taps[p.ID]; {
		case p.Model == "":
			for _, n := range p.Nodes(f.Plugged[p.ID], f.Ring) {
				a.Node(n)
			}
		case tap == 0:
			a.Add("-netdev", fmt.Sprintf("hubport,id=%s,hubid=%d", p.Netdev(), maxCards+p.Place))
		default:
			a.Add("-netdev", fmt.Sprintf("tap,id=%s,fd=%d,vhost=off", p.Netdev(), tap))
		}
		text, err := json.Marshal(p.Device())
		if err != nil {
			panic(err) // it is text
		}
		a.Add("-device", string(text))
	}
}

var pluggedForm = regexp.MustCompile(`^(disk|card)[0-9]{1,2}$`)

// checkPlugged refuses what cannot be plugged in, each with what would do.
func (s Spec) checkPlugged(f *faults) {
	if len(s.Plugged) > 0 && (s.Platform == PC || s.Spare == 0) {
		why := fmt.Sprintf("a machine for %s has no spare places", s.OS)
		if s.Platform == PC {
			why = "a pc, the board of this machine, finds devices at its start only"
		}
		f.add(fault.Unablef("nothing can be plugged in: %s", why), "place", "a CD can be changed (strata insert); a machine of another kind (--os) has a q35 board, with places")
		return
	}
	places := map[int]bool{}
	for _, p := range s.Plugged {
		known := slices.ContainsFunc(s.Drives, func(d Drive) bool { return d.ID == p.ID }) || slices.ContainsFunc(s.Cards, func(c Card) bool { return c.ID == p.ID })
		switch {
		case !pluggedForm.MatchString(p.ID) || known:
			f.add(fault.Invalidf("%q is no name of its own for what is plugged in", p.ID), "place", "disk or card, and a number")
		case p.Place < 0 || p.Place >= s.Spare || places[p.Place]:
			f.add(fault.Unablef("there is no place left: the board has %d, and in each there is something", s.Spare), "place", "detach something first")
		case p.Model != "":
			s.checkPluggedCard(f, p)
		default:
			s.checkPluggedDisk(f, p)
		}
		places[p.Place] = true
	}
}

func (s Spec) checkPluggedCard(f *faults, p Plugged) {
	switch p.Model {
	case E1000E, VirtioNet:
	case E1000, RTL8139:
		f.add(fault.Unablef("a card %s cannot be plugged in: it is for PCI, and the spare places are PCI Express", p.Model), "model", "e1000e, or virtio")
	default:
		f.add(fault.Invalidf("there is no network card %q", p.Model), "model", "e1000e, or virtio")
	}
}

func (s Spec) checkPluggedDisk(f *faults, p Plugged) {
	const others = "usb, which needs no driver that a system does not have; nvme; or virtio"
	switch p.Bus {
	case USBStorage:
		if !s.Tablet && s.Keyboard != USB {
			f.add(fault.Unablef("this machine has no USB controller"), "bus", "nvme, or virtio")
		}
	case VirtioBlk, NVMe:
	case AHCI, IDE:
		f.add(fault.Unablef("a disk on %s cannot be plugged in while the machine runs: QEMU's controller does not let one", p.Bus), "bus", others)
	case VirtioSCSI:
		f.add(fault.Unablef("this machine has no SCSI controller"), "bus", others)
	default:
		f.add(fault.Invalidf("disks are not plugged in by %q", p.Bus), "bus", others)
	}
}
