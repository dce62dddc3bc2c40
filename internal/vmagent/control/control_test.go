package control_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
	"github.com/strata-project/strata/internal/vmagent/control/meeting"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// agent answers on one end of a pipe the way that handle says, and returns the other end.
func agent(t *testing.T, handle answer.Handler) net.Conn {
	t.Helper()
	here, there := pair(t)
	go answer.NewServer(handle).Serve(there)
	t.Cleanup(func() { here.Close(); there.Close() })
	return here
}

// pair returns two ends of a socket.
func pair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func dial(t *testing.T, conn net.Conn) *control.Client {
	t.Helper()
	c, err := control.New(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheAgentsAnswersAreUnderstood(t *testing.T) {
	var asked spec.Limits
	var grown int64
	c := dial(t, agent(t, func(method string, payload []byte) (m answer.Message, ok bool) {
		switch method {
		case "Info":
			m.Text(1, "v1\x1b[2J\xff")
			m.Int(4, 2)
			m.Text(5, "a: b")
			m.Text(5, "c: d")
		case "SetLimits":
			answer.Read(payload, func(field int, v uint64, _ []byte) {
				if field == 1 {
					asked.Memory = int64(v)
				} else {
					asked.PIDs = int64(v)
				}
			})
		case "GrowDisk":
			answer.Read(payload, func(_ int, v uint64, _ []byte) { grown = int64(v) })
		case "Stats":
			for i := range 11 {
				m.Int(2+i, int64(i)+1<<40)
			}
		case "Processes":
			var p answer.Message
			p.Int(1, 7)
			p.Text(6, "sh -c x")
			p.Int(7, 9)
			m.Bytes(2, p)
		case "Run":
			var f answer.Message
			f.Text(1, "missing")
			f.Text(2, "command")
			f.Text(3, "it is not there")
			f.Text(4, "look")
			m.Bytes(1, f)
		case "KernelLog":
			m.Bytes(2, []byte(strings.Repeat("x", 3<<20)))
		default:
			return nil, false
		}
		return m, true
	}))
	info, err := c.Info(t.Context())
	if err != nil || info.Version != "v1 [2J\ufffd" || info.State != control.State_RUNNING || len(info.Faults) != 2 || info.Faults[1] != "c: d" {
		t.Errorf("info: %v, %v", info, err)
	}
	if err := c.SetLimits(t.Context(), spec.Limits{Memory: 1 << 40, PIDs: 7}); err != nil || asked != (spec.Limits{Memory: 1 << 40, PIDs: 7}) {
		t.Errorf("limits: %+v, %v", asked, err)
	}
	if err := c.GrowDisk(t.Context(), 1<<41); err != nil || grown != 1<<41 {
		t.Errorf("the disk: %d, %v", grown, err)
	}
	if s, err := c.Stats(t.Context()); err != nil || s != (spec.Stats{CPU: 1 << 40, Memory: 1<<40 + 1, MemoryPeak: 1<<40 + 2, OOMKills: 1<<40 + 3, PIDs: 1<<40 + 4, MemoryHits: 1<<40 + 5, Swap: 1<<40 + 6, PIDsPeak: 1<<40 + 7, PIDsHits: 1<<40 + 8, DiskSize: 1<<40 + 9, DiskFree: 1<<40 + 10}) {
		t.Errorf("stats: %+v, %v", s, err)
	}
	if p, more, err := c.Processes(t.Context()); err != nil || more || len(p) != 1 || p[0].Pid != 7 || p[0].Command != "sh -c x" || p[0].Age != 9 {
		t.Errorf("processes: %v, %v", p, err)
	}
	err = c.Run(t.Context(), spec.Run{})
	if e := fault.All(err); fault.KindOf(err) != fault.Missing || len(e) != 1 || e[0].Field != "command" || e[0].Hint != "look" || e[0].Message != "it is not there" {
		t.Errorf("run: %v", err)
	}
	if text, err := c.KernelLog(t.Context()); err != nil || len(text) != 3<<20 {
		t.Errorf("log: %d bytes, %v", len(text), err)
	}
	if err := c.Freeze(t.Context()); fault.KindOf(err) != fault.Unable {
		t.Errorf("a method that the agent has not: %v", err)
	}
}

func TestAnAnswerThatIsTooLongIsRefused(t *testing.T) {
	c := dial(t, agent(t, func(string, []byte) (m answer.Message, ok bool) {
		m.Bytes(2, make([]byte, 5<<20))
		return m, true
	}))
	if _, err := c.KernelLog(t.Context()); fault.KindOf(err) != fault.Unable {
		t.Errorf("got %v", err)
	}
}

func TestWhatAnAgentRefusesWithIsBoundedAndPlain(t *testing.T) {
	for _, code := range []int64{2, 12} { // unknown, unimplemented
		var status, refusal answer.Message
		status.Int(1, code)
		status.Text(2, "\x1b]0;owned\a"+strings.Repeat("long ", 100<<10))
		refusal.Bytes(1, status)
		frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(refusal))), 0, 0, 0, 1, 2, 0)
		c, err := again(t.Context(), t, append(frame, refusal...), false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Info(t.Context())
		if fault.KindOf(err) != fault.Unable || !strings.Contains(err.Error(), "owned") {
			t.Errorf("code %d: %.100v", code, err)
		}
		fitToPrint(t, err)
	}
}

