package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the machine's memory is, and in it the queue's rings and the buffers.
const (
	physical = 0x1000_0000
	user     = 0x7f00_0000_0000
	memory   = 1 << 20

	tableAt, availableAt, usedAt, buffersAt = 0x0000, 0x2000, 0x4000, 0x8000
	ringSize                                = 8
)

// front is QEMU and the machine's driver.
type front struct {
	t          *testing.T
	conn       *net.UnixConn
	memory     []byte
	file       int
	kick, call int
	offered    uint16
	ended      chan error
}

var le = binary.LittleEndian

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// pair returns two ends of a connection.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	var ends []*net.UnixConn
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		c, err := net.FileConn(f)
		must(t, err, f.Close())
		t.Cleanup(func() { c.Close() })
		ends = append(ends, c.(*net.UnixConn))
	}
	return ends[0], ends[1]
}

// upper answers with what was asked in capital letters.
func upper(read, write [][]byte) int {
	text, n := bytes.ToUpper(bytes.Join(read, nil)), 0
	for _, b := range write {
		c := copy(b, text)
		text, n = text[c:], n+c
	}
	return n
}

func begin(t *testing.T, handle Handle) *front {
	t.Helper()
	ours, its := pair(t)
	f := &front{t: t, conn: ours, ended: make(chan error, 1)}
	go func() { f.ended <- Serve(its, 2, handle) }()
	var err error
	f.file, err = unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	must(t, err, unix.Ftruncate(f.file, memory))
	f.memory, err = unix.Mmap(f.file, 0, memory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	for _, fd := range []*int{&f.kick, &f.call} {
		*fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
	}
	t.Cleanup(func() {
		for _, fd := range []int{f.file, f.kick, f.call} {
			unix.Close(fd)
		}
	})
	return f
}

// say sends a message.
func (f *front) say(request, flags uint32, payload []byte, fds ...int) {
	f.t.Helper()
	header := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, request), version|flags), uint32(len(payload)))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := f.conn.WriteMsgUnix(append(header, payload...), rights, nil); err != nil {
		f.t.Fatal(err)
	}
}

// ask sends a message and returns the answer's payload.
func (f *front) ask(request uint32, payload []byte, fds ...int) []byte {
	f.t.Helper()
	f.say(request, wantReply, payload, fds...)
	must(f.t, f.conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	header := make([]byte, headerSize)
	_, err := io.ReadFull(f.conn, header)
	must(f.t, err)
	if got := le.Uint32(header); got != request || le.Uint32(header[4:]) != version|isReply {
		f.t.Fatalf("the answer to %d is %d, %#x", request, got, le.Uint32(header[4:]))
	}
	answer := make([]byte, le.Uint32(header[8:]))
	_, err = io.ReadFull(f.conn, answer)
	must(f.t, err)
	return answer
}

func number(n uint64) []byte       { return le.AppendUint64(nil, n) }
func state(queue, n uint32) []byte { return le.AppendUint32(le.AppendUint32(nil, queue), n) }
func places(queue uint32, at ...uint64) []byte {
	b := state(queue, 0)
	for _, a := range at {
		b = le.AppendUint64(b, a)
	}
	return b
}

// table describes the machine's memory.
func table(size, offset uint64) []byte {
	b := state(1, 0)
	for _, n := range []uint64{physical, size, user, offset} {
		b = le.AppendUint64(b, n)
	}
	return b
}

// use has queue 1 used, as QEMU does when a machine's driver has set it up.
func (f *front) use(base uint32) {
	f.t.Helper()
	f.ask(setMemory, table(memory, 0), f.file)
	f.ask(setRingSize, state(1, ringSize))
	f.ask(setRingBase, state(1, base))
	f.ask(setRingPlaces, places(1, user+tableAt, user+usedAt, user+availableAt, 0))
	f.ask(setRingKick, number(1), f.kick)
	f.ask(setRingCall, number(1), f.call)
}

// describe writes an entry of a table.
func (f *front) describe(table, at int, address uint64, length uint32, flags, next uint16) {
	entry := f.memory[table+16*at:]
	le.PutUint64(entry, address)
	le.PutUint32(entry[8:], length)
	le.PutUint16(entry[12:], flags)
	le.PutUint16(entry[14:], next)
}

// offer makes a request available that begins at an entry.
func (f *front) offer(head uint16) {
	le.PutUint16(f.memory[availableAt+4+2*(int(f.offered)%ringSize):], head)
	f.offered++
	le.PutUint16(f.memory[availableAt+2:], f.offered)
	must(f.t, tell(f.kick))
}

func (f *front) done() uint16 { return le.Uint16(f.memory[usedAt+2:]) }

// await waits until so many requests were given back.
func (f *front) await(n uint16) {
	f.t.Helper()
	for until := time.Now().Add(20 * time.Second); f.done() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			f.t.Fatalf("%d requests were given back, not %d", f.done(), n)
		}
	}
}

