package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
	"github.com/strata-project/strata/internal/vmagent/control/meeting"
	"github.com/strata-project/strata/internal/vmagent/port"
)

// This test's own program can take QEMU's place: it is given what QEMU is given,
// where QEMU would be, and is a machine with an agent as hostile as can be, or one
// that dies at a given moment.

const qemuName = "qemu-system-x86_64"

// impostor is a machine that is none.
type impostor struct {
	control         net.Listener
	streams         *os.File
	console, events *os.File
}

// impersonate is this program as QEMU; args are those after its name.
func impersonate(args []string) int {
	line := strings.Join(args, " ")
	switch {
	case line == "--version":
		fmt.Println("QEMU emulator version 9.9.0")
		return 0
	case line == "-M help":
		fmt.Println("microvm              microvm (i386)")
		return 0
	}
	mode := regexp.MustCompile(`guest=(\S+)`).FindStringSubmatch(line)
	if mode == nil {
		return 1 // asked for io_uring, for one
	}
	fd := func(id string) *os.File {
		n, _ := strconv.Atoi(regexp.MustCompile(`socket,id=` + id + `,fd=(\d+)`).FindStringSubmatch(line)[1])
		syscall.SetNonblock(n, true)
		return os.NewFile(uintptr(n), id)
	}
	m := &impostor{streams: fd("streams"), console: fd("console"), events: fd("events")}
	var err error
	if m.control, err = net.FileListener(fd("control")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "a warning of QEMU's own")
	time.AfterFunc(5*time.Minute, func() { os.Exit(9) }) // whatever becomes of the test
	modes[mode[1]](m)
	select {}
}

// killMe is what an impostor says at the moment when the test shall kill it. By itself
// it cannot: it is process 1 of its namespace.
const killMe = "kill me"

func (m *impostor) die() {
	m.say(killMe)
	select {}
}

// modes are what an impostor does, by the name of its guest.
var modes = map[string]func(*impostor){
	"dies-while-it-boots":   func(m *impostor) { m.die() },
	"dies-once-it-is-met":   func(m *impostor) { m.meet(); m.die() },
	"dies-before-it-runs":   func(m *impostor) { m.agent(m.die) },
	"dies-after-run":        func(m *impostor) { m.agent(nil); m.greet(); m.die() },
	"dies-while-it-runs":    func(m *impostor) { m.agent(nil); m.run(); m.die() },
	"ends-by-itself":        func(m *impostor) { os.Exit(3) },
	"is-silent":             func(m *impostor) { m.say("\x1b[2Jstuck in\r\nthe middle\r\n") },
	"never-answers":         func(m *impostor) { c, _ := m.control.Accept(); io.Copy(io.Discard, c) },
	"never-answers-run":     func(m *impostor) { m.say("mounting\r\n"); m.agent(func() { select {} }) },
	"floods-before-meeting": func(m *impostor) { c, _ := m.control.Accept(); flood(c, make([]byte, 1<<16)) },
	"answers-too-long": func(m *impostor) {
		c := m.meet()
		c.Read(make([]byte, 1))
		c.Write(response(1, 1<<30))
		flood(c, make([]byte, 1<<16))
	},
	"answers-others": func(m *impostor) {
		c := m.meet()
		c.Read(make([]byte, 1))
		flood(c, append(response(2001, 1<<16), make([]byte, 1<<16)...))
	},
	"floods-the-console": func(m *impostor) { m.agent(nil); m.run(); flood(m.console, bytes.Repeat([]byte("endless\r\n"), 1000)) },
	"floods-events":      func(m *impostor) { m.agent(nil); m.run(); flood(m.events, bytes.Repeat([]byte(`{"event":"X"`), 6000)) },
	"sends-too-long": func(m *impostor) {
		m.agent(nil)
		m.run()
		m.streams.Write([]byte{byte(port.Stdout), 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff})
	},
	"sends-for-others": func(m *impostor) { m.agent(nil); m.run(); m.frame(port.Stdout, 77, []byte("x")) },
	"sends-nothing-without-end": func(m *impostor) {
		m.agent(nil)
		m.run()
		flood(m.streams, port.Append(nil, port.Stdout, 0, nil))
	},
	"ends-before-it-starts": func(m *impostor) { m.agent(nil); m.greet(); m.frame(port.Exit, 0, make([]byte, 5)) },
	"commands-the-host":     func(m *impostor) { m.agent(nil); m.run(); m.frame(port.Exec, 1, []byte(`{"args":["sh"]}`)) },
}

