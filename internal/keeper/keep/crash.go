package keep

import (
	"encoding/json"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// maxLine bounds a line of QEMU's monitor. Unit: bytes.
const maxLine = 64 << 10

// eventSocket is a monitor of QEMU's, of which only the events are read.
type eventSocket struct{ m *machine }

func (s eventSocket) ready(uint32) {
	m := s.m
	if m.events < 0 {
		return
	}
	b := m.k.buffer()
	n, err := receive(m.events, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if err != nil || n == 0 || len(m.text)+n > maxLine {
		m.k.close(&m.events)
		return
	}
	m.k.litter = true
	m.text = append(m.text, b[:n]...)
	for {
		i := indexByte(m.text, '\n')
		if i < 0 {
			break
		}
		m.event(m.text[:i])
		m.text = m.text[i+1:]
	}
	if len(m.text) == 0 {
		m.text = nil
	}
}

// event notes how the machine ends. Source: QEMU, qapi/run-state.json.
func (m *machine) event(line []byte) {
	var e struct {
		Event string `json:"event"`
		Data  struct {
			Reason string `json:"reason"`
		} `json:"data"`
	}
	if json.Unmarshal(line, &e) != nil {
		return
	}
	switch e.Event {
	case "SHUTDOWN":
		if m.reason == "" {
			m.reason = cut(e.Data.Reason, 64)
		}
	case "GUEST_PANICKED":
		if !m.panics {
			m.panics = true
			m.k.kill() // what the console said stands in its socket
		}
	}
}

// failure says why a machine ended before its program started.
func (m *machine) failure(ws unix.WaitStatus) *wire.Failure {
	f := &wire.Failure{Kind: "unable", Message: "the machine ended before its program started: " + m.why(ws)}
	if m.broken != "" {
		f.Kind = "internal"
	}
	return f
}

// why says how the machine ended, with the last words of who has any.
func (m *machine) why(ws unix.WaitStatus) string {
	switch {
	case m.broken != "":
		return "the agent inside broke the protocol: " + m.broken
	case m.panics:
		return "its kernel panicked; the console's last lines:\n" + m.shown.lines()
	case m.reason == "guest-reset":
		return "its kernel reset it, as one does that panics; the console's last lines:\n" + m.shown.lines()
	case m.reason == "guest-shutdown":
		return "it switched itself off"
	}
	why := "QEMU ended by " + describe(ws)
	if words := m.words.lines(); words != "" {
		why += "; it wrote: " + words
	}
	return why
}

// exitRecord is how the run ended; told is set where the agent said so.
func (m *machine) exitRecord(ws unix.WaitStatus, told bool) wire.ExitRecord {
	if told {
		e := statusOf(ws)
		e.OOM = m.oom
		return e
	}
	if m.k.spec.System && m.broken == "" && !m.panics {
		switch m.reason {
		case "guest-shutdown":
			return wire.ExitRecord{}
		case "guest-reset":
			// As an init in a zone that wants to be started again.
			return wire.ExitRecord{Status: 128 + int(unix.SIGHUP), Signal: int(unix.SIGHUP)}
		}
	}
	e := statusOf(ws)
	if e.Signal == 0 { // QEMU's own status says nothing about what was inside
		e = wire.ExitRecord{Status: 128 + int(unix.SIGKILL), Signal: int(unix.SIGKILL)}
	}
	e.Crash = m.why(ws)
	return e
}

// tail keeps the last words of a stream. The zero value is empty.
type tail struct{ b []byte }

func (t *tail) add(b []byte) {
	if len(b) >= lastWords {
		t.b = append(t.b[:0], b[len(b)-lastWords:]...)
		return
	}
	if over := len(t.b) + len(b) - lastWords; over > 0 {
		t.b = t.b[:copy(t.b, t.b[over:])]
	}
	t.b = append(t.b, b...)
}

// maxLines is how many of the last lines are shown.
const maxLines = 20

// lines returns the last lines, without what a terminal would act on.
func (t *tail) lines() string {
	out := make([]byte, 0, len(t.b))
	for _, c := range t.b {
		switch {
		case c == '\n' || c >= ' ' && c < 0x7f:
			out = append(out, c)
		case c == '\t':
			out = append(out, ' ')
		case c != '\r':
			out = append(out, '?')
		}
	}
	for len(out) > 0 && (out[len(out)-1] == '\n' || out[len(out)-1] == ' ') {
		out = out[:len(out)-1]
	}
	for i, n := len(out)-1, 0; i >= 0; i-- {
		if out[i] == '\n' {
			if n++; n == maxLines {
				return string(out[i+1:])
			}
		}
	}
	return string(out)
}
