package dhcp

import (
	"net"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// maxFrame is the longest frame that is read: a message as long as the usual MTU.
const maxFrame = 2048

// perSecond is how many questions are answered in a second.
const perSecond = 20

// questions lets only frames through that may be questions: IPv4, UDP, not a fragment,
// port 67. The rest costs nothing but this.
var questions = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherIPv4, SkipTrue: 7},
	bpf.LoadAbsolute{Off: etherLen + 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: udp, SkipTrue: 5},
	bpf.LoadAbsolute{Off: etherLen + 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragment, SkipTrue: 3},
	bpf.LoadMemShift{Off: etherLen},
	bpf.LoadIndirect{Off: etherLen + 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: serverPort, SkipTrue: 1},
	bpf.RetConstant{Val: 0},
	bpf.RetConstant{Val: maxFrame},
}

// Serve answers what comes out of the device named link, in the calling thread's network
// namespace, until the device is gone or what it returns is called. Kinds: Unable.
func Serve(link string, l Lease) (stop func(), err error) {
	at, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fault.Unablef("answer DHCP: %w", err)
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Unablef("answer DHCP: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "dhcp "+link)
	raw, err := bpf.Assemble(questions)
	if err == nil {
		filter := make([]unix.SockFilter, len(raw))
		for i, r := range raw {
			filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil { // only now does it get anything
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: at.Index})
	}
	if err != nil {
		socket.Close()
		return nil, fault.Unablef("answer DHCP: %w", err)
	}
	go l.answer(socket)
	return func() { socket.Close() }, nil
}

// answer works until the socket or its device is gone.
func (l Lease) answer(socket *os.File) {
	defer socket.Close()
	b := make([]byte, maxFrame)
	left, since := perSecond, time.Now()
	for {
		n, err := socket.Read(b)
		if err != nil {
			return
		}
		if now := time.Now(); now.Sub(since) > time.Second {
			left, since = perSecond, now
		}
		if left == 0 {
			continue
		}
		if reply := l.Answer(b[:n]); reply != nil {
			left--
			_, _ = socket.Write(reply) // it asks again
		}
	}
}