func (m *impostor) say(text string) { m.console.WriteString(text) }

func flood(w io.Writer, b []byte) {
	for {
		if _, err := w.Write(b); err != nil {
			select {}
		}
	}
}

// response is the head of an answer as ttrpc has it. Source: ttrpc, PROTOCOL.md.
func response(stream uint32, size uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	return append(binary.BigEndian.AppendUint32(b, stream), 2, 0)
}

// meet answers the first host on the control port.
func (m *impostor) meet() net.Conn {
	c, _ := m.control.Accept()
	var heard []byte
	for b := make([]byte, 1<<10); ; {
		n, err := c.Read(b)
		if err != nil {
			select {}
		}
		heard = append(heard, b[:n]...)
		if number, _, ok := meeting.Find(heard); ok {
			c.Write(meeting.Append(nil, number))
			return c
		}
	}
}

// agent answers hosts as the real one does, after run where it is asked to.
func (m *impostor) agent(run func()) {
	asked := make(chan bool, 8)
	go func() {
		for {
			c, err := m.control.Accept()
			if err != nil {
				return
			}
			answer.NewServer(func(method string, _ []byte) (reply answer.Message, ok bool) {
				if method == "Run" {
					if run != nil {
						run()
					}
					asked <- true
				}
				return reply, true
			}).Serve(c)
			c.Close()
		}
	}()
	<-asked
}

// greet meets the keeper on the streams port.
func (m *impostor) greet() {
	b := make([]byte, port.HeaderSize+port.HelloSize)
	io.ReadFull(m.streams, b)
	m.streams.Write(b) // it has the number already
}

func (m *impostor) run() { m.greet(); m.frame(port.Started, 0, nil) }

func (m *impostor) frame(t port.Type, channel uint32, payload []byte) {
	m.streams.Write(port.Append(nil, t, channel, payload))
}

// stage puts this program in QEMU's place, and returns a driver for it.
func (r *root) stage(t *testing.T) *guest.Driver {
	t.Helper()
	dir := t.TempDir()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(own, filepath.Join(dir, qemuName)) != nil {
		text, err := os.ReadFile(own)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, qemuName), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return r.newDriver(t, func(o *guest.Options) { o.Patience = 20 * time.Second })
}

// execute kills p's machine once it asks for that.
func (r *root) execute(t *testing.T, p stratum.Plan) {
	go func() {
		for ; t.Context().Err() == nil; time.Sleep(2 * time.Millisecond) {
			asked := false
			logfile.Read(t.Context(), p.Console.Dir, logfile.Options{}, func(l logfile.Record) error {
				asked = asked || bytes.Contains(l.Data, []byte(killMe))
				return nil
			})
			if pid, ok := r.machine(p.ID); ok && asked {
				syscall.Kill(pid, syscall.SIGKILL)
				return
			}
		}
	}()
}

func TestAMachineThatDoesNotStartLeavesNothing(t *testing.T) {
	r := newRoot(t)
	d := r.stage(t)
	before := r.host(t)
	for mode, want := range map[string]struct {
		kind  fault.Kind
		words []string
	}{
		"dies-while-it-boots":   {fault.Unable, []string{"the machine ended before its program started", "QEMU was killed by signal 9"}},
		"dies-once-it-is-met":   {fault.Unable, []string{"the machine ended before its program started", "QEMU was killed by signal 9"}},
		"dies-before-it-runs":   {fault.Unable, []string{"the machine ended before its program started", "QEMU was killed by signal 9"}},
		"dies-after-run":        {fault.Unable, []string{"the machine ended before its program started", "QEMU was killed by signal 9"}},
		"ends-by-itself":        {fault.Unable, []string{"QEMU ended with exit status 3", "a warning of QEMU's own"}},
		"is-silent":             {fault.Busy, []string{"did not answer in time", "the console's last lines:\n?[2Jstuck in\nthe middle"}},
		"never-answers":         {fault.Busy, []string{"did not answer in time", "the console is empty"}},
		"never-answers-run":     {fault.Busy, []string{"did not answer in time", "the console's last lines:\nmounting"}},
		"floods-before-meeting": {fault.Unable, []string{"the agent floods its port"}},
		"answers-too-long":      {fault.Unable, []string{"the agent inside cannot be asked"}},
		"answers-others":        {fault.Unable, []string{"the agent inside cannot be asked"}},
		"ends-before-it-starts": {fault.Internal, []string{"the agent inside broke the protocol: it speaks of a program that has not started"}},
	} {
		t.Run(mode, func(t *testing.T) {
			p := r.sleeping(t)
			p.Name, p.Cold = mode, true
			began := time.Now()
			r.execute(t, p)
			live, err := d.Start(t.Context(), p, stratum.StartOptions{})
			if err == nil {
				live.Kill(context.Background())
				d.Clean(context.Background(), p.ID)
				t.Fatal("it was started")
			}
			if fault.KindOf(err) != want.kind {
				t.Errorf("the fault is %s; want %s", fault.KindOf(err), want.kind)
			}
			for _, words := range want.words {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("it says nothing of %q: %v", words, err)
				}
			}
			t.Logf("after %s: %v", time.Since(began), err)
			r.left(t, before)
		})
	}
}

