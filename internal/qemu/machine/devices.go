package machine

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/strata-project/strata/internal/qemu/argv"
)

// controllers are what drives and cards are plugged into, but for the board's own.
func (s Spec) controllers(a *argv.Args) {
	for _, n := range s.ports() {
		a.Device("pcie-root-port", "id="+port(n), fmt.Sprintf("port=%d", n), fmt.Sprintf("chassis=%d", n+1), s.root(), function(portSlots+n/8, n%8))
	}
	if s.Platform == PC && len(s.on(AHCI)) > 0 {
		a.Device("ich9-ahci", "id=ahci", s.root(), slot(ahciSlot))
	}
	if len(s.on(VirtioSCSI)) > 0 {
		a.Device("virtio-scsi-pci", "id=scsi", s.root(), slot(scsiSlot))
	}
	floppies := s.on(FDC)
	if len(floppies) == 0 {
		return
	}
	var order []string // the controller has the drives' boot indices
	for i, d := range floppies {
		if n, ok := s.index(d.ID); ok {
			order = append(order, fmt.Sprintf("bootindex%c=%d", 'A'+i, n))
		}
	}
	if s.Platform == Q35 { // pc has one in any case
		a.Device("isa-fdc", append([]string{"id=fdc"}, order...)...)
		return
	}
	for _, o := range order {
		a.Add("-global", "isa-fdc."+o)
	}
}

// drive is a drive, and what it holds.
func (s Spec) drive(a *argv.Args, d Drive, f Files) {
	images := f.Drives[d.ID]
	a.Chain(d.ID, images, d.ReadOnly || d.Medium == CD, f.Ring)
	bus := s.bus(d)
	at := slices.IndexFunc(s.on(bus), func(other Drive) bool { return other.ID == d.ID })
	properties := append([]string{"id=" + d.ID}, s.attached(bus, at)...)
	if len(images) > 0 {
		properties = append(properties, "drive="+d.ID)
	}
	if d.Serial != "" && d.Medium != Floppy {
		properties = append(properties, "serial="+d.Serial)
	} else if bus == NVMe {
		properties = append(properties, "serial="+d.ID) // it has to have one
	}
	if d.Medium == Disk && (bus == AHCI || bus == IDE || bus == VirtioSCSI) {
		// Says that it does not turn: systems then tell what they no longer use, and
		// do not defragment.
		properties = append(properties, "rotation_rate=1")
	}
	if n, ok := s.index(d.ID); ok && bus != FDC {
		properties = append(properties, "bootindex="+strconv.Itoa(n))
	}
	a.Device(device(bus, d.Medium), properties...)
}

// device is QEMU's device of a drive.
func device(bus Bus, m Medium) string {
	kind := map[Medium]string{Disk: "hd", CD: "cd"}[m]
	switch bus {
	case VirtioBlk:
		return "virtio-blk-pci"
	case NVMe:
		return "nvme"
	case VirtioSCSI:
		return "scsi-" + kind
	case FDC:
		return "floppy"
	}
	return "ide-" + kind
}

// attached is where a bus's drive number n is.
func (s Spec) attached(bus Bus, n int) []string {
	switch bus {
	case AHCI:
		if s.Platform == PC {
			return []string{fmt.Sprintf("bus=ahci.%d", n)}
		}
		return []string{fmt.Sprintf("bus=ide.%d", n)}
	case IDE:
		return []string{fmt.Sprintf("bus=ide.%d", n/2), fmt.Sprintf("unit=%d", n%2)}
	case VirtioSCSI:
		return []string{"bus=scsi.0", fmt.Sprintf("scsi-id=%d", n)}
	case FDC:
		return []string{fmt.Sprintf("unit=%d", n)}
	case NVMe:
		n += len(s.on(VirtioBlk))
	}
	if s.Platform == PC {
		return []string{s.root(), slot(pcDriveSlots + n)}
	}
	return []string{"bus=" + port(drivePorts+n)}
}

// cards are QEMU's devices.
var cards = map[CardModel]string{E1000: "e1000", E1000E: "e1000e", RTL8139: "rtl8139", VirtioNet: "virtio-net-pci"}

// card is network card number i.
func (s Spec) card(a *argv.Args, c Card, i, tap int) {
	net := "net-" + c.ID
	if tap == 0 {
		// A port of a hub that nothing else is on: a card without a cable.
		a.Add("-netdev", fmt.Sprintf("hubport,id=%s,hubid=%d", net, i))
	} else {
		a.Add("-netdev", fmt.Sprintf("tap,id=%s,fd=%d,vhost=off", net, tap))
	}
	properties := []string{"id=" + c.ID, "netdev=" + net}
	if c.MAC != "" {
		properties = append(properties, "mac="+c.MAC)
	}
	if s.pluggedCard(c) {
		properties = append(properties, "bus="+port(cardPorts+i))
	} else {
		properties = append(properties, s.root(), slot(cardSlots+i))
	}
	if n, ok := s.index(c.ID); ok {
		properties = append(properties, "bootindex="+strconv.Itoa(n))
	} else {
		properties = append(properties, "romfile=") // iPXE is for who boots by network
	}
	a.Device(cards[s.model(c)], properties...)
}
