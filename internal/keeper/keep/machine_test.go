package keep

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// newTestMachine is a keeper whose port is no socket: frames are given to parse.
func newTestMachine(t testing.TB, at phase) *machine {
	k := &keeper{loop: &loop{ep: -1, entries: map[int]*entry{}}, daemon: -1, payload: -1, notify: -1, control: -1, agent: -1, phase: at}
	k.spec.StatusFile = "/nonexistent/status"
	k.spec.Machine = &wire.Machine{}
	k.main.init(k)
	m := &machine{k: k, streams: -1, events: -1, noise: -1, number: 7}
	k.machine = m
	m.console.init(k)
	m.open(&k.main, 0, true)
	m.in = make([]byte, 0, maxIn)
	return m
}

// come gives the machine bytes as its port would, cut after size.
func (m *machine) come(b []byte, size int) {
	for len(b) > 0 && m.broken == "" {
		n := min(size, len(b), cap(m.in)-len(m.in))
		m.in = append(m.in, b[:n]...)
		b = b[n:]
		m.parse()
	}
}

func met() []byte { return port.Append(nil, port.Hello, 0, port.HelloPayload(7)) }

func frame(t port.Type, channel uint32, payload ...byte) []byte {
	return port.Append(nil, t, channel, payload)
}

func TestAgentsThatBreakTheProtocolAreNoticed(t *testing.T) {
	started := append(met(), frame(port.Started, 0)...)
	full := func(n int) (b []byte) {
		for ; n > 0; n -= min(n, port.MaxPayload) {
			b = append(b, frame(port.Stdout, 0, make([]byte, min(n, port.MaxPayload))...)...)
		}
		return b
	}
	for what, row := range map[string]struct {
		says []byte
		word string // "": it is fine
	}{
		"output as far as it was granted":           {full(port.InitialWindow - port.Lump + 1), ""},
		"a window that was not used":                {frame(port.Window, 0, 0, 0, 0, 1), "takes more than it was sent"},
		"a window of all there is":                  {frame(port.Window, 0, 255, 255, 255, 255), "takes more than it was sent"},
		"a type that is none":                       {frame(99, 0), "unknown type"},
		"a frame that is too long":                  {[]byte{byte(port.Stdout), 0, 0, 0, 0, 0, 1, 0, 1}, "longer than"},
		"an exit of the wrong size":                 {frame(port.Exit, 0, 1), "does not fit"},
		"what a host says":                          {frame(port.Stdin, 0, 'x'), "only a host"},
		"another hello":                             {met(), "only a host"},
		"a channel that was never opened":           {frame(port.Stdout, 1, 'x'), "never opened"},
		"failed, of a program that runs":            {frame(port.Failed, 0, '{', '}'), "did not start"},
		"started again and again, but seldom":       {bytes.Repeat(frame(port.Started, 0), 100), ""},
		"started again and again":                   {bytes.Repeat(frame(port.Started, 0), 3*maxStrays), "floods"},
		"output of nothing, again and again":        {bytes.Repeat(frame(port.Stderr, 0), 3*maxStrays), "floods"},
		"windows of nothing, again and again":       {bytes.Repeat(frame(port.Window, 0, 0, 0, 0, 0), 3*maxStrays), "floods"},
		"output after the exit, which means little": {append(frame(port.Exit, 0, 0, 0, 0, 0, 0), frame(port.Stdout, 0, 'x')...), ""},
		"exits again and again":                     {bytes.Repeat(frame(port.Exit, 0, 0, 0, 0, 0, 0), 3*maxStrays), "floods"},
	} {
		for _, size := range []int{1, 7, 1000, 1 << 20} {
			m := newTestMachine(t, starting)
			m.come(append(bytes.Clone(started), row.says...), size)
			if (row.word == "") != (m.broken == "") || !strings.Contains(m.broken, row.word) {
				t.Errorf("%s, cut by %d: broken = %q", what, size, m.broken)
			}
		}
	}
}

