package virtual

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/thread"
)

// Handed are the payload's descriptors. They live until the keeper has its own.
type Handed struct {
	Files  []*os.File // the agent, then QEMU's, in the order of their numbers
	closer []*os.File // further ones
}

// Add gives f to QEMU, and returns its number there.
func (h *Handed) Add(f *os.File) int {
	h.Files = append(h.Files, f)
	return wire.PayloadSyncFD + len(h.Files)
}

// Keep has further files closed with the others.
func (h *Handed) Keep(files ...*os.File) { h.closer = append(h.closer, files...) }

// Connected gives QEMU one end of a pair of sockets, and returns the other, which is
// closed with the others.
func (h *Handed) Connected(number *int) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Internalf("make the machine's sockets: %w", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "host")
	h.Keep(ours)
	*number = h.Add(os.NewFile(uintptr(pair[1]), "qemu"))
	return ours, nil
}

// Close closes them all.
func (h *Handed) Close() {
	for _, f := range append(h.Files, h.closer...) {
		f.Close()
	}
	h.Files, h.closer = nil, nil
}

// AddAgent gives the program that becomes QEMU: it is the first, and by descriptor, as
// its folder may be closed to QEMU's user.
func (d *Driver) AddAgent(h *Handed) error {
	agent, err := os.Open(d.Agent)
	if err != nil {
		return fault.Internalf("open the agent: %w", err)
	}
	h.Add(agent)
	return nil
}

// Listen makes the sockets that QEMU listens on, in the run folder.
func (d *Driver) Listen(id string, w *Wires, h *Handed) error {
	for _, s := range []struct {
		name   string
		number *int
	}{{ControlSocket, &w.Control}, {MonitorSocket, &w.Monitor}} { // in order: a copy has what is written down under the same numbers
		f, err := listen(d.Held.Path(id, s.name))
		if err != nil {
			return err
		}
		*s.number = h.Add(f)
	}
	return nil
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

// OpenDisk opens a private disk for one machine, and locks it, so that nobody else
// ever has it at the same time. The lock is the open file's, and so QEMU's for as long
// as that lives. Kinds: Missing, Conflict where another has it.
func (d *Driver) OpenDisk(ctx context.Context, path string) (*os.File, error) {
	f, err := d.o.Pool.Hold(ctx, path)
	if fault.Is(err, fault.Conflict) {
		e := *fault.All(err)[0]
		return nil, e.At("disk")
	}
	return f, fault.Wrap(err, "open the private disk")
}

// Again returns another descriptor of f's file.
func Again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fault.Internalf("duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Unplugged returns a tap that leads nowhere: a saved system can only go on in a
// machine whose card has the same abilities, and those come from the tap.
func Unplugged() (f *os.File, err error) {
	err = thread.Spare(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		r, err := unix.NewIfreq("card")
		if err == nil {
			r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), "card")
		return nil
	})
	if err != nil {
		return nil, fault.Unablef("make a card that leads nowhere: %w", err).Help("the module tun is needed: modprobe tun")
	}
	return f, nil
}
