package keep

import (
	"time"

	"github.com/strata-project/strata/api/stream"
	"golang.org/x/sys/unix"
)

// client is one end of a stream of frames. Its descriptor is shared with the
// daemon, so its mode is left alone: every call asks for no waiting by itself.
type client struct {
	p          *program
	fd         int // -1: gone
	foreground bool
	q          queue
	progress   time.Time // when it last took something
	closing    bool      // goes once the queue is empty

	frames frames
}

// join makes fd, which must be a stream socket, a client of p.
func (p *program) join(fd int, foreground bool) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return unix.ENOTSOCK
	}
	if len(p.clients) >= maxClients {
		return unix.EBUSY
	}
	c := &client{p: p, fd: fd, foreground: foreground, progress: time.Now()}
	p.clients = append(p.clients, c)
	return nil
}

func (c *client) ready(events uint32) {
	if c.q.len() > 0 {
		c.flush()
	}
	// An input that is behind leaves the client's frames where they are.
	if c.fd >= 0 && c.p.live && c.p.in.q.len() == 0 && events&^writable != 0 {
		c.read()
	}
	c.p.refresh()
}

func (c *client) read() {
	b := c.p.k.buffer()
	n, err := receive(c.fd, b)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil || n == 0:
		c.drop()
	case c.p.ended:
		// Nobody is left to read it.
	default:
		if err := c.frames.parse(b[:n], c); err != nil {
			c.drop()
		}
	}
}

// input, end, resize and signal are what frames ask for.

func (c *client) input(b []byte) { c.p.in.feed(b) }
func (c *client) end()           { c.p.in.end() }

func (c *client) resize(rows, cols uint16) { c.p.resize(rows, cols) }
func (c *client) signal(sig int)           { c.p.signal(sig) }

// send passes a frame on, and queues what the socket does not take.
func (c *client) send(frame []byte) {
	if c.fd < 0 || c.closing {
		return
	}
	if c.q.len() == 0 {
		n := c.write(frame)
		if frame = frame[n:]; len(frame) == 0 || c.fd < 0 {
			return
		}
		c.progress = time.Now()
	}
	if !c.q.push(frame) {
		c.drop()
	}
}

// last sends the last frame; the client goes when it has everything.
func (c *client) last(frame []byte) {
	c.send(frame)
	if c.closing = true; c.q.len() == 0 {
		c.drop()
	}
}

func (c *client) flush() {
	if n := c.write(c.q.bytes()); n > 0 && c.fd >= 0 {
		c.progress = time.Now()
		c.q.drop(n)
	}
	if c.closing && c.q.len() == 0 {
		c.drop()
	}
}

func (c *client) write(b []byte) (done int) {
	for done < len(b) {
		n, err := send(c.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			return done
		}
		if err != nil {
			c.drop()
			return done
		}
		done += n
	}
	return done
}

// drop ends the client; the next refresh takes it off the list.
func (c *client) drop() {
	c.p.k.loop.close(&c.fd)
	c.q.free()
}

// frames takes a stream of frames apart, however it is cut, without storing
// more than a frame's head and a short payload. The zero value is ready.
type frames struct {
	head  [stream.HeaderSize]byte
	n     int // bytes of head that are there
	typ   stream.Type
	left  int // bytes of the payload to come
	short [4]byte
	have  int // bytes of short that are there
}

// framed is who hears of frames.
type framed interface {
	input(b []byte)
	end()
	resize(rows, cols uint16)
	signal(sig int)
}

func (f *frames) parse(b []byte, to framed) error {
	for len(b) > 0 {
		if f.n < stream.HeaderSize {
			n := copy(f.head[f.n:], b)
			f.n += n
			if b = b[n:]; f.n < stream.HeaderSize {
				return nil
			}
			if err := f.begin(); err != nil {
				return err
			}
		}
		n := min(len(b), f.left)
		if f.typ == stream.Stdin {
			if n > 0 {
				to.input(b[:n])
			}
		} else {
			f.have += copy(f.short[f.have:], b[:n])
		}
		b, f.left = b[n:], f.left-n
		if f.left == 0 {
			f.n = 0
			if err := f.complete(to); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin checks a head: only what a client may say, of the length it has.
func (f *frames) begin() (err error) {
	f.typ, f.left, err = stream.ParseHeader(f.head[:])
	f.have = 0
	if err != nil {
		return err
	}
	want := 0
	switch f.typ {
	case stream.Stdin:
		return nil
	case stream.CloseStdin:
	case stream.Resize:
		want = 4
	case stream.Signal:
		want = 1
	default:
		return stream.ErrType
	}
	if f.left != want {
		return stream.ErrPayload
	}
	return nil
}

func (f *frames) complete(to framed) error {
	switch f.typ {
	case stream.CloseStdin:
		to.end()
	case stream.Resize:
		rows, cols, err := stream.ParseResize(f.short[:f.have])
		if err != nil {
			return err
		}
		to.resize(rows, cols)
	case stream.Signal:
		if sig := int(f.short[0]); sig >= 1 && sig <= 64 {
			to.signal(sig)
		}
	}
	return nil
}
