package keep

import (
	"encoding/json"
	"time"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// maxLine bounds a line of QEMU's monitor. Unit: bytes.
const maxLine = 64 << 10

// eventSocket is a monitor of QEMU's, for its events.
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
	if err != nil || n == 0 {
		m.k.close(&m.events)
		return
	}
	m.k.litter = true
	m.lines(b[:n])
}

// lines takes the monitor's output apart, however it is cut.
func (m *machine) lines(b []byte) {
	for len(b) > 0 {
		i := indexByte(b, '\n')
		if i < 0 {
			break
		}
		switch {
		case m.long:
		case len(m.text) > 0:
			m.event(append(m.text, b[:i]...))
		default:
			m.event(b[:i])
		}
		m.text, m.long, b = nil, false, b[i+1:]
	}
	if len(m.text)+len(b) > maxLine {
		m.text, m.long = nil, true
	}
	if !m.long && len(b) > 0 {
		m.text = append(m.text, b...)
	}
}

// panicGrace is how long QEMU has to end by itself after a panic, so that the
// console's last words are there.
const panicGrace = 200 * time.Millisecond

// event notes how the machine ends, and what it stands still for. Source: QEMU, qapi/run-state.json.
func (m *machine) event(line []byte) {
	var e struct {
		Event string `json:"event"`
		Data  struct {
			Reason string `json:"reason"`
			ID     string `json:"id"`
			Open   bool   `json:"open"`
			Action string `json:"action"`
		} `json:"data"`
		Return struct {
			Status string `json:"status"`
		} `json:"return"`
	}
	if len(line) == 0 || json.Unmarshal(line, &e) != nil {
		return
	}
	switch e.Event {
	case "":
		m.state(e.Return.Status)
	case "BLOCK_IO_ERROR":
		if e.Data.Action == "stop" {
			m.found(true)
		}
	case "RESUME":
		m.found(false)
	case "SHUTDOWN":
		if m.reason == "" {
			m.reason = printable(cut(e.Data.Reason, 64))
		}
	case "VSERPORT_CHANGE":
		if e.Data.ID == streamsDevice && m.alone() {
			m.turned(e.Data.Open)
		}
	case "GUEST_PANICKED":
		if !m.panics {
			m.panics = true
			m.k.deadline = time.Now().Add(panicGrace)
		}
	}
}

// failure says why a machine ended before its program started.
func (m *machine) failure(ws unix.WaitStatus) *wire.Failure {
	f := &wire.Failure{Kind: "unable", Message: "the machine ended before its program started: " + m.why(ws)}
	if !m.met && m.reason == "guest-shutdown" {
		f.Message += "\nits agent was never heard"
	}
	if m.broken != "" {
		f.Kind = "internal"
	}
	return f
}

// panicLine is in the line that a panic begins with. Source: Linux, kernel/panic.c.
const panicLine = "Kernel panic - not syncing"

// panicked tells whether the machine's kernel did. One that has no device to tell
// it by resets the machine, as one that was asked to start anew does, but leaves
// word on the console.
func (m *machine) panicked() bool {
	return m.panics || m.reason == "guest-panic" || m.reason == "guest-reset" && m.shown.has(panicLine)
}

// why says how the machine ended, with the last words of who has any.
func (m *machine) why(ws unix.WaitStatus) string {
	switch {
	case m.broken != "":
		return m.broken
	case m.panicked():
		return "its kernel panicked" + m.panicWords()
	case m.reason == "guest-reset":
		return "the system inside reset the machine before its program ended" + m.consoleWords()
	case m.reason == "guest-shutdown":
		return "the system inside ended before its program" + m.consoleWords()
	case m.reason != "" && !ws.Signaled():
		return "QEMU was told to end (" + m.reason + ")"
	}
	if m.tooLarge(ws) {
		return "QEMU used more memory of the host than the machine may have, and was killed"
	}
	return m.withWords("QEMU " + ended(ws))
}

// tooLarge tells whether the host's kernel killed QEMU for want of memory.
func (m *machine) tooLarge(ws unix.WaitStatus) bool {
	n, ok := readCounter(m.k.spec.OOM)
	return ok && n > m.k.oomBase && ws.Signaled() && ws.Signal() == unix.SIGKILL
}

// withWords adds what QEMU, or who is beside it, wrote last.
func (m *machine) withWords(why string) string {
	if words := m.words.lines(); words != "" {
		why += "; it wrote: " + words
	}
	return why
}

func (m *machine) consoleWords() string {
	if words := m.shown.lines(); words != "" {
		return "; the console's last lines:\n" + words
	}
	return "; the console is empty"
}

// panicWords are the console's last words, or those from the panic on where its
// registers and stack would leave no room for the reason.
func (m *machine) panicWords() string {
	last := tail{b: []byte(m.shown.lines())}
	if words := m.shown.from(panicLine); words != "" && !last.has(panicLine) {
		return "; the console's last lines:\n" + words
	}
	return m.consoleWords()
}

// exitRecord is how the run ended; told is set where the agent said so.
func (m *machine) exitRecord(ws unix.WaitStatus, told bool) wire.ExitRecord {
	if told {
		e := statusOf(ws)
		e.OOM = m.oom
		return e
	}
	if m.k.spec.System && m.broken == "" && !m.panicked() {
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
	e.OOM = m.broken == "" && !m.panicked() && m.tooLarge(ws)
	return e
}

// lastWords is how much is kept of what QEMU and the console said last. Unit: bytes.
const lastWords = 4 << 10

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

func (t *tail) has(word string) bool {
	for i := 0; i+len(word) <= len(t.b); i++ {
		if string(t.b[i:i+len(word)]) == word {
			return true
		}
	}
	return false
}

// maxLines is how many of the last lines are shown.
const maxLines = 20

// lines returns the last lines, without what a terminal would act on.
func (t *tail) lines() string {
	out := t.plain()
	for i, n := len(out)-1, 0; i >= 0; i-- {
		if out[i] == '\n' {
			if n++; n == maxLines {
				return string(out[i+1:])
			}
		}
	}
	return string(out)
}

// from returns the last line with word in it, and what comes after that, as lines
// does; "" where there is none.
func (t *tail) from(word string) string {
	out := t.plain()
	for i := len(out) - len(word); i >= 0; i-- {
		if string(out[i:i+len(word)]) != word {
			continue
		}
		for i > 0 && out[i-1] != '\n' {
			i--
		}
		for end, n := i, 0; end < len(out); end++ {
			if out[end] == '\n' {
				if n++; n == maxLines {
					return string(out[i:end])
				}
			}
		}
		return string(out[i:])
	}
	return ""
}

// plain is what is kept, without what a terminal would act on.
func (t *tail) plain() []byte {
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
	return out
}