func TestWhatComesBeforeAProgramStartsIsRefused(t *testing.T) {
	for what, says := range map[string][]byte{
		"output": frame(port.Stdout, 0, 'x'),
		"exit":   frame(port.Exit, 0, 0, 0, 0, 0, 0),
		"ready":  frame(port.Ready, 0),
		"window": frame(port.Window, 0, 0, 0, 0, 1),
	} {
		m := newTestMachine(t, starting)
		if m.come(append(met(), says...), 100); !strings.Contains(m.broken, "has not started") {
			t.Errorf("%s: broken = %q", what, m.broken)
		}
	}
}

func TestOutputBeyondTheWindowIsRefused(t *testing.T) {
	m := newTestMachine(t, starting)
	m.come(append(met(), frame(port.Started, 0)...), 1000)
	m.k.main.live = false // nobody grants anything
	for range port.InitialWindow / port.MaxPayload {
		m.come(frame(port.Stdout, 0, make([]byte, port.MaxPayload)...), 1<<20)
	}
	if m.broken != "" {
		t.Fatalf("what was granted is refused: %s", m.broken)
	}
	if m.come(frame(port.Stdout, 0, 'x'), 100); !strings.Contains(m.broken, "more than it was granted") {
		t.Errorf("broken = %q", m.broken)
	}
}

func TestAnAgentThatReadsNothingIsGrantedNothing(t *testing.T) {
	m := newTestMachine(t, starting)
	m.come(append(met(), frame(port.Started, 0)...), 1000)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	m.streams = pair[0]
	behind := patientOut + 1
	m.out.push(make([]byte, behind))
	for range port.InitialWindow / port.MaxPayload {
		m.come(frame(port.Stdout, 0, make([]byte, port.MaxPayload)...), 1<<20)
	}
	if f := m.channel(0); m.out.len() != behind || f.granted != 0 {
		t.Errorf("%d bytes more are queued, %d granted", m.out.len()-behind, f.granted)
	}
	for b := make([]byte, 64<<10); m.out.len() > 0; {
		m.flush()
		if _, err := unix.Read(pair[1], b); err != nil {
			t.Fatal(err)
		}
	}
	if f := m.channel(0); m.broken != "" || f.granted != port.InitialWindow {
		t.Errorf("once it reads again it is granted %d; %s", f.granted, m.broken)
	}
}

func TestTheAgentIsMetBehindWhatIsOld(t *testing.T) {
	old := append(frame(port.Stdout, 3, []byte("old")...), port.Append(nil, port.Hello, 0, port.HelloPayload(6))...)
	old = append(old, 1, 1, 1, port.Magic[0])
	for _, size := range []int{1, 5, 34, 1 << 20} {
		m := newTestMachine(t, starting)
		m.come(append(append(bytes.Clone(old), met()...), frame(port.Started, 0)...), size)
		if !m.met || m.broken != "" || m.k.phase != running {
			t.Errorf("cut by %d: met %v, broken %q, phase %v", size, m.met, m.broken, m.k.phase)
		}
	}
	m := newTestMachine(t, starting)
	if m.come(make([]byte, maxStale+maxIn), maxIn); !strings.Contains(m.broken, "no answer") {
		t.Errorf("an agent that never answers: broken = %q", m.broken)
	}
	m = newTestMachine(t, starting)
	other := met()
	other[port.HeaderSize+len(port.Magic)] = 9
	if m.come(other, 100); !strings.Contains(m.broken, "another version: 9") {
		t.Errorf("broken = %q", m.broken)
	}
}

