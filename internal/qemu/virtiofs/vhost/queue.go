package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSize is how many entries a ring can have, and a table of buffers: as many as QEMU gives.
const maxSize = 1024

// queue is a split virtqueue. What is above mu is changed by QEMU's messages only, while the
// queue is not used.
type queue struct {
	d     *device
	short bool // its requests are handled in turn

	size   uint32
	places [3]uint64 // QEMU's addresses of the table, the ring of what was used, that of what is available
	rings  *rings    // with the device's memory held; nil: they are nowhere
	next   uint16    // the number of the request that is taken next
	kick   *os.File
	ended  chan struct{} // closed when nobody takes requests any more

	pending sync.WaitGroup // requests that are handled

	mu   sync.Mutex // of what is given back, and call
	used uint16     // how many requests were given back
	call int        // where the driver is told; -1: it is not
}

// rings are where a queue is in memory. Each is read and written by whole aligned words.
type rings struct {
	table     unsafe.Pointer // size buffers of 16 bytes
	available unsafe.Pointer // flags, index, size entries: 2 bytes each
	used      unsafe.Pointer // flags, index: 2 bytes each; size entries of 8
}

// Flags of a buffer, and of the ring of what is available.
const (
	hasNext  = 1
	writable = 2
	isTable  = 4

	noInterrupt = 1
)

// maxBytes bounds what a request brings, and what it has room for: a transfer of files is a
// mebibyte, and has a header.
const maxBytes = 2 << 20

// bufferSize is a buffer's entry in a table.
const bufferSize = 16

func (q *queue) setSize(n uint32) error {
	if n == 0 || n > maxSize || n&(n-1) != 0 {
		return fmt.Errorf("a queue of %d entries", n)
	}
	q.size, q.rings = n, nil
	return nil
}

// setPlaces takes where the rings of a queue are.
func (d *device) setPlaces(payload []byte) error {
	le := binary.LittleEndian
	if len(payload) != 40 {
		return fmt.Errorf("the places of a queue have %d bytes, not 40", len(payload))
	}
	q, err := d.queue(le.Uint32(payload))
	if err != nil {
		return err
	}
	if err := q.halt(); err != nil {
		return err
	}
	q.places = [3]uint64{le.Uint64(payload[8:]), le.Uint64(payload[16:]), le.Uint64(payload[24:])}
	if err := d.alone(); err != nil {
		return err
	}
	defer d.memory.Unlock()
	return q.place()
}

// place finds the rings in the machine's memory.
func (q *queue) place() error {
	q.rings = nil
	size := uint64(q.size)
	if size == 0 {
		return errors.New("a queue has places before it has a size")
	}
	table, err1 := q.d.atUser(q.places[0], bufferSize*size)
	used, err2 := q.d.atUser(q.places[1], 4+8*size)
	available, err3 := q.d.atUser(q.places[2], 6+2*size)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	r := &rings{table: unsafe.Pointer(&table[0]), used: unsafe.Pointer(&used[0]), available: unsafe.Pointer(&available[0])}
	if uintptr(r.table)%bufferSize != 0 || uintptr(r.used)%4 != 0 || uintptr(r.available)%4 != 0 {
		return errors.New("a queue's places are not aligned")
	}
	q.rings = r
	return nil
}

// setCall takes where the driver is told; -1: it is not.
func (q *queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.call >= 0 {
		unix.Close(q.call)
	}
	q.call = fd
	if fd >= 0 {
		_ = tell(fd) // of what was given back before
	}
}

// start takes requests from now on, whenever kick says so.
func (q *queue) start(kick int) error {
	if kick < 0 {
		return errors.New("a queue without a kick")
	}
	if err := q.halt(); err != nil {
		unix.Close(kick)
		return err
	}
	if q.rings == nil {
		unix.Close(kick)
		return errors.New("a queue starts before it has its places")
	}
	if err := unix.SetNonblock(kick, true); err != nil {
		unix.Close(kick)
		return err
	}
	q.kick, q.ended = os.NewFile(uintptr(kick), "kick"), make(chan struct{})
	q.used = uint16(atomic.LoadUint32((*uint32)(q.rings.used)) >> 16)
	go q.run()
	return nil
}

// haltPatience is how long requests may take that QEMU waits for, and everybody who asks it
// something meanwhile.
const haltPatience = 30 * time.Second

// halt returns when no request is taken, and none is handled.
func (q *queue) halt() error {
	if q.kick == nil {
		return nil
	}
	_ = q.kick.Close()
	over := make(chan struct{})
	go func() {
		<-q.ended
		q.pending.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(haltPatience):
		return fmt.Errorf("a request was not answered within %v, while QEMU waited for it", haltPatience)
	}
	q.kick = nil
	return nil
}

// alone takes the memory when no request is handled.
func (d *device) alone() error {
	for end := time.Now().Add(haltPatience); !d.memory.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("a request was not answered within %v, while QEMU waited for it", haltPatience)
		}
	}
	return nil
}

