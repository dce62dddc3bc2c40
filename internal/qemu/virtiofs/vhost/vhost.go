package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handle answers a request: read is what the driver has written, write the room for an answer,
// of which it returns how many bytes it has filled. Both are the machine's memory.
type Handle func(read, write [][]byte) int

// atOnce is how many requests are handled at the same time.
const atOnce = 32

// Serve serves a device of that many queues until QEMU closes the connection, which is no
// error, or somebody breaks the protocol. The requests that are handled then are left to the
// end of the process: one may wait for what never comes.
func Serve(conn *net.UnixConn, queues int, handle Handle) error {
	d := &device{conn: conn, handle: handle, room: make(chan struct{}, atOnce), broken: make(chan error, 1)}
	for i := range queues {
		d.queues = append(d.queues, &queue{d: d, short: i == 0, call: -1})
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	go func() { d.fail(d.listen()) }()
	go d.watch(raw) // what is said last may be waited for by a request that does not end
	if err := <-d.broken; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// watch ends Serve when QEMU has gone.
func (d *device) watch(conn syscall.RawConn) {
	var fd int
	var failed error
	err := conn.Control(func(its uintptr) { fd, failed = unix.FcntlInt(its, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		d.fail(err)
		return
	}
	defer unix.Close(fd)
	wanted := []unix.PollFd{{Fd: int32(fd)}} // only that the other end is closed
	for {
		if _, err := unix.Poll(wanted, -1); err == nil {
			d.fail(io.EOF)
			return
		} else if err != unix.EINTR {
			d.fail(err)
			return
		}
	}
}

type device struct {
	conn   *net.UnixConn
	handle Handle
	queues []*queue
	room   chan struct{} // a place for each request that is handled
	broken chan error    // what a queue's driver did wrong

	// memory is held by each request while it is handled, and alone to change regions and
	// where the rings are.
	memory  sync.RWMutex
	regions []region
}

// fail ends Serve.
func (d *device) fail(err error) {
	select {
	case d.broken <- err:
	default: // it ends already
	}
}

// What QEMU asks. Source: docs/interop/vhost-user.rst, front-end message types.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	resetOwner          = 4
	setMemory           = 5
	setRingSize         = 8
	setRingPlaces       = 9
	setRingBase         = 10
	getRingBase         = 11
	setRingKick         = 12
	setRingCall         = 13
	setRingError        = 14
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	getQueues           = 17
	enableRing          = 18
)

const (
	version   = 1
	isReply   = 1 << 2
	wantReply = 1 << 3

	headerSize = 12
	maxPayload = 512 // the longest is that of setMemory: 8 bytes, and 32 for each region
	maxFiles   = 8

	noFile = 1 << 8 // of a ring's message: it brings no descriptor

	features         = 1<<28 /* tables of buffers */ | 1<<30 /* features of this protocol */ | 1<<32 /* virtio 1 */
	protocolFeatures = 1<<0 /* several queues */ | 1<<3                                              /* answers, where asked for */
)

// message is one of QEMU's.
type message struct {
	request, flags uint32
	payload        []byte
	files          []int // who takes one sets it to -1
}

func (m *message) close() {
	for _, fd := range m.files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// number returns the payload, a number.
func (m *message) number() (uint64, error) {
	if len(m.payload) != 8 {
		return 0, fmt.Errorf("message %d has %d bytes, not 8", m.request, len(m.payload))
	}
	return binary.LittleEndian.Uint64(m.payload), nil
}

// state returns the payload, the number of a queue and another.
func (m *message) state() (queue, number uint32, err error) {
	n, err := m.number()
	return uint32(n), uint32(n >> 32), err
}

// file takes a descriptor that came with the message; -1: it says that there is none.
func (m *message) file() (queue uint32, fd int, err error) {
	n, err := m.number()
	if err != nil || n&noFile != 0 {
		return uint32(n & (noFile - 1)), -1, err
	}
	if len(m.files) != 1 {
		return 0, -1, fmt.Errorf("message %d brings %d descriptors, not one", m.request, len(m.files))
	}
	fd, m.files[0] = m.files[0], -1
	return uint32(n), fd, nil
}

// listen does what QEMU asks, until it fails.
func (d *device) listen() error {
	for {
		m, err := d.receive()
		if err != nil {
			return err
		}
		reply, err := d.serve(m)
		m.close()
		if err != nil {
			return err
		}
		if reply == nil && m.flags&wantReply != 0 {
			reply = make([]byte, 8) // it is done
		}
		if reply != nil {
			if err := d.send(m.request, reply); err != nil {
				return err
			}
		}
	}
}

func (d *device) receive() (_ *message, err error) {
	m := &message{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	header := make([]byte, headerSize)
	if err := d.fill(m, header); err != nil {
		return nil, err
	}
	m.request, m.flags = binary.LittleEndian.Uint32(header), binary.LittleEndian.Uint32(header[4:])
	size := binary.LittleEndian.Uint32(header[8:])
	if m.flags&3 != version || size > maxPayload {
		return nil, fmt.Errorf("message %d has the flags %#x and %d bytes", m.request, m.flags, size)
	}
	m.payload = make([]byte, size)
	return m, d.fill(m, m.payload)
}

// fill reads exactly data, and keeps what descriptors come with it.
func (d *device) fill(m *message, data []byte) error {
	control := make([]byte, unix.CmsgSpace(4*maxFiles))
	for len(data) > 0 {
		n, c, flags, _, err := d.conn.ReadMsgUnix(data, control)
		if err != nil {
			return err
		}
		all, err := unix.ParseSocketControlMessage(control[:c])
		if err != nil {
			return err
		}
		for _, one := range all {
			fds, err := unix.ParseUnixRights(&one)
			if err != nil {
				return err
			}
			m.files = append(m.files, fds...)
		}
		if n == 0 {
			return io.EOF
		}
		if flags&unix.MSG_CTRUNC != 0 || len(m.files) > maxFiles {
			return fmt.Errorf("a message brings more than %d descriptors", maxFiles)
		}
		data = data[n:]
	}
	return nil
}

func (d *device) send(request uint32, payload []byte) error {
	data := make([]byte, headerSize, headerSize+len(payload))
	binary.LittleEndian.PutUint32(data, request)
	binary.LittleEndian.PutUint32(data[4:], version|isReply)
	binary.LittleEndian.PutUint32(data[8:], uint32(len(payload)))
	_, err := d.conn.Write(append(data, payload...))
	return err
}

// serve does what a message asks, and returns the answer that it always has.
func (d *device) serve(m *message) (reply []byte, err error) {
	number := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	switch m.request {
	case getFeatures:
		return number(features), nil
	case getProtocolFeatures:
		return number(protocolFeatures), nil
	case getQueues:
		return number(uint64(len(d.queues))), nil
	case setFeatures:
		n, err := m.number()
		if err == nil && n&^uint64(features) != 0 {
			err = fmt.Errorf("features %#x were not offered", n&^uint64(features))
		}
		return nil, err
	case setProtocolFeatures, setOwner, resetOwner, enableRing, setRingError:
		return nil, nil // a ring is used from its kick to the question for its base
	case setMemory:
		return nil, d.setMemory(m)
	}
	return d.ring(m)
}

// ring does what a message on a queue asks.
func (d *device) ring(m *message) (reply []byte, err error) {
	switch m.request {
	case setRingKick, setRingCall:
		index, fd, err := m.file()
		if err != nil {
			return nil, err
		}
		q, err := d.queue(index)
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			return nil, err
		}
		if m.request == setRingCall {
			q.setCall(fd)
			return nil, nil
		}
		return nil, q.start(fd)
	case setRingPlaces:
		return nil, d.setPlaces(m.payload)
	case setRingSize, setRingBase, getRingBase:
		index, n, err := m.state()
		if err != nil {
			return nil, err
		}
		q, err := d.queue(index)
		if err != nil {
			return nil, err
		}
		if err := q.halt(); err != nil { // nothing of it changes while it is used
			return nil, err
		}
		switch m.request {
		case setRingSize:
			return nil, q.setSize(n)
		case setRingBase:
			q.next = uint16(n)
			return nil, nil
		}
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, index), uint32(q.next)), nil
	}
	return nil, fmt.Errorf("message %d is none that was offered", m.request)
}

func (d *device) queue(index uint32) (*queue, error) {
	if int64(index) >= int64(len(d.queues)) {
		return nil, fmt.Errorf("queue %d of %d", index, len(d.queues))
	}
	return d.queues[index], nil
}
