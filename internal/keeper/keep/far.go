package keep

import (
	"encoding/binary"

	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// far is a program beyond a machine's port: one channel of it.
type far struct {
	m       *machine
	p       *program
	channel uint32
	// granted is how much output the agent may still send, consumed what has come of
	// it and is not granted anew yet; room is how much input it takes.
	granted, consumed, room int
	begun                   bool // the agent has said Started
	inputOver               bool
}

// open makes p the program of a channel; stdin tells whether it has an input.
func (m *machine) open(p *program, channel uint32, stdin bool) {
	f := &far{m: m, p: p, channel: channel, granted: port.InitialWindow, room: port.InitialWindow}
	f.inputOver = !stdin && !p.tty
	p.far, p.in.tty = f, p.tty
	m.channels = append(m.channels, f)
}

// forget frees the channel; what still comes on it is thrown away. Whoever goes
// through the channels meanwhile has a list of its own.
func (f *far) forget() {
	for i, other := range f.m.channels {
		if other == f {
			f.m.channels = append(f.m.channels[:i:i], f.m.channels[i+1:]...)
			return
		}
	}
}

// channel is the program with that number; nil: it is over.
func (m *machine) channel(number uint32) *far {
	for _, f := range m.channels {
		if f.channel == number {
			return f
		}
	}
	return nil
}

// grant lets the agent send what has been passed on since the last time. One that does not
// read its port is granted nothing: what it is told would only be queued.
func (f *far) grant() {
	if f.consumed < port.Lump || f.m.out.len() > patientOut {
		return
	}
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(f.consumed))
	f.m.say(port.Window, f.channel, n[:])
	f.granted, f.consumed = f.granted+f.consumed, 0
}

// input sends what the agent takes now, and returns how much that was.
func (f *far) input(b []byte) (done int) {
	if f.inputOver {
		return len(b)
	}
	for done < len(b) && f.room > 0 && f.m.out.len() < queueLimit {
		n := min(len(b)-done, f.room, port.MaxPayload)
		f.m.say(port.Stdin, f.channel, b[done:done+n])
		done, f.room = done+n, f.room-n
	}
	return done
}

func (f *far) endInput() {
	if !f.inputOver {
		f.inputOver = true
		f.m.say(port.CloseStdin, f.channel, nil)
	}
}

func (f *far) signal(sig int) error {
	if f.p.ended {
		return unix.ESRCH
	}
	if !f.m.offer(port.Signal, f.channel, []byte{byte(sig)}) {
		return unix.EAGAIN
	}
	return nil
}

// kill is a signal that must not be lost; it is said once.
func (f *far) kill() { f.m.say(port.Signal, f.channel, []byte{byte(unix.SIGKILL)}) }

func (f *far) resize(rows, cols uint16) {
	var b [4]byte
	binary.BigEndian.PutUint16(b[:], rows)
	binary.BigEndian.PutUint16(b[2:], cols)
	f.m.offer(port.Resize, f.channel, b[:])
}