// fitToPrint checks that an error's words are bounded, and nothing that a terminal acts on.
func fitToPrint(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); len(text) > 16<<10 || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("it fails with %d bytes: %.100q", len(text), text)
	}
}

func TestAnAnswerOfManyPartsCostsNoMoreThanItsBytes(t *testing.T) {
	processes := func(c *control.Client) error { _, _, err := c.Processes(t.Context()); return err }
	info := func(c *control.Client) error { _, err := c.Info(t.Context()); return err }
	for what, row := range map[string]struct {
		outer int
		part  byte
		ask   func(*control.Client) error
	}{
		"processes":           {2, 0x12, processes},
		"faults":              {2, 0x2a, info},
		"details of a status": {1, 0x1a, info},
	} {
		t.Run(what, func(t *testing.T) {
			var m answer.Message
			m.Bytes(row.outer, bytes.Repeat([]byte{row.part, 0}, 2<<20-64))
			c, err := again(t.Context(), t, append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), append([]byte{0, 0, 0, 1, 2, 0}, m...)...), false)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := row.ask(c); fault.KindOf(err) != fault.Unable {
				t.Errorf("it is taken: %v", err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("4 MiB of an agent's took %d MiB", n>>20)
			}
		})
	}
}

func TestTheLongestListIsTaken(t *testing.T) {
	c := dial(t, agent(t, func(string, []byte) (m answer.Message, ok bool) {
		for i := range control.MaxProcesses {
			var p answer.Message
			p.Int(1, int64(i+1))
			p.Text(6, "sh")
			m.Bytes(2, p)
		}
		m.Bool(3, true)
		return m, true
	}))
	if list, more, err := c.Processes(t.Context()); err != nil || !more || len(list) != control.MaxProcesses {
		t.Errorf("%d processes, %v, %v", len(list), more, err)
	}
}

func TestAnAgentThatNeverAnswersIsNotWaitedFor(t *testing.T) {
	here, there := pair(t)
	defer there.Close()
	go func() {
		for b := make([]byte, 100); ; {
			if _, err := there.Read(b); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := control.New(ctx, here); fault.KindOf(err) != fault.Busy {
		t.Errorf("meeting: %v", err)
	}
	hang := make(chan struct{})
	defer close(hang)
	c := dial(t, agent(t, func(string, []byte) (answer.Message, bool) { <-hang; return nil, true }))
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Info(ctx); fault.KindOf(err) != fault.Busy {
		t.Errorf("call: %v", err)
	}
}

func TestAnAgentThatFloodsIsGivenUp(t *testing.T) {
	here, there := pair(t)
	defer there.Close()
	go there.Read(make([]byte, meeting.Size))
	go func() {
		for b := make([]byte, 1<<20); ; {
			if _, err := there.Write(b); err != nil {
				return
			}
		}
	}()
	if _, err := control.New(t.Context(), here); fault.KindOf(err) != fault.Unable {
		t.Errorf("got %v", err)
	}
}

func TestAnAgentThatFloodsALaterSessionLosesIt(t *testing.T) {
	here, there := pair(t)
	defer there.Close()
	met, flooded := make(chan struct{}), make(chan struct{})
	go func() {
		b := make([]byte, meeting.Size)
		io.ReadFull(there, b)
		there.Write(b) // it has the number already
		<-met
		// Answers to a request that nobody made.
		answer := append([]byte{0, 0, 4, 0, 0, 0, 7, 0xd1, 2, 0}, make([]byte, 1<<10)...)
		for many := bytes.Repeat(answer, 100); ; {
			if _, err := there.Write(many); err != nil {
				close(flooded)
				return
			}
		}
	}()
	c, err := control.New(t.Context(), here)
	if err != nil {
		t.Fatal(err)
	}
	close(met)
	select {
	case <-flooded:
	case <-time.After(2 * time.Minute):
		t.Fatal("it goes on for ever")
	}
	if _, err := c.Info(t.Context()); !control.Broken(err) {
		t.Errorf("its session goes on: %v", err)
	}
}

func TestAnotherHostMeetsTheAgentInTheMiddleOfARequest(t *testing.T) {
	here, there := pair(t)
	defer here.Close()
	release := make(chan struct{})
	go answer.NewServer(func(method string, _ []byte) (m answer.Message, ok bool) {
		if method == "Stats" {
			<-release
		}
		m.Int(4, 1)
		return m, true
	}).Serve(there)
	// The first host asks for what takes long, begins to ask for more, and is gone.
	first := meeting.Append(nil, 1)
	var request answer.Message
	request.Bytes(1, []byte(answer.Service))
	request.Bytes(2, []byte("Stats"))
	frame := append([]byte{0, 0, 0, byte(len(request)), 0, 0, 0, 1, 1, 0}, request...)
	go here.Write(append(append(first, frame...), frame[:15]...))
	if _, err := here.Read(make([]byte, meeting.Size)); err != nil {
		t.Fatal(err)
	}
	c := dial(t, here)
	close(release)
	for range 3 {
		if info, err := c.Info(t.Context()); err != nil || info.State != control.State_WAITING {
			t.Errorf("info: %v, %v", info, err)
		}
	}
}

// FuzzServe: nothing that a host sends makes the agent panic, or deaf to the next host.
func FuzzServe(f *testing.F) {
	var request answer.Message
	request.Bytes(1, []byte(answer.Service))
	request.Bytes(2, []byte("Info"))
	frame := append([]byte{0, 0, 0, byte(len(request)), 0, 0, 0, 1, 1, 0}, request...)
	f.Add(append(meeting.Append(nil, 1), frame...))
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, hostile []byte) {
		here, there := pair(t)
		defer here.Close()
		go answer.NewServer(func(string, []byte) (m answer.Message, ok bool) { m.Int(4, 2); return m, true }).Serve(there)
		drained := make(chan struct{})
		go func() { io.Copy(io.Discard, here); close(drained) }()
		here.Write(hostile)
		here.SetReadDeadline(time.Unix(1, 0))
		<-drained
		here.SetReadDeadline(time.Time{})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := control.New(ctx, here)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := c.Info(ctx); err != nil || info.State != control.State_RUNNING {
			t.Fatalf("info: %v, %v", info, err)
		}
	})
}

