package keep

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/enter"
	"github.com/strata-project/strata/internal/require"
	"golang.org/x/sys/unix"
)

// heard is what a program was told by frames.
type heard struct {
	in      bytes.Buffer
	ends    int
	size    [2]uint16
	signals []int
}

func (h *heard) input(b []byte)              { h.in.Write(b) }
func (h *heard) end()                        { h.ends++ }
func (h *heard) resize(rows, columns uint16) { h.size = [2]uint16{rows, columns} }
func (h *heard) signal(sig int)              { h.signals = append(h.signals, sig) }

func TestFramesAreReadHoweverTheyAreCut(t *testing.T) {
	var wire bytes.Buffer
	data := bytes.Repeat([]byte("abc"), 50000)
	stream.Write(&wire, stream.Stdin, data)
	stream.Write(&wire, stream.Resize, stream.ResizePayload(3, 4))
	stream.Write(&wire, stream.Signal, []byte{15})
	stream.Write(&wire, stream.CloseStdin, nil)
	for _, size := range []int{1, 3, 5, 6, 1000, 1 << 20} {
		var f frames
		h := &heard{}
		for rest := wire.Bytes(); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if err := f.parse(rest[:min(size, len(rest))], h); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(h.in.Bytes(), data) || h.ends != 1 || h.size != [2]uint16{3, 4} || len(h.signals) != 1 || h.signals[0] != 15 {
			t.Errorf("cut by %d: %d bytes, %d ends, %v, %v", size, h.in.Len(), h.ends, h.size, h.signals)
		}
	}
}

func TestFramesThatNoClientMaySendAreRefused(t *testing.T) {
	for what, b := range map[string][]byte{
		"output":                   {byte(stream.Stdout), 0, 0, 0, 0},
		"an exit":                  {byte(stream.Exit), 0, 0, 0, 3},
		"an unknown type":          {99, 0, 0, 0, 0},
		"a frame that is too long": {byte(stream.Stdin), 0, 1, 0, 1},
		"a signal without number":  {byte(stream.Signal), 0, 0, 0, 0},
		"an end with a payload":    {byte(stream.CloseStdin), 0, 0, 0, 1},
	} {
		var f frames
		if err := f.parse(b, &heard{}); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 'x', 4, 0, 0, 0, 1, 9}, uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		whole, parts := &heard{}, &heard{}
		var one, many frames
		err := one.parse(b, whole)
		var perr error
		for rest := b; len(rest) > 0 && perr == nil; {
			n := min(int(cut)+1, len(rest))
			perr = many.parse(rest[:n], parts)
			rest = rest[n:]
		}
		if (err == nil) != (perr == nil) || !bytes.Equal(whole.in.Bytes(), parts.in.Bytes()) || whole.ends != parts.ends {
			t.Errorf("cut or whole is not the same: %v, %v", err, perr)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"op":"exec","exec":{"process":{"args":["sh"]}}}`))
	f.Add([]byte(`{"op":"signal","signal":15}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, fault := parseRequest(b)
		if fault != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, fault := parseRequest(again); fault != nil {
			t.Errorf("what was taken is refused when it comes again: %+v", fault)
		}
	})
}

func FuzzHear(f *testing.F) {
	f.Add([]byte(`{"type":"failed","fault":{"kind":"missing","message":"x"}}`), uint8(1))
	f.Add([]byte(`{"type":"ended","status":256}`), uint8(2))
	f.Add([]byte(`{"type":"started"}`), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, at uint8) {
		m, ok := parseMessage(b)
		if !ok {
			return
		}
		k := &keeper{loop: &loop{ep: -1, entries: map[int]*entry{}}, daemon: -1, payload: -1, notify: -1, control: -1, agent: -1, phase: phase(at % 4)}
		k.spec.StatusFile = t.TempDir() + "/status.json"
		k.main.init(k)
		k.hear(m, -1)
		if k.told != nil {
			if e := k.exitRecord(unix.WaitStatus(*k.told)); e.Status < 0 || e.Status > 255 || e.Signal < 0 || e.Signal > 127 {
				t.Errorf("%+v", e)
			}
		}
		if fault := bounded(m.Fault); len(fault.Message) > 4096 {
			t.Error("too long a message is passed on")
		}
	})
}

func FuzzReports(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := enter.ParseReport(b); ok && (r.PID == 0) == (r.Stage == "") {
			t.Errorf("%+v", r)
		}
	})
}

func TestOnlyAProcessOfThePayloadsIsItsMainProgram(t *testing.T) {
	require.Root(t)
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if err := checkProcess(self, os.Getpid()); err != nil {
		t.Errorf("its own: %v", err)
	}
	if err := checkProcess(0, os.Getpid()); err == nil {
		t.Error("a descriptor of no process is taken")
	}
	other := exec.Command("sleep", "100")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := checkProcess(self, other.Process.Pid); err == nil {
		t.Error("a process out of the payload's sight is taken")
	}
}

func TestQueueKeepsOrderAndGivesBack(t *testing.T) {
	var q queue
	var want, got []byte
	for i := range 3000 {
		b := bytes.Repeat([]byte{byte(i)}, i%700)
		want = append(want, b...)
		if !q.push(b) {
			t.Fatal("no memory")
		}
		if i%3 == 0 {
			n := q.len() / 2
			got = append(got, q.bytes()[:n]...)
			q.drop(n)
		}
	}
	got = append(got, q.bytes()...)
	q.drop(q.len())
	if !bytes.Equal(got, want) || q.buf != nil {
		t.Errorf("%d bytes of %d; %d held", len(got), len(want), len(q.buf))
	}
}

func TestSmallReaders(t *testing.T) {
	if n := StartTime([]byte("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 5\n")); n != 4711 {
		t.Errorf("StartTime = %d", n)
	}
	if n, ok := parseCounter([]byte("low 0\noom_kill_x 3\noom_kill 7\n"), "oom_kill"); !ok || n != 7 {
		t.Errorf("parseCounter = %d, %v", n, ok)
	}
	for b, want := range map[string]int{"pos:\t0\nPid:\t12\nNSpid:\t12\t2\n": 12, "Pid:\t-1\n": 0, "Pid:\t0\n": 0, "pos:\t0\n": 0, "Pid:\t": 0} {
		if pid, ok := parsePidfd([]byte(b)); pid != want && ok || ok != (want > 0) {
			t.Errorf("parsePidfd(%q) = %d, %v", b, pid, ok)
		}
	}
	for b, want := range map[string]bool{"READY=1": true, "STATUS=x\nREADY=1\n": true, "READY=10": false, "": false, "XREADY=1": false} {
		if saysReady([]byte(b)) != want {
			t.Errorf("saysReady(%q) = %v", b, !want)
		}
	}
}
