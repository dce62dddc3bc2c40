package keep

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// Frames that mean nothing come at times, since the two directions overtake one
// another: so many of them within so long are a flood, and no agent's.
const (
	maxStrays   = 4096
	straysAfter = 10 * time.Second
)

// machineEndGrace is endGrace where the payload is QEMU: the agent inside writes
// the disk out first. Source: vmagent, freezePatience, 20 s.
const machineEndGrace = 30 * time.Second

// fault ends a machine whose agent broke the protocol.
func (m *machine) fault(how string) {
	if m.alone() {
		m.deaf() // the system was there before its agent, and stays
		return
	}
	m.fail("the agent inside broke the protocol: " + how)
}

// fail ends a machine that cannot go on, and notes why.
func (m *machine) fail(why string) {
	if m.broken == "" {
		m.broken = why
		m.k.kill()
	}
}

// hear acts on one frame. Its payload stands behind room for the header of a
// client's frame.
func (m *machine) hear(h port.Header, frame []byte) {
	f := m.channel(h.Channel)
	payload := frame[port.HeaderSize:]
	switch h.Type {
	case port.Stdout, port.Stderr, port.Window, port.Started, port.Failed, port.Exit, port.Ready, port.Over:
	default:
		m.fault("it says what only a host says")
		return
	}
	switch {
	case h.Channel > m.last:
		m.fault("it speaks on a channel that was never opened")
		return
	case h.Type == port.Over && h.Channel == 0 && m.k.told != nil:
		m.k.kill() // the system would only switch itself off
		return
	case f == nil, h.Type == port.Over:
		m.stray()
		return
	case !f.begun && h.Type != port.Started && h.Type != port.Failed:
		m.fault("it speaks of a program that has not started")
		return
	}
	switch h.Type {
	case port.Stdout:
		f.output(&f.p.out[0], frame, h.Length)
	case port.Stderr:
		f.output(&f.p.out[1], frame, h.Length)
	case port.Window:
		f.widen(binary.BigEndian.Uint32(payload))
	case port.Started:
		m.started(f)
	case port.Failed:
		m.failed(f, payload)
	case port.Exit:
		m.exited(f, unix.WaitStatus(binary.BigEndian.Uint32(payload)), payload[4] == 1)
	case port.Ready:
		m.up(f)
	}
}

// stray counts frames that mean nothing.
func (m *machine) stray() {
	if m.strays++; m.strays < maxStrays {
		return
	}
	now := time.Now()
	if now.Sub(m.strayed) < straysAfter {
		m.fault("it floods the port with what means nothing")
	}
	m.strays, m.strayed = 0, now
}

func (m *machine) up(f *far) {
	if f.channel != 0 || m.k.ready {
		m.stray()
		return
	}
	m.k.ready = true
	m.k.tell()
}

func (m *machine) started(f *far) {
	switch {
	case f.begun:
		m.stray()
	case f.p.x != nil:
		f.begun = true
		f.p.x.runs()
	default:
		f.begun = true
		m.start()
	}
}

// start is the start of the run, once the daemon has said go and the agent Started.
func (m *machine) start() {
	if f := m.channel(0); m.k.phase == starting && f != nil && f.begun {
		m.k.begin()
	}
}

func (m *machine) failed(f *far, payload []byte) {
	if f.begun {
		m.fault("it says of a program that runs that it did not start")
		return
	}
	var failure wire.Failure
	if json.Unmarshal(payload, &failure) != nil {
		failure = wire.Failure{Kind: "internal", Message: "the agent inside does not say why it failed"}
	}
	m.k.litter = true
	if x := f.p.x; x != nil {
		x.fail(bounded(&failure))
		x.pid = 0
		f.forget()
		x.remove()
		return
	}
	m.say(port.Taken, 0, nil)
	m.k.fail(bounded(&failure))
}

func (m *machine) exited(f *far, ws unix.WaitStatus, oom bool) {
	f.forget() // it is the channel's last frame
	if x := f.p.x; x != nil {
		x.ended(ws, oom)
		return
	}
	status := int(ws)
	m.k.told, m.oom = &status, oom
	m.k.deadline = time.Now().Add(machineEndGrace)
	m.say(port.Taken, 0, nil)
	m.k.tell()
}

// output passes on what a program has written; frame holds it behind a header.
func (f *far) output(s *source, frame []byte, n int) {
	if n == 0 {
		f.m.stray()
		return
	}
	if f.granted -= n; f.granted < 0 {
		f.m.fault("it sends more than it was granted")
		return
	}
	f.consumed += n
	if f.p.ended { // nobody wants it any more
		f.p.pace.spend(n, time.Now())
	} else {
		s.deliver(frame[port.HeaderSize-stream.HeaderSize:], n)
	}
	f.p.refresh()
}

// widen takes n more bytes of input to be welcome.
func (f *far) widen(n uint32) {
	if n == 0 {
		f.m.stray()
		return
	}
	if uint64(f.room)+uint64(n) > port.InitialWindow {
		f.m.fault("it takes more than it was sent")
		return
	}
	f.room += int(n)
	f.p.in.flush()
	f.p.refresh()
}
