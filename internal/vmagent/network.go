package vmagent

import (
	"encoding/binary"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// card is the one network interface, and what the kernel tells of it.
const (
	card      = "eth0"
	cardPlace = "/sys/class/net/" + card

	settingsPlace = "/proc/sys/net/ipv6/conf/" // of each interface, where the kernel has that protocol
)

// cardPatience bounds the wait for a card whose driver looks for it in its own time, and
// for the card's agreement with the other end, which takes hardware half a second.
const cardPatience = 10 * time.Second

// macSize is the size of a hardware address. Unit: bytes.
const macSize = 6

// cardLook is how often is looked in the meantime: a look costs something where the
// processor is emulated.
const cardLook = 10 * time.Millisecond

// link is a socket to the kernel's network (rtnetlink(7)).
type link struct {
	sock int
	seq  uint32
	buf  []byte
}

func dial() (l link, err error) {
	l.buf = make([]byte, 16<<10)
	l.sock, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	return l, err
}

// present tells whether the card is there, with what can be set of it: the kernel makes that last.
func present() bool {
	there := func(path string) bool { return unix.Access(path, unix.F_OK) == nil }
	return there(cardPlace) && (there(settingsPlace+card) || !there(settingsPlace))
}

// raise brings the card up, which has no address yet. One of hardware then agrees with the
// other end before somebody says what to run.
func raise() error {
	if err := set(cardSettings); err != nil {
		return err
	}
	return bringUp(card)
}

func bringUp(name string) error {
	l, err := dial()
	if err != nil {
		return err
	}
	defer unix.Close(l.sock)
	return root.Wrap(l.set(name, nil, 0), "bring up "+name)
}

// connect gives the card what n says.
func (a *agent) connect(n *spec.Network) error {
	if n == nil {
		return unplug()
	}
	if !a.seen {
		until(present) // what is missing is said below
	}
	if err := a.raise(); err != nil {
		return err
	}
	l, err := dial()
	if err != nil {
		return err
	}
	defer unix.Close(l.sock)
	if n.MAC != nil && len(n.MAC) != macSize {
		return root.Fail(root.Invalid, "mac", "a hardware address has six bytes")
	}
	if err := l.set(card, n.MAC, n.MTU); err != nil {
		return root.Wrap(err, "set up "+card)
	}
	index, err := l.index(card)
	if err != nil {
		return err
	}
	for _, a := range n.Address {
		if err := l.address(unix.RTM_NEWADDR, index, a); err != nil {
			return root.Wrap(err, "give "+card+" an address")
		}
	}
	for _, g := range n.Gateways {
		if err := l.gateway(unix.RTM_NEWROUTE, index, g); err != nil {
			return root.Wrap(err, "route through a gateway")
		}
	}
	return nil
}

// agreed waits for the card's agreement with the other end. A cable that is out is no fault.
func agreed() {
	until(func() bool { return readLine(cardPlace+"/carrier") == "1" })
}

// disconnect takes back what connect gave the card, which had the address mac.
func disconnect(n *spec.Network, mac []byte) error {
	l, err := dial()
	if err != nil {
		return err
	}
	defer unix.Close(l.sock)
	index, err := l.index(card)
	if err != nil {
		return err
	}
	for _, g := range n.Gateways {
		if err := l.gateway(unix.RTM_DELROUTE, index, g); err != nil {
			return root.Wrap(err, "route no more through a gateway")
		}
	}
	for _, a := range n.Address {
		if err := l.address(unix.RTM_DELADDR, index, a); err != nil {
			return root.Wrap(err, "take an address back")
		}
	}
	return l.set(card, mac, n.MTU)
}

// unplug takes the card away, for an environment that is to have no network. A machine
// may have none, and what has no driver has no interface.
func unplug() error {
	device, err := os.Readlink(cardPlace + "/device")
	if err != nil {
		return nil
	}
	name := device[strings.LastIndexByte(device, '/')+1:]
	return root.Wrap(writeFile(cardPlace+"/device/driver/unbind", name), "take the card away")
}

// until waits for something of the card's, and tells whether it came.
func until(ready func() bool) bool {
	for end := time.Now().Add(cardPatience); !ready(); time.Sleep(cardLook) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// set changes an interface, and brings it up; what is zero stays.
func (l *link) set(name string, mac []byte, mtu int) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	body = attribute(body, unix.IFLA_IFNAME, append([]byte(name), 0))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	if mac != nil {
		body = attribute(body, unix.IFLA_ADDRESS, mac)
	}
	if mtu > 0 {
		body = attribute(body, unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu)))
	}
	return l.ask(unix.RTM_NEWLINK, 0, body)
}

