package keep

import (
	"strconv"

	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

const (
	// maxIn is the longest beginning of a frame that may have to be kept.
	maxIn = 2 * (port.HeaderSize + port.MaxPayload)
	// maxStale bounds what may stand in the port before the agent's Hello: what its
	// queue, QEMU and the socket hold of an earlier host's, many times over.
	maxStale = 4 << 20
	// patientOut is how much the port may be behind before what clients can say for
	// nothing (signals, sizes) is dropped, and output is not granted. What else there is to
	// say is bounded by itself: input by windows, and by queueLimit; programs by maxExecs.
	patientOut = 256 << 10
)

// say sends a frame, or queues what the port does not take now.
func (m *machine) say(t port.Type, channel uint32, payload []byte) {
	if m.streams < 0 {
		return
	}
	var head [port.HeaderSize]byte
	port.PutHeader(head[:], port.Header{Type: t, Channel: channel, Length: len(payload)})
	m.write(head[:])
	m.write(payload)
	m.want()
}

// offer says what may as well be left unsaid where the port is far behind, and
// tells whether it was said.
func (m *machine) offer(t port.Type, channel uint32, payload []byte) bool {
	if m.out.len() > patientOut {
		return false
	}
	m.say(t, channel, payload)
	return true
}

func (m *machine) write(b []byte) {
	for m.out.len() == 0 && len(b) > 0 {
		n, err := send(m.streams, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break // its end is seen by whoever reads
		}
		b = b[n:]
	}
	if !m.out.push(b) {
		m.fail("the keeper has no memory left for what the agent does not take")
	}
}

func (m *machine) want() {
	events := uint32(readable)
	if m.out.len() > 0 {
		events |= writable
	}
	m.k.want(m.streams, events, portSocket{m})
}

// portSocket is the port of the streams.
type portSocket struct{ m *machine }

func (s portSocket) ready(events uint32) {
	m := s.m
	if events&writable != 0 && m.out.len() > 0 {
		m.flush()
	}
	if events&^writable != 0 {
		m.read()
	}
	m.want()
}

func (m *machine) flush() {
	for m.out.len() > 0 {
		n, err := send(m.streams, m.out.bytes())
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		m.out.drop(n)
	}
	// There is room for input again, and for what is granted.
	for _, f := range m.channels {
		if f.p.in.q.len() > 0 {
			f.p.in.flush()
		}
		f.p.refresh()
	}
}

// read takes what has come; false means that nothing is there.
func (m *machine) read() bool {
	if m.in == nil {
		if m.in = mapBuffer(maxIn); m.in == nil {
			m.fail("the keeper has no memory left to hear the agent")
			return false
		}
		m.in = m.in[:0]
	}
	n, err := receive(m.streams, m.in[len(m.in):cap(m.in)])
	if err == unix.EINTR {
		return true
	}
	if err == unix.EAGAIN {
		return false
	}
	if err != nil || n == 0 {
		m.k.close(&m.streams) // QEMU ends, and tells how by its own end
		return false
	}
	m.in = m.in[:len(m.in)+n]
	m.parse()
	return true
}

// rest gives back what reading needed, where no frame has come in part.
func (m *machine) rest() {
	if m.in != nil && len(m.in) == 0 {
		unmapBuffer(m.in[:cap(m.in)])
		m.in = nil
	}
}

// parse takes whole frames off the front of what has come.
func (m *machine) parse() {
	b := m.in
	for m.broken == "" {
		if !m.met {
			if b = m.meet(b); !m.met {
				break
			}
			continue
		}
		if len(b) < port.HeaderSize {
			break
		}
		h, err := port.ParseHeader(b)
		if err != nil {
			m.fault(err.Error())
			break
		}
		if len(b) < port.HeaderSize+h.Length {
			break
		}
		m.hear(h, b[:port.HeaderSize+h.Length])
		b = b[port.HeaderSize+h.Length:]
	}
	m.in = m.in[:copy(m.in, b)]
}

// meet throws away what stands before the agent's answer, and notes when that is there.
func (m *machine) meet(b []byte) []byte {
	skip, found := findHello(b, m.number)
	b = b[skip:]
	if m.stale += skip; m.stale > maxStale {
		m.fault("it sends much, and no answer")
		return b
	}
	if !found {
		return b
	}
	if v := b[port.HeaderSize+len(port.Magic)]; v != port.Version {
		m.fail("the agent inside is of another version: " + strconv.Itoa(int(v)))
		return b
	}
	m.met = true
	return b[port.HeaderSize+port.HelloSize:]
}

// findHello looks for the agent's answer: how much before it is to be thrown
// away, and whether it is there as a whole.
func findHello(b []byte, number uint64) (skip int, found bool) {
	const whole = port.HeaderSize + port.HelloSize
	for skip = 0; len(b)-skip >= whole; skip++ {
		if b[skip] != byte(port.Hello) {
			continue
		}
		if h, err := port.ParseHeader(b[skip:]); err != nil || h.Type != port.Hello {
			continue
		}
		if _, n, err := port.ParseHello(b[skip+port.HeaderSize : skip+whole]); err == nil && n == number {
			return skip, true
		}
	}
	return skip, false
}
