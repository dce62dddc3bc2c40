package virtual

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/checkpoint"
	"github.com/strata-project/strata/internal/fault"
)

// Image is a spare that was written down.
type Image struct {
	*checkpoint.Image
	tap tapState
}

// Again returns another hold of the same image.
func (i *Image) Again() (*Image, error) {
	other, err := i.Image.Again()
	if err != nil {
		return nil, err
	}
	return &Image{other, i.tap}, nil
}

// copied gives QEMU what it needs where it is a copy: a tap that is as it knows it, and the image, last.
func (l *Launch) copied(tap *os.File, h *Handed) error {
	if l.Copy == nil {
		return nil
	}
	if err := l.Copy.tap.set(tap); err != nil {
		return err
	}
	f, err := Again(l.Copy.File)
	if err != nil {
		return err
	}
	h.Add(f)
	return nil
}

// tapState is what QEMU has set on its tap. A copy does not set it again, as it has done so before.
type tapState struct {
	header, buffer int
	offload        uintptr
}

// everything is what a tap may hand on unfinished to a card whose driver has agreed to it, as
// Linux's does: checksums and packets that are still to be parted.
const everything = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_UFO

// stateOf reads what is set on tap, which must be in the caller's network namespace.
func stateOf(tap *os.File) (s tapState, err error) {
	fd := int(tap.Fd())
	if s.header, err = unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ); err == nil {
		s.buffer, err = unix.IoctlGetInt(fd, unix.TUNGETSNDBUF)
	}
	if err != nil {
		return s, fault.Internalf("look at a tap device: %w", err)
	}
	// What it may hand on can only be read as features of the device.
	r, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, r)
	}
	if err != nil {
		return s, fault.Internalf("look at a tap device: %w", err)
	}
	for _, ask := range []uint32{unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_GTSO} {
		on, err := feature(r.Name(), ask)
		if err != nil {
			return s, fault.Internalf("look at what the tap device %s does: %w", r.Name(), err)
		}
		if !on {
			return s, nil
		}
	}
	s.offload = everything
	return s, nil
}

// feature asks for one of a network device.
func feature(device string, ask uint32) (bool, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(sock)
	value := [2]uint32{ask} // struct ethtool_value
	r := struct {           // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(r.name[:len(r.name)-1], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(sock), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	if errno != 0 {
		return false, errno
	}
	return value[1] != 0, nil
}

// set has tap be as s says.
func (s tapState) set(tap *os.File) error {
	fd := int(tap.Fd())
	err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, s.header)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TUNSETSNDBUF, s.buffer)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, int(s.offload))
	}
	if err != nil {
		return fault.Internalf("set a tap device up: %w", err)
	}
	return nil
}
