package streams

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/vmagent/port"
)

// chunk is the longest payload that is sent: with its header it is as much as the
// kernel takes at once. Source: drivers/char/virtio_console.c, port_fops_write.
const chunk = 32<<10 - port.HeaderSize

// drainLimit bounds what is read of a terminal, or of a pipe that does not say
// what it holds, once its program has ended: as much as a pipe can hold.
// Source: /proc/sys/fs/pipe-max-size as the kernel sets it.
const drainLimit = 1 << 20

var frames = sync.Pool{New: func() any { return new([port.HeaderSize + chunk]byte) }}

// reading is one look at an output.
type reading struct {
	c       *channel
	most    int
	frame   *[port.HeaderSize + chunk]byte
	n       int
	err     error
	starved bool
	host    *host
}

// try reads as much as may be sent. It is false where there is nothing to read
// now, and holds a frame only where it has read something.
func (r *reading) try(fd uintptr) bool {
	room, h := r.c.take(min(r.most, chunk))
	if r.host, r.starved = h, room == 0; r.starved {
		return true
	}
	r.frame = frames.Get().(*[port.HeaderSize + chunk]byte)
	for {
		r.n, r.err = unix.Read(int(fd), r.frame[port.HeaderSize:port.HeaderSize+room])
		if r.err != unix.EINTR {
			break
		}
	}
	r.n = max(r.n, 0)
	r.c.giveBack(room-r.n, h)
	if r.n == 0 {
		r.release()
	}
	return r.err != unix.EAGAIN
}

func (r *reading) release() {
	frames.Put(r.frame)
	r.frame = nil
}

// output sends what comes from f until it ends. Once the program has, it is what
// f holds then.
func (c *channel) output(f *os.File, t port.Type) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for left := -1; left != 0; {
		r := reading{c: c, most: chunk}
		if left < 0 {
			if err := raw.Read(r.try); err != nil {
				left = holds(raw)
				continue
			}
		} else {
			r.most = left
			if err := raw.Control(func(fd uintptr) { r.try(fd) }); err != nil {
				return
			}
		}
		if r.starved {
			c.starve()
			continue
		}
		if r.n == 0 {
			return // it has ended, or was drained
		}
		if left > 0 {
			left -= r.n
		}
		port.PutHeader(r.frame[:], port.Header{Type: t, Channel: c.number, Length: r.n})
		_ = r.host.write(r.frame[:port.HeaderSize+r.n]) // what a host that has gone did not take is lost
		r.release()
	}
}

// holds tells how much is in an output at most.
func holds(raw syscall.RawConn) int {
	n := drainLimit
	_ = raw.Control(func(fd uintptr) {
		var st unix.Stat_t
		if unix.Fstat(int(fd), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return
		}
		if in, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			n = in
		}
	})
	return n
}

// input hands the channel's input to the program through f, until either ends. A
// program that takes no more loses it, and the host does not have to wait.
func (c *channel) input(f *os.File) {
	for gone := false; ; {
		b := c.fetch()
		if b == nil {
			break
		}
		for len(b) > 0 {
			n := min(len(b), chunk)
			if !gone {
				_, err := f.Write(b[:n])
				gone = err != nil
			}
			b = b[n:]
			c.consumed(n)
		}
	}
	c.mu.Lock()
	terminal := c.master != nil || c.ended // which finish closes
	c.mu.Unlock()
	if !terminal {
		f.Close()
	}
}