// end closes the connection, or awaits that the other side does, and returns how it served.
func (f *front) end(close bool) error {
	f.t.Helper()
	if close {
		must(f.t, f.conn.Close())
	}
	select {
	case err := <-f.ended:
		return err
	case <-time.After(20 * time.Second):
		f.t.Fatal("it serves on")
		return nil
	}
}

func TestRequestsAreAnswered(t *testing.T) {
	f := begin(t, upper)
	if got := le.Uint64(f.ask(getFeatures, nil)); got != features {
		t.Errorf("features %#x", got)
	}
	if got := le.Uint64(f.ask(getProtocolFeatures, nil)); got != protocolFeatures {
		t.Errorf("features of the protocol %#x", got)
	}
	if got := le.Uint64(f.ask(getQueues, nil)); got != 2 {
		t.Errorf("%d queues", got)
	}
	f.ask(setFeatures, number(features))
	f.use(0)
	// A chain of two to read and two to write, over the end of the ring and round again.
	copy(f.memory[buffersAt:], "hello world")
	f.describe(tableAt, 0, physical+buffersAt, 6, hasNext, 5)
	f.describe(tableAt, 5, physical+buffersAt+6, 5, hasNext, 2)
	f.describe(tableAt, 2, physical+buffersAt+100, 3, hasNext|writable, 3)
	f.describe(tableAt, 3, physical+buffersAt+200, 90, writable, 0)
	for i := range uint16(3 * ringSize) {
		clear(f.memory[buffersAt+100 : buffersAt+300])
		f.offer(0)
		f.await(i + 1)
		entry := f.memory[usedAt+4+8*(int(i)%ringSize):]
		if got := string(f.memory[buffersAt+100:buffersAt+103]) + string(f.memory[buffersAt+200:buffersAt+208]); got != "HELLO WORLD" || le.Uint32(entry) != 0 || le.Uint32(entry[4:]) != 11 {
			t.Fatalf("%d: %q, %d bytes at %d", i, got, le.Uint32(entry[4:]), le.Uint32(entry))
		}
	}
	told := make([]byte, 8)
	if _, err := unix.Read(f.call, told); err != nil || le.Uint64(told) == 0 {
		t.Error("the driver was not told:", err)
	}
	// The same by a table, and silently.
	le.PutUint16(f.memory[availableAt:], noInterrupt)
	copy(f.memory[0x6000:], f.memory[tableAt:tableAt+16*ringSize])
	f.describe(0x6000, 2, physical+buffersAt+100, 11, writable, 0)
	f.describe(tableAt, 7, physical+0x6000, 16*ringSize, isTable, 0)
	f.offer(7)
	f.await(f.offered)
	if got := string(f.memory[buffersAt+100 : buffersAt+111]); got != "HELLO WORLD" {
		t.Errorf("%q", got)
	}
	if _, err := unix.Read(f.call, told); err != unix.EAGAIN {
		t.Error("it was told, which it did not want:", err)
	}
	if err := f.end(true); err != nil {
		t.Error(err)
	}
}