// FuzzMeeting: nothing that an agent sends makes the host panic, wait for ever, or
// take it for a meeting.
func FuzzMeeting(f *testing.F) {
	f.Add(meeting.Append(nil, 1))
	f.Add([]byte(meeting.Magic))
	f.Fuzz(func(t *testing.T, hostile []byte) {
		here, there := pair(t)
		go func() {
			there.Read(make([]byte, meeting.Size))
			there.Write(hostile)
			there.Close()
		}()
		if _, err := control.New(t.Context(), here); err == nil {
			t.Fatal("met")
		}
	})
}

// FuzzAnswers: nothing that an agent answers makes the host panic or wait for ever,
// and what comes of it is bounded and fit to be printed.
func FuzzAnswers(f *testing.F) {
	answer := func(b ...byte) []byte { return append([]byte{0, 0, 0, byte(len(b)), 0, 0, 0, 1, 2, 0}, b...) }
	f.Add(answer(0x12, 4, 0x0a, 2, 'v', 0x1b))                        // a version
	f.Add(answer(0x0a, 4, 0x08, 5, 0x12, 0))                          // a status
	f.Add(answer(0x0a, 6, 0x08, 12, 0x12, 2, 'a', 0x1b))              // another one, with words
	f.Add(answer(0x12, 9, 0x12, 7, 0x08, 1, 0x32, 3, 'a', 0x1b, 'b')) // a process
	f.Add(append(answer(0x12, 0), answer(0x12, 0)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 2, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 3, 1})
	f.Fuzz(func(t *testing.T, hostile []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := again(ctx, t, hostile, true)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list, _, err := c.Processes(ctx) // the first request, so that what is hostile may be its answer
		if ctx.Err() != nil {
			t.Fatal("it waits for ever")
		}
		if len(list) > control.MaxProcesses {
			t.Errorf("%d processes", len(list))
		}
		for _, p := range list {
			if strings.ContainsFunc(p.User+p.Command, unicode.IsControl) || len(p.Command) > 1<<10 || p.Cpu < 0 || p.Memory < 0 || p.Age < 0 {
				t.Errorf("%v", p)
			}
		}
		if err == nil {
			return
		}
		fitToPrint(t, err)
		if c, err = again(ctx, t, hostile, true); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		info, err := c.Info(ctx)
		if ctx.Err() != nil {
			t.Fatal("it waits for ever")
		}
		if err != nil {
			fitToPrint(t, err)
			return
		}
		for _, text := range append(info.Faults, info.Version, info.Kernel) {
			if strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("%q", text)
			}
		}
	})
}

// again meets an agent that answers the first request with hostile, whatever it is, and
// leaves then or stays: of an answer and an end that come together either may be seen.
func again(ctx context.Context, t *testing.T, hostile []byte, leaves bool) (*control.Client, error) {
	here, there := pair(t)
	go func() {
		for b := make([]byte, 1<<10); ; {
			n, err := there.Read(b)
			number, _, ok := meeting.Find(b[:n])
			if err != nil || !ok {
				break // a request, which comes after it was met
			}
			there.Write(meeting.Append(nil, number))
		}
		there.Write(hostile)
		if leaves {
			there.Close()
		}
	}()
	return control.New(ctx, here)
}