// run takes requests until the kick is closed.
func (q *queue) run() {
	defer close(q.ended)
	for word := make([]byte, 8); ; {
		for {
			more, err := q.take()
			if err != nil {
				q.d.fail(err)
				return
			}
			if !more {
				break
			}
		}
		if _, err := q.kick.Read(word); err != nil {
			return
		}
	}
}

// take has the next request handled, if there is one.
func (q *queue) take() (more bool, err error) {
	if !q.short {
		q.d.room <- struct{}{}
	}
	q.d.memory.RLock()
	head, more, err := q.head()
	if !more || err != nil {
		q.leave()
		return false, err
	}
	q.next++
	if q.short {
		defer q.leave()
		return true, q.answer(head)
	}
	q.pending.Add(1)
	go func() {
		defer q.pending.Done()
		defer q.leave()
		if err := q.answer(head); err != nil {
			q.d.fail(err)
		}
	}()
	return true, nil
}

// leave gives back what take has taken for a request.
func (q *queue) leave() {
	q.d.memory.RUnlock()
	if !q.short {
		<-q.d.room
	}
}

// head returns where the next request begins, if there is one.
func (q *queue) head() (head uint16, there bool, err error) {
	if q.rings == nil {
		return 0, false, errors.New("a queue is used where no memory is")
	}
	waiting := uint16(atomic.LoadUint32((*uint32)(q.rings.available))>>16) - q.next
	if waiting == 0 {
		return 0, false, nil
	}
	head = word16(q.rings.available, 4+2*(uintptr(q.next)&uintptr(q.size-1)))
	if uint32(waiting) > q.size || uint32(head) >= q.size {
		return 0, false, fmt.Errorf("%d requests in a queue of %d, of which the next begins at %d", waiting, q.size, head)
	}
	return head, true, nil
}

// answer has a request handled, and gives it back.
func (q *queue) answer(head uint16) error {
	read, write, err := q.d.chain(q.rings.table, q.size, head)
	if err != nil {
		return err
	}
	n := q.d.handle(read, write)
	q.mu.Lock()
	defer q.mu.Unlock()
	entry := unsafe.Add(q.rings.used, 4+8*(uintptr(q.used)&uintptr(q.size-1)))
	atomic.StoreUint32((*uint32)(entry), uint32(head))
	atomic.StoreUint32((*uint32)(unsafe.Add(entry, 4)), uint32(n))
	q.used++
	atomic.StoreUint32((*uint32)(q.rings.used), uint32(q.used)<<16) // no flags: of each request we are to be told
	if flags := atomic.LoadUint32((*uint32)(q.rings.available)); flags&noInterrupt != 0 || q.call < 0 {
		return nil
	}
	return tell(q.call)
}

// tell wakes whoever waits for an event.
func tell(event int) error {
	if _, err := unix.Write(event, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil && err != unix.EAGAIN { // it is told already, then
		return fmt.Errorf("tell the driver: %w", err)
	}
	return nil
}

// chain follows a request's buffers.
func (d *device) chain(table unsafe.Pointer, size uint32, head uint16) (read, write [][]byte, err error) {
	at, inner, total := uint32(head), false, uint64(0)
	for range maxSize {
		address, length, flags, next := buffer(table, at)
		if flags&isTable != 0 {
			if inner || flags&hasNext != 0 || length == 0 || length%bufferSize != 0 || length > maxSize*bufferSize || address%8 != 0 {
				return nil, nil, fmt.Errorf("a table of buffers has %d bytes at %#x", length, address)
			}
			whole, err := d.append(nil, address, length)
			if err != nil {
				return nil, nil, err
			}
			if len(whole) != 1 || uintptr(unsafe.Pointer(&whole[0][0]))%8 != 0 {
				return nil, nil, errors.New("a table of buffers is in two regions, or not aligned")
			}
			table, size, at, inner = unsafe.Pointer(&whole[0][0]), length/bufferSize, 0, true
			continue
		}
		if total += uint64(length); total > maxBytes {
			return nil, nil, fmt.Errorf("a request has more than %d bytes", maxBytes)
		}
		if flags&writable != 0 {
			write, err = d.append(write, address, length)
		} else {
			read, err = d.append(read, address, length)
		}
		if err != nil || flags&hasNext == 0 {
			return read, write, err
		}
		if at = uint32(next); at >= size {
			return nil, nil, fmt.Errorf("a buffer is followed by %d of %d", at, size)
		}
	}
	return nil, nil, fmt.Errorf("a request has more than %d buffers", maxSize)
}

// buffer reads an entry of a table, once.
func buffer(table unsafe.Pointer, at uint32) (address uint64, size uint32, flags, next uint16) {
	entry := unsafe.Add(table, bufferSize*uintptr(at))
	address = atomic.LoadUint64((*uint64)(entry))
	rest := atomic.LoadUint64((*uint64)(unsafe.Add(entry, 8)))
	return address, uint32(rest), uint16(rest >> 32), uint16(rest >> 48)
}

// word16 reads two bytes of an aligned ring.
func word16(ring unsafe.Pointer, at uintptr) uint16 {
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Add(ring, at&^3))) >> (8 * (at & 2)))
}