// address adds an address (RTM_NEWADDR) or removes it (RTM_DELADDR).
func (l *link) address(kind uint16, index uint32, a spec.Address) error {
	family, flags := familyOf(a.IP), 0
	if family == 0 || a.Bits < 0 || a.Bits > 8*len(a.IP) {
		return root.Fail(root.Invalid, "address", "an address has four or 16 bytes, and a prefix of at most as many bits")
	}
	if family == unix.AF_INET6 {
		flags = unix.IFA_F_NODAD // usable at once
	}
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0], body[1], body[2] = family, byte(a.Bits), byte(flags)
	binary.NativeEndian.PutUint32(body[4:], index)
	body = attribute(body, unix.IFA_LOCAL, a.IP)
	body = attribute(body, unix.IFA_ADDRESS, a.IP)
	if family == unix.AF_INET && a.Bits < 31 {
		last := append([]byte(nil), a.IP...)
		for bit := a.Bits; bit < 32; bit++ {
			last[bit/8] |= 0x80 >> (bit % 8)
		}
		body = attribute(body, unix.IFA_BROADCAST, last)
	}
	return l.ask(kind, adding(kind), body)
}

// gateway adds a default route (RTM_NEWROUTE) or removes it (RTM_DELROUTE).
func (l *link) gateway(kind uint16, index uint32, ip []byte) error {
	body := make([]byte, unix.SizeofRtMsg)
	if body[0] = familyOf(ip); body[0] == 0 {
		return root.Fail(root.Invalid, "gateways", "an address has four or 16 bytes")
	}
	body[4], body[5], body[6], body[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	body = attribute(body, unix.RTA_GATEWAY, ip)
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, index))
	return l.ask(kind, adding(kind), body)
}

// familyOf is that of an address, 0 where it is none.
func familyOf(ip []byte) byte {
	switch len(ip) {
	case 4:
		return unix.AF_INET
	case 16:
		return unix.AF_INET6
	}
	return 0
}

// adding are the flags of a request that adds something; one that removes it has none.
func adding(kind uint16) int {
	if kind == unix.RTM_NEWADDR || kind == unix.RTM_NEWROUTE {
		return unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	return 0
}

// ask sends one request and waits for the kernel's word on it.
func (l *link) ask(kind uint16, flags int, body []byte) error {
	l.seq++
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], uint16(flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK))
	binary.NativeEndian.PutUint32(b[8:], l.seq)
	if err := unix.Sendto(l.sock, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(l.sock, l.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(l.buf[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(l.buf[8:]) != l.seq {
			continue
		}
		if code := int32(binary.NativeEndian.Uint32(l.buf[unix.NLMSG_HDRLEN:])); code != 0 {
			return syscall.Errno(-code)
		}
		return nil
	}
}

// attribute appends one attribute; all begin at a multiple of four bytes.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(value)%4)%4)...)
}

// index asks the kernel for the number of an interface: any socket will do.
func (l *link) index(name string) (uint32, error) {
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(l.sock, unix.SIOCGIFINDEX, r)
	}
	if err != nil {
		return 0, root.Wrap(err, "look for "+name)
	}
	return r.Uint32(), nil
}
