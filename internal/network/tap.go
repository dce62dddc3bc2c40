package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/undo"
)

// Tap is the host's end of a virtual network card, and what the system behind
// the card is to give it.
type Tap struct {
	// File is of the device, which is gone with the last descriptor of it. Each
	// frame has a struct virtio_net_hdr before it (IFF_VNET_HDR); no offload is on.
	File     *os.File
	Link     string // the device's name
	MAC      string // the card's; the device's own is another
	MTU      int
	Address  []netip.Prefix
	Gateways []netip.Addr // of default routes; none where there is no way out
}

// ConnectTap joins id to its network as Connect does, by a tap device instead of
// a process's namespace: ports are published, the name is known, and the device
// was watched before it existed. Disconnect takes it back; if ConnectTap fails, it has
// done so itself. made is a tap device that was made before it was known for whom, with
// the abilities of Tap.File, and is not up; nil: one is made. Kinds: Missing (id has no
// address), Conflict (port taken, id is connected), Unable (the host has no tap
// devices, or cannot otherwise).
func (h *Host) ConnectTap(ctx context.Context, id string, a Address, ports []Port, made *os.File) (_ *Tap, err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	plan, err := h.admit(ctx, &back, id, a, ports)
	if err != nil {
		return nil, err
	}
	var file *os.File
	if made == nil {
		file, err = makeTap(plan.Link)
	} else {
		file, err = h.nameTap(made, plan.Link)
	}
	if err != nil {
		return nil, err
	}
	back.Push("close tap "+plan.Link, func(context.Context) error { return file.Close() })
	if err := h.makeLink(ctx, plan, linkPlan.enslave, a.Network); err != nil {
		return nil, err
	}
	if err := h.notice(plan); err != nil {
		return nil, err
	}
	if err := h.zone.flush(); err != nil {
		return nil, fault.Wrap(err, "publish name")
	}
	return plan.tap(file), nil
}

func (p linkPlan) tap(file *os.File) *Tap {
	t := &Tap{File: file, Link: p.Link, MAC: p.MAC.String(), MTU: int(p.MTU), Address: []netip.Prefix{p.IPv4}}
	if p.IPv6.IsValid() {
		t.Address = append(t.Address, p.IPv6)
	}
	for _, gateway := range []netip.Addr{p.Gateway4, p.Gateway6} {
		if gateway.IsValid() {
			t.Gateways = append(t.Gateways, gateway)
		}
	}
	return t
}

// enslave are the requests that make a link that is there a port of the bridge.
func (p linkPlan) enslave() []*request {
	q := &request{what: "set up link " + p.Link, kind: unix.RTM_NEWLINK, body: ifinfo(0, true)}
	q.attr(unix.IFLA_IFNAME, text(p.Link)).attr32(unix.IFLA_MTU, p.MTU).attr32(unix.IFLA_MASTER, uint32(p.Master))
	if p.Hairpin {
		return []*request{q, p.port()}
	}
	return []*request{q}
}

// tunDevice is where tap devices are made. Source: kernel documentation, networking/tuntap.
const tunDevice = "/dev/net/tun"

// makeTap makes a tap device that lives as long as its descriptors. It is not
// up, and a port of nothing.
func makeTap(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fault.Unablef("this host has no tap devices: open %s: %w", tunDevice, err).At("network").
			Help("run `modprobe tun`; in a container, give it the device %s", tunDevice)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, fault.Unablef("tap devices are not to be had here: open %s: %w", tunDevice, err).At("network").
			Help("allow the daemon the device %s (10:200)", tunDevice)
	case err != nil:
		return nil, fault.Wrap(err, "open %s", tunDevice)
	}
	q, err := unix.NewIfreq(name)
	if err == nil {
		q.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, q)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) {
			return nil, fault.Conflictf("make tap %s: there is such a link already: %w", name, err)
		}
		return nil, unable(err, "make tap %s", name)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// nameTap gives a tap device the name that the filter knows it by, and returns
// another descriptor of it.
func (h *Host) nameTap(made *os.File, name string) (*os.File, error) {
	q, err := unix.NewIfreq("")
	if err != nil {
		return nil, fault.Wrap(err, "look at a tap")
	}
	raw, err := made.SyscallConn()
	if err != nil {
		return nil, fault.Wrap(err, "look at a tap")
	}
	fd := -1
	if outer := raw.Control(func(p uintptr) {
		if err = unix.IoctlIfreq(int(p), unix.TUNGETIFF, q); err == nil {
			fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 3)
		}
	}); outer != nil {
		err = outer
	}
	if err != nil {
		return nil, fault.Wrap(err, "look at a tap")
	}
	file := os.NewFile(uintptr(fd), name)
	index, err := h.rtnl.linkIndex(q.Name())
	if err == nil && index == 0 {
		err = fault.Unablef("tap %s is gone", q.Name())
	}
	if err == nil {
		rename := &request{what: "name tap " + name, kind: unix.RTM_NEWLINK, body: ifinfo(index, false)}
		err = h.rtnl.do(nil, rename.attr(unix.IFLA_IFNAME, text(name)))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// retake connects an environment that runs and has no port on its bridge. Where the
// bridge alone was removed, its link has outlived that and is made a port again. A tap
// cannot be had back, for it would be another descriptor's. Kinds: Conflict, Unable.
func (h *Host) retake(ctx context.Context, id string, r Running) error {
	link, err := strayLink(id)
	switch {
	case err != nil:
		return err
	case link == "" && r.Tap:
		return fault.Unablef("its network card is gone").Help("restart it: `strata restart %s`", id)
	case link == "":
		_, err := h.Connect(ctx, id, r.PID, r.Address, r.Ports)
		return err
	}
	plan, elements, err := h.claim(id, r.Address, r.Ports, link)
	if err != nil {
		return err
	}
	if err := h.put(elements); err != nil {
		return err
	}
	h.forgetSenders(r.Ports)
	if err := h.makeLink(ctx, plan, linkPlan.enslave, r.Address.Network); err != nil {
		return err
	}
	return h.notice(plan)
}

// strayLink finds a link of id's that is a port of nothing; "" where there is none.
func strayLink(id string) (string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return "", fault.Wrap(err, "list links")
	}
	for _, l := range links {
		if a := l.Attrs(); a.MasterIndex == 0 && strings.HasPrefix(a.Name, linkPrefix+id) {
			return a.Name, nil
		}
	}
	return "", nil
}