func FuzzPort(f *testing.F) {
	f.Add(append(met(), frame(port.Started, 0)...), uint8(3), true)
	f.Add(append(append(met(), frame(port.Started, 0)...), frame(port.Stdout, 0, 'a', 'b')...), uint8(1), true)
	f.Add(append(append(met(), frame(port.Failed, 0, []byte(`{"kind":"missing","message":"\u001b[1m"}`)...)...), frame(port.Started, 1)...), uint8(9), false)
	f.Add(append(append(met(), frame(port.Started, 1)...), frame(port.Exit, 1, 0, 0, 1, 0, 1)...), uint8(200), true)
	f.Fuzz(func(t *testing.T, b []byte, cut uint8, runs bool) {
		at := starting
		if runs {
			at = running
		}
		var ends [2]struct {
			broken string
			told   int
			out    int
		}
		for i, size := range []int{int(cut) + 1, 1 << 20} {
			m := newTestMachine(t, at)
			x := &execution{report: -1, sync: -1, phase: execStarting, pid: 1}
			x.program.init(m.k)
			x.program.x, x.owned = x, true
			m.last = 1
			m.open(&x.program, 1, true)
			m.k.execs = append(m.k.execs, x)
			if runs {
				m.channel(0).begun = true
			}
			m.come(b, size)
			if len(m.in) > maxIn || m.out.len() > 0 {
				t.Errorf("%d bytes are kept, %d queued", len(m.in), m.out.len())
			}
			if m.k.told != nil {
				ends[i].told = 1 + *m.k.told
				if e := m.exitRecord(unix.WaitStatus(*m.k.told), true); e.Status < 0 || e.Status > 255 || e.Signal < 0 || e.Signal > 127 {
					t.Errorf("%+v", e)
				}
			}
			ends[i].broken = m.broken
			for _, f := range m.channels {
				if f.granted < 0 && m.broken == "" || f.room > port.InitialWindow || f.consumed > port.InitialWindow {
					t.Errorf("granted %d, consumed %d, room %d", f.granted, f.consumed, f.room)
				}
				ends[i].out += f.consumed
			}
		}
		if ends[0] != ends[1] {
			t.Errorf("cut or whole is not the same: %+v, %+v", ends[0], ends[1])
		}
	})
}

