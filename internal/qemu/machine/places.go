package machine

import "fmt"

// The slots of the first PCI bus. 0 and, on q35, 0x1f are the chipset's, 1 is it on pc.
const (
	q35ScreenSlot = 0x01
	usbSlot       = 0x02 // on q35
	pcScreenSlot  = 0x02
	balloonSlot   = 0x03
	channelSlot   = 0x04
	scsiSlot      = 0x05
	ahciSlot      = 0x06 // on pc
	volumeSlot    = 0x07
	cardSlots     = 0x08 // to 0x0f
	portSlots     = 0x10 // to 0x13, on q35: root ports, eight in each
	pcDriveSlots  = 0x10 // to 0x17, on pc
	pcSpareSlots  = 0x18 // to 0x1f, on pc
)

// The root ports of q35, by number. A slot's function 0 has to be there for its
// others to be found, so each kind begins a slot.
const (
	drivePorts = 0
	cardPorts  = 16
	sparePorts = 24
)

// The most there are room for.
const (
	maxCards = 8
	maxSpare = 8
)

// plugged is how many drives are PCI devices of their own.
func (s Spec) plugged() int { return len(s.on(VirtioBlk)) + len(s.on(NVMe)) }

// pluggedCard tells whether a card is on a root port.
func (s Spec) pluggedCard(c Card) bool {
	m := s.model(c)
	return s.Platform == Q35 && (m == E1000E || m == VirtioNet)
}

// root names the first bus, as a property.
func (s Spec) root() string {
	if s.Platform == PC {
		return "bus=pci.0"
	}
	return "bus=pcie.0"
}

func (s Spec) screenSlot() int {
	if s.Platform == PC {
		return pcScreenSlot
	}
	return q35ScreenSlot
}

func slot(n int) string { return fmt.Sprintf("addr=0x%02x", n) }

// function is a function of a slot, which the first one announces.
func function(n, f int) string {
	at := fmt.Sprintf("addr=0x%02x.0x%x", n, f)
	if f == 0 {
		at += ",multifunction=on"
	}
	return at
}

// Place is where a device can be plugged in: its properties "bus" and "addr" for
// QMP's device_add.
type Place struct {
	Bus  string `json:"bus"`
	Addr string `json:"addr"`
}

// Free returns the places where nothing is when the machine starts. On q35 they are
// PCI Express, and take no e1000 or rtl8139; on pc PCI, and take no e1000e or NVMe.
func (s Spec) Free() []Place {
	var free []Place
	for i := range s.Spare {
		if s.Platform == PC {
			free = append(free, Place{"pci.0", fmt.Sprintf("0x%02x", pcSpareSlots+i)})
		} else {
			free = append(free, Place{port(sparePorts + i), "0x00"})
		}
	}
	return free
}

func port(n int) string { return fmt.Sprintf("port%d", n) }

// ports are the numbers of the root ports there are.
func (s Spec) ports() (all []int) {
	if s.Platform != Q35 {
		return nil
	}
	for i := range s.plugged() {
		all = append(all, drivePorts+i)
	}
	cards := 0 // up to the last one that is on a port: a card's number says which
	for i, c := range s.Cards {
		if s.pluggedCard(c) {
			cards = i + 1
		}
	}
	for i := range cards {
		all = append(all, cardPorts+i)
	}
	for i := range s.Spare {
		all = append(all, sparePorts+i)
	}
	return all
}
