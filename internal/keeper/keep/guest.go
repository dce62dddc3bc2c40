package keep

import (
	"github.com/strata-project/strata/internal/vmagent/port"
)

// streamsDevice is QEMU's name of the streams' port in a system in which no agent is from
// the start.
const streamsDevice = "streams"

// alone tells that no agent is inside from the start.
func (m *machine) alone() bool { return m.k.spec.Machine != nil && m.k.spec.Machine.Alone }

// turned is that somebody inside has opened the streams' port, or closed it: an agent that
// was installed, that was started again, or that went with its system.
func (m *machine) turned(open bool) {
	m.lose()
	if m.streams < 0 {
		return
	}
	m.met, m.stale, m.in = false, 0, m.in[:0]
	m.out.drop(m.out.len())
	if open {
		m.number++
		m.say(port.Hello, 0, port.HelloPayload(m.number))
	}
}

// deaf gives up an agent that cannot be understood, until its system is started anew.
func (m *machine) deaf() {
	m.lose()
	m.met, m.in = false, m.in[:0]
	m.k.close(&m.streams)
}

// lose ends the programs that ran by an agent that is there no longer.
func (m *machine) lose() {
	for _, x := range append([]*execution(nil), m.k.execs...) {
		if x.far != nil {
			x.far.forget()
			x.lost()
		}
	}
}