// A machine is held still: no request is left then, and what comes later waits.
func TestAQueueThatIsStoppedHasNothingLeft(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	f := begin(t, func(read, write [][]byte) int {
		began <- struct{}{}
		<-goOn
		return upper(read, write)
	})
	f.use(0)
	f.describe(tableAt, 0, physical+buffersAt, 1, hasNext, 1)
	f.describe(tableAt, 1, physical+buffersAt+1, 1, writable, 0)
	for range 3 {
		f.offer(0)
		<-began // all three at the same time
	}
	stopped := make(chan []byte)
	go func() { stopped <- f.ask(getRingBase, state(1, 0)) }()
	select {
	case <-stopped:
		t.Fatal("it is stopped while requests are handled")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if got := <-stopped; le.Uint32(got) != 1 || le.Uint32(got[4:]) != 3 || f.done() != 3 {
		t.Errorf("queue %d is stopped at %d, and %d were given back", le.Uint32(got), le.Uint32(got[4:]), f.done())
	}
	f.offer(0)
	select {
	case <-began:
		t.Fatal("a queue that is stopped goes on")
	case <-time.After(50 * time.Millisecond):
	}
	f.use(3)
	<-began
	f.await(4)
	// Memory may change under a queue that is used.
	f.ask(setMemory, table(memory/2, 0), f.file)
	f.offer(0)
	<-began
	f.await(5)
	if err := f.end(true); err != nil {
		t.Error(err)
	}
}

// What never ends keeps nobody from seeing that QEMU has gone.
func TestQEMUsEndIsSeenWhileItIsWaitedFor(t *testing.T) {
	began, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	f := begin(t, func([][]byte, [][]byte) int {
		close(began)
		<-never
		return 0
	})
	f.use(0)
	f.describe(tableAt, 0, physical+buffersAt, 1, 0, 0)
	f.offer(0)
	<-began
	f.say(getRingBase, 0, state(1, 0)) // it is not answered
	if err := f.end(true); err != nil {
		t.Error(err)
	}
}

func TestWhoBreaksTheProtocolIsServedNoFurther(t *testing.T) {
	used := func(f *front) { f.use(0) }
	for name, c := range map[string]struct {
		before func(*front)
		does   func(*front)
		want   string
	}{
		"another version":              {nil, func(f *front) { f.say(getFeatures, 2, nil) }, "flags"},
		"a long message":               {nil, func(f *front) { f.say(setMemory, 0, make([]byte, maxPayload+1)) }, "bytes"},
		"a message of another device":  {nil, func(f *front) { f.say(34, 0, nil) }, "none that was offered"},
		"features that nobody offered": {nil, func(f *front) { f.say(setFeatures, 0, number(1<<34)) }, "not offered"},
		"many descriptors": {nil, func(f *front) {
			f.say(setMemory, 0, table(memory, 0), f.file, f.file, f.file, f.file, f.file, f.file, f.file, f.file, f.file)
		}, "descriptors"},
		"memory without a descriptor": {nil, func(f *front) { f.say(setMemory, 0, table(memory, 0)) }, "0 descriptors"},
		"memory without end":          {nil, func(f *front) { f.say(setMemory, 0, table(1<<63, 0), f.file) }, "region"},
		"memory of no bytes":          {nil, func(f *front) { f.say(setMemory, 0, table(0, 0), f.file) }, "region"},
		"a short table of memory":     {nil, func(f *front) { f.say(setMemory, 0, table(memory, 0)[:20], f.file) }, "12 bytes"},
		"a queue too far":             {nil, func(f *front) { f.say(setRingSize, 0, state(2, 8)) }, "queue 2"},
		"a queue of 3":                {nil, func(f *front) { f.say(setRingSize, 0, state(1, 3)) }, "3 entries"},
		"a queue of 2048":             {nil, func(f *front) { f.say(setRingSize, 0, state(1, 2048)) }, "2048 entries"},
		"places before a size":        {nil, func(f *front) { f.say(setRingPlaces, 0, places(1, user, user, user, 0)) }, "before it has a size"},
		"a kick before places":        {nil, func(f *front) { f.say(setRingKick, 0, number(1), f.kick) }, "before it has its places"},
		"a kick that is none":         {used, func(f *front) { f.say(setRingKick, 0, number(1)) }, "0 descriptors"},
		"a queue without a kick":      {used, func(f *front) { f.say(setRingKick, 0, number(1|noFile)) }, "without a kick"},
		"places outside":              {used, func(f *front) { f.say(setRingPlaces, 0, places(1, user+memory-64, user, user, 0)) }, "not the machine's memory"},
		"places that wrap":            {used, func(f *front) { f.say(setRingPlaces, 0, places(1, ^uint64(0)-63, user, user, 0)) }, "not the machine's memory"},
		"places not aligned":          {used, func(f *front) { f.say(setRingPlaces, 0, places(1, user, user+0x1002, user+0x2000, 0)) }, "not aligned"},
		"memory that goes under a queue": {used, func(f *front) {
			f.ask(setMemory, table(usedAt, 0), f.file)
			f.offer(0)
		}, "no memory"},
		"a beginning that is none": {used, func(f *front) { f.offer(ringSize) }, "begins at 8"},
		"more than there are":      {used, func(f *front) { f.offered = ringSize; f.offer(0) }, "9 requests"},
		"a buffer outside":         {used, func(f *front) { f.describe(0, 0, physical-1, 1, 0, 0); f.offer(0) }, "not the machine's memory"},
		"a buffer over the end":    {used, func(f *front) { f.describe(0, 0, physical+memory-1, 2, 0, 0); f.offer(0) }, "not the machine's memory"},
		"a follower that is none":  {used, func(f *front) { f.describe(0, 0, physical, 1, hasNext, ringSize); f.offer(0) }, "followed by 8"},
		"a circle":                 {used, func(f *front) { f.describe(0, 0, physical, 1, hasNext, 0); f.offer(0) }, "more than"},
		"more bytes than a request has": {used, func(f *front) {
			for i := range uint16(4) {
				f.describe(0, int(i), physical, memory, hasNext, i+1)
			}
			f.offer(0)
		}, "bytes"},
		"a table in a table": {used, func(f *front) {
			f.describe(0, 0, physical+0x6000, 16, isTable, 0)
			f.describe(0x6000, 0, physical+0x6000, 16, isTable, 0)
			f.offer(0)
		}, "table of buffers"},
		"an empty table":           {used, func(f *front) { f.describe(0, 0, physical+0x6000, 0, isTable, 0); f.offer(0) }, "table of buffers"},
		"half an entry":            {used, func(f *front) { f.describe(0, 0, physical+0x6000, 24, isTable, 0); f.offer(0) }, "table of buffers"},
		"a table without end":      {used, func(f *front) { f.describe(0, 0, physical, 1<<31, isTable, 0); f.offer(0) }, "table of buffers"},
		"a table outside":          {used, func(f *front) { f.describe(0, 0, physical+memory, 16, isTable, 0); f.offer(0) }, "not the machine's memory"},
		"a table that is followed": {used, func(f *front) { f.describe(0, 0, physical+0x6000, 16, isTable|hasNext, 0); f.offer(0) }, "table of buffers"},
		"half a message": {nil, func(f *front) {
			_, err := f.conn.Write([]byte{1, 0, 0, 0, 1})
			must(f.t, err, f.conn.Close())
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := begin(t, upper)
			if c.before != nil {
				c.before(f)
			}
			c.does(f)
			err := f.end(false)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("it ends with %v; want %q", err, c.want)
			}
		})
	}
}

// Any bytes in rings and tables end it at worst: nothing outside the machine's memory is read.
func FuzzRings(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x10, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}, uint16(0), uint16(1))
	f.Add(bytes.Repeat([]byte{0xff}, 64), uint16(7), uint16(3))
	f.Fuzz(func(t *testing.T, entries []byte, head, offered uint16) {
		d := &device{regions: []region{{physical: physical, user: user, data: make([]byte, memory)}}, handle: upper, room: make(chan struct{}, 1), broken: make(chan error, 1)}
		q := &queue{d: d, short: true, call: -1, size: ringSize, places: [3]uint64{user, user + usedAt, user + availableAt}}
		data := d.regions[0].data
		copy(data, entries)
		for i := range ringSize {
			le.PutUint16(data[availableAt+4+2*i:], head+uint16(i))
		}
		le.PutUint16(data[availableAt+2:], offered)
		must(t, q.place())
		for range ringSize + 1 {
			if more, err := q.take(); err != nil || !more {
				return
			}
		}
		t.Error("more requests than there are")
	})
}