func TestAMachineThatBreaksTheRulesIsACrash(t *testing.T) {
	r := newRoot(t)
	d := r.stage(t)
	before := r.host(t)
	const broke = "the agent inside broke the protocol: "
	for mode, words := range map[string]string{
		"dies-while-it-runs":        "QEMU was killed by signal 9; it wrote: a warning of QEMU's own",
		"sends-too-long":            broke + "port: frame is longer than 65536 bytes",
		"sends-for-others":          broke + "it speaks on a channel that was never opened",
		"sends-nothing-without-end": broke + "it floods the port with what means nothing",
		"commands-the-host":         broke + "it says what only a host says",
	} {
		t.Run(mode, func(t *testing.T) {
			p := r.sleeping(t)
			p.Name, p.Cold = mode, true
			r.execute(t, p)
			live, err := d.Start(t.Context(), p, stratum.StartOptions{})
			if err != nil { // it was as fast as that
				if !strings.Contains(err.Error(), words) {
					t.Errorf("the start failed with: %v", err)
				}
				r.left(t, before)
				return
			}
			t.Cleanup(func() { live.Kill(context.Background()) }) // it is over, but where the test fails
			if e := ended(t, live); e.Status != 137 || e.Signal != 9 || e.OOM || !strings.Contains(e.Crash, words) {
				t.Errorf("the run ended with %+v", e)
			}
			if written, err := d.Clean(t.Context(), p.ID); err != nil || written == nil || !strings.Contains(written.Crash, words) {
				t.Errorf("Clean = %+v, %v", written, err)
			}
			r.left(t, before)
		})
	}
}

// What a guest may do without end costs the host nothing that lasts, and others nothing.
func TestAMachineThatFloodsIsOnlyItself(t *testing.T) {
	r := newRoot(t)
	d := r.stage(t)
	before := r.host(t)
	for _, mode := range []string{"floods-the-console", "floods-events"} {
		t.Run(mode, func(t *testing.T) {
			p := r.sleeping(t)
			p.Name, p.Cold = mode, true
			p.Resources = api.Resources{CPUs: 500} // half a processor
			live, err := d.Start(t.Context(), p, stratum.StartOptions{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			if _, err := live.Stats(t.Context()); err != nil {
				t.Errorf("its agent cannot be asked: %v", err)
			}
			if kept := size(t, p.Console.Dir); kept > p.Console.Size*int64(p.Console.Files)+p.Console.Size/10 {
				t.Errorf("%d bytes are kept of the console", kept)
			}
			if rss := resident(t, live.KeeperPID()); rss > 32<<20 {
				t.Errorf("the keeper holds %d KiB", rss>>10)
			}
			if err := live.Signal(t.Context(), syscall.SIGTERM); err != nil {
				t.Errorf("the keeper does not answer: %v", err)
			}
			began := time.Now()
			if err := live.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			if e := ended(t, live); e.Signal != 9 || e.Crash != "" {
				t.Errorf("the run ended with %+v", e)
			}
			t.Logf("killed after %s", time.Since(began))
			if _, err := d.Clean(t.Context(), p.ID); err != nil {
				t.Error(err)
			}
			r.left(t, before)
		})
	}
}

func size(t *testing.T, dir string) (sum int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// resident is the memory of a process. Unit: bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64) // proc(5), statm
	return pages * int64(os.Getpagesize())
}