func TestQEMUsEventsAreReadHoweverTheyAreCut(t *testing.T) {
	text := []byte(`{"QMP": {"version": {}, "capabilities": ["oob"]}}` + "\r\n" + `{"return": {}}` + "\r\n" + `no json` + "\n\n" +
		`{"event": "RTC_CHANGE", "data": {"offset": ` + strings.Repeat(" ", 3*maxLine) + "}}\n" +
		`{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}` + "\r\n" +
		`{"event": "SHUTDOWN", "data": {"reason": "host-signal"}}` + "\n")
	for _, size := range []int{1, 10, 1000, bufferSize, 1 << 20} {
		m := newTestMachine(t, running)
		for rest := text; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			m.lines(rest[:min(size, len(rest))])
			if len(m.text) > maxLine {
				t.Fatalf("%d bytes of a line are kept", len(m.text))
			}
		}
		if m.reason != "guest-reset" || m.panics {
			t.Errorf("cut by %d: reason %q", size, m.reason)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}`+"\n"), uint8(3))
	f.Add([]byte(`{"event": "GUEST_PANICKED"}`+"\n{}\n"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		whole, parts := newTestMachine(t, running), newTestMachine(t, running)
		whole.lines(b)
		for rest := b; len(rest) > 0; {
			n := min(int(cut)+1, len(rest))
			parts.lines(rest[:n])
			rest = rest[n:]
		}
		if whole.reason != parts.reason || whole.panics != parts.panics {
			t.Errorf("cut or whole is not the same: %q %v, %q %v", whole.reason, whole.panics, parts.reason, parts.panics)
		}
		if len(whole.reason) > 256 || !plain(whole.reason) {
			t.Errorf("reason %q", whole.reason)
		}
	})
}

// plain tells whether a terminal would only show s.
func plain(s string) bool {
	for _, r := range s {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

func FuzzLastWords(f *testing.F) {
	f.Add([]byte("one\r\n\x1b[31mtwo\xff\n"), uint16(9))
	f.Fuzz(func(t *testing.T, b []byte, times uint16) {
		var l tail
		for range times % 300 {
			l.add(b)
		}
		if s := l.from("o"); len(s) > lastWords || strings.Count(s, "\n") >= maxLines || !plain(s) || (s == "") == l.has("o") {
			t.Errorf("%q", s)
		}
		if s := l.lines(); len(s) > lastWords || strings.Count(s, "\n") >= maxLines || !plain(s) || len(l.b) > lastWords {
			t.Errorf("%q", s)
		}
		if fault := bounded(&wire.Failure{Message: string(b)}); !plain(fault.Message) {
			t.Errorf("%q", fault.Message)
		}
	})
}

func TestHowAMachineEnds(t *testing.T) {
	const killed, failed = unix.WaitStatus(unix.SIGKILL), unix.WaitStatus(1 << 8)
	counter := t.TempDir() + "/oom"
	if err := os.WriteFile(counter, []byte("oom_kill 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := func(words string) func(*machine) { return func(m *machine) { m.shown.add([]byte(words)) } }
	for what, row := range map[string]struct {
		system bool
		reason string
		set    func(*machine)
		ws     unix.WaitStatus
		want   wire.ExitRecord
	}{
		"a system that switches itself off":           {system: true, reason: "guest-shutdown"},
		"a system that wants to start anew":           {system: true, reason: "guest-reset", want: wire.ExitRecord{Status: 129, Signal: 1}},
		"a system whose kernel panics without saying": {system: true, reason: "guest-reset", set: shown("Kernel panic - not syncing: x\n"), want: wire.ExitRecord{Crash: "its kernel panicked; the console's last lines:\nKernel panic - not syncing: x"}},
		"a system that says why it panics": {system: true, reason: "guest-panic", ws: killed, set: func(m *machine) {
			m.panics = true
			m.shown.add([]byte("before\r\n[ 1.2] Kernel panic - not syncing: why\r\n" + strings.Repeat("registers\r\n", 30)))
		}, want: wire.ExitRecord{Crash: "its kernel panicked; the console's last lines:\n[ 1.2] Kernel panic - not syncing: why" + strings.Repeat("\nregisters", 19)}},
		"a system that panics":                      {system: true, reason: "guest-panic", set: func(m *machine) { m.panics = true }, ws: killed, want: wire.ExitRecord{Crash: "its kernel panicked; the console is empty"}},
		"an app's system that switches itself off":  {reason: "guest-shutdown", want: wire.ExitRecord{Crash: "the system inside ended before its program; the console is empty"}},
		"an app's system that resets":               {reason: "guest-reset", set: shown("bye\r\n"), want: wire.ExitRecord{Crash: "the system inside reset the machine before its program ended; the console's last lines:\nbye"}},
		"a QEMU that is killed":                     {ws: killed, want: wire.ExitRecord{Crash: "QEMU was killed by signal 9"}},
		"a QEMU that crashes":                       {ws: unix.WaitStatus(unix.SIGSEGV), want: wire.ExitRecord{Status: 139, Signal: 11, Crash: "QEMU was killed by signal 11"}},
		"a QEMU that fails":                         {ws: failed, set: func(m *machine) { m.words.add([]byte("no disk\n")) }, want: wire.ExitRecord{Crash: "QEMU ended with exit status 1; it wrote: no disk"}},
		"a QEMU that is too large":                  {ws: killed, set: func(m *machine) { m.k.spec.OOM = wire.Counter{File: counter, Key: "oom_kill"} }, want: wire.ExitRecord{OOM: true, Crash: "QEMU used more memory of the host than the machine may have, and was killed"}},
		"a QEMU that is told to end":                {reason: "host-signal", want: wire.ExitRecord{Crash: "QEMU was told to end (host-signal)"}},
		"a system's agent that breaks the protocol": {system: true, reason: "guest-shutdown", set: func(m *machine) { m.fault("x") }, ws: killed, want: wire.ExitRecord{Crash: "the agent inside broke the protocol: x"}},
	} {
		m := newTestMachine(t, running)
		m.k.spec.System, m.reason = row.system, row.reason
		if row.set != nil {
			row.set(m)
		}
		if row.want.Crash != "" && row.want.Signal == 0 {
			row.want.Status, row.want.Signal = 137, 9
		}
		if got := m.exitRecord(row.ws, false); got != row.want {
			t.Errorf("%s:\n got %+v\nwant %+v", what, got, row.want)
		}
	}
	m := newTestMachine(t, running)
	m.panics, m.oom = true, true
	if got := m.exitRecord(killed, true); got != (wire.ExitRecord{Status: 137, Signal: 9, OOM: true}) {
		t.Errorf("the agent's word is not the last: %+v", got)
	}
}

func TestAProgramThatStartsTooLateIsEndedAndForgotten(t *testing.T) {
	for what, late := range map[string][]byte{
		"it fails":                  frame(port.Failed, 1, '{', '}'),
		"it starts, and ends":       append(frame(port.Started, 1), frame(port.Exit, 1, 0, 0, 0, 9, 0)...),
		"it writes much meanwhile":  bytes.Join([][]byte{frame(port.Started, 1), bytes.Repeat(frame(port.Stdout, 1, make([]byte, 1000)...), 1000), frame(port.Exit, 1, 0, 0, 0, 9, 0)}, nil),
		"its end is said once more": bytes.Join([][]byte{frame(port.Started, 1), frame(port.Exit, 1, 0, 0, 0, 9, 0), frame(port.Exit, 1, 0, 0, 0, 9, 0)}, nil),
	} {
		m := newTestMachine(t, starting)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[1])
		m.come(append(met(), frame(port.Started, 0)...), 100)
		if fault := m.execute(nil, wire.Exec{Process: wire.Process{Args: []string{"x"}, Stdin: true}}, pair[0]); fault != nil {
			t.Fatal(fault)
		}
		m.k.tick(time.Now().Add(2 * startWithin))
		if x := m.k.execs[0]; x.failure == nil || x.failure.Kind != "busy" {
			t.Fatalf("%s: it is not given up: %+v", what, x.failure)
		}
		if n, err := unix.Read(pair[1], make([]byte, 10)); n != 0 || err != nil {
			t.Errorf("%s: its client got %d bytes, %v", what, n, err)
		}
		if m.come(late, 1<<20); m.broken != "" || len(m.k.execs) != 0 || len(m.channels) != 1 {
			t.Errorf("%s: broken %q, %d execs, %d channels", what, m.broken, len(m.k.execs), len(m.channels))
		}
	}
}

// TestASpareIsOfferedToTheKernelAsWhatItBecomes takes one that the kernel was to choose
// before most others, for somebody with a guarantee.
func TestASpareIsOfferedToTheKernelAsWhatItBecomes(t *testing.T) {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	for want, victim := range map[string]int{"321\n": 321, string(own): 0} {
		payload := exec.Command("sleep", "1000")
		if err := payload.Start(); err != nil {
			t.Fatal(err)
		}
		defer payload.Wait()
		defer payload.Process.Kill()
		m := newTestMachine(t, starting)
		m.k.pid, m.k.spec.Payload.Victim = payload.Process.Pid, 500
		m.k.offer(m.k.pid)
		if fault := m.k.take(&wire.Taken{Victim: victim}, -1); fault != nil {
			t.Fatalf("%+v", fault)
		}
		path := "/proc/" + strconv.Itoa(m.k.pid) + "/oom_score_adj"
		if now, err := os.ReadFile(path); string(now) != want || err != nil {
			t.Errorf("taken with %d it has %q, %v; want %q", victim, now, err, want)
		}
	}
}
