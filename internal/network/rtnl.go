package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// rtnl is one routing netlink socket that takes several requests in one system
// call. It belongs to the network namespace of the thread that used it first.
// The zero value is ready. Safe for concurrent use.
type rtnl struct {
	mu   sync.Mutex
	fd   int
	open bool
	seq  uint32
	buf  []byte
}

// answerTimeout bounds the wait for the kernel, which answers at once or is broken.
var answerTimeout = unix.Timeval{Sec: 10}

func (r *rtnl) dial() error {
	if r.open {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open routing socket: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &answerTimeout); err != nil {
		unix.Close(fd)
		return fmt.Errorf("open routing socket: %w", err)
	}
	r.fd, r.open = fd, true
	return nil
}

func (r *rtnl) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}

func (r *rtnl) drop() {
	if r.open {
		unix.Close(r.fd)
		r.open = false
	}
}

// request is one message to the kernel, without its header.
type request struct {
	what  string // verb and object, for errors
	kind  uint16
	flags uint16 // beyond NLM_F_REQUEST and NLM_F_ACK
	body  []byte
}

func (q *request) attr(kind uint16, data []byte) *request {
	q.body = appendAttr(q.body, kind, data)
	return q
}

func (q *request) attr32(kind uint16, v uint32) *request {
	return q.attr(kind, binary.NativeEndian.AppendUint32(nil, v))
}

// nest writes an attribute made of those that f writes.
func (q *request) nest(kind uint16, f func(*request)) *request {
	at := len(q.body)
	q.body = append(q.body, 0, 0, 0, 0)
	f(q)
	binary.NativeEndian.PutUint16(q.body[at:], uint16(len(q.body)-at))
	binary.NativeEndian.PutUint16(q.body[at+2:], kind|unix.NLA_F_NESTED)
	return q
}

func appendAttr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// do sends every request at once and waits until each is answered. The kernel
// goes on after one that fails; the first failure is returned. answer, where it
// is not nil, sees what came back beside the acknowledgements.
func (r *rtnl) do(answer func(kind uint16, body []byte), requests ...*request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dial(); err != nil {
		return err
	}
	first := r.seq + 1
	var out []byte
	for _, q := range requests {
		r.seq++
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.SizeofNlMsghdr+len(q.body)))
		out = binary.NativeEndian.AppendUint16(out, q.kind)
		out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|unix.NLM_F_ACK|q.flags)
		out = binary.NativeEndian.AppendUint32(out, r.seq)
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(out, q.body...)
		out = append(out, make([]byte, -len(q.body)&3)...)
	}
	if err := unix.Sendto(r.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		r.drop()
		return fmt.Errorf("%s: %w", requests[0].what, err)
	}
	failed, err := r.answers(first, requests, answer)
	if err != nil {
		r.drop() // answers may still come
		return fmt.Errorf("%s: %w", requests[0].what, err)
	}
	return failed
}

// answers reads until every request is acknowledged.
func (r *rtnl) answers(first uint32, requests []*request, answer func(uint16, []byte)) (failed, err error) {
	if r.buf == nil {
		r.buf = make([]byte, 64<<10) // the kernel's largest answer: linux/netlink.h, NLMSG_GOODSIZE and dumps of 32 KiB
	}
	for open := len(requests); open > 0; {
		n, _, err := unix.Recvfrom(r.fd, r.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for b := r.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return nil, errors.New("the kernel's answer is cut short")
			}
			kind, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]
			b = b[min((size+3)&^3, len(b)):]
			i := seq - first
			if i >= uint32(len(requests)) {
				continue // of an earlier request that was given up
			}
			if kind != unix.NLMSG_ERROR {
				if answer != nil {
					answer(kind, body)
				}
				continue
			}
			open--
			if code := -int32(binary.NativeEndian.Uint32(body)); code != 0 && failed == nil {
				failed = fmt.Errorf("%s: %w", requests[i].what, unix.Errno(code))
			}
		}
	}
	return failed, nil
}

// attributes calls f for each attribute in b.
func attributes(b []byte, f func(kind uint16, data []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}
