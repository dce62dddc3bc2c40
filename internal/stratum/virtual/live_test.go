package virtual

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/strata-project/strata/internal/stratum/held"
)

// fakeMonitor is QEMU's monitor as far as processors stand still and go on.
type fakeMonitor struct {
	mu    sync.Mutex
	state string
	asked []string
}

// answer does a command, as QEMU does: one that stands still already is not stopped.
func (f *fakeMonitor) answer(command string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, command)
	switch command {
	case "stop":
		if f.state == "running" {
			f.state = "paused"
		}
	case "cont":
		f.state = "running"
	case "query-status":
		return fmt.Sprintf(`{"status": %q}`, f.state)
	}
	return "{}"
}

// now is the machine's state, and whether a command was asked for.
func (f *fakeMonitor) now(command string) (state string, asked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, slices.Contains(f.asked, command)
}

func (f *fakeMonitor) serve(conn net.Conn) {
	defer conn.Close()
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var c struct {
			Execute string `json:"execute"`
			ID      uint64 `json:"id"`
		}
		if json.Unmarshal(lines.Bytes(), &c) != nil {
			return
		}
		fmt.Fprintf(conn, `{"return": %s, "id": %d}`+"\r\n", f.answer(c.Execute), c.ID)
	}
}

// monitored is a run of which only the monitor is there: no agent answers.
func monitored(t *testing.T, state string) (*Live, *fakeMonitor) {
	t.Helper()
	dir, err := os.MkdirTemp("", "strl") // sockets below it want a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	runs, err := held.Open(dir, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	l := &Live{Run: &held.Run{ID: "a"}, d: &Driver{Held: runs, Log: log}, agent: agent{path: runs.Path("a", ControlSocket)}}
	if err := os.Mkdir(runs.Path("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := net.Listen("unix", runs.Path("a", MonitorSocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	f := &fakeMonitor{state: state}
	go func() {
		for {
			conn, err := at.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return l, f
}

func TestWhatGoesOnIsNotPausedThoughItsClockIsNotSet(t *testing.T) {
	l, f := monitored(t, "running")
	if err := l.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if state, _ := f.now(""); state != "paused" || !l.Paused() {
		t.Fatalf("paused, it is %s and says %v", state, l.Paused())
	}
	if err := l.Resume(t.Context()); err != nil {
		t.Errorf("nobody inside sets the clock: %v", err)
	}
	if state, _ := f.now(""); state != "running" || l.Paused() {
		t.Errorf("resumed, it is %s and says %v", state, l.Paused())
	}
}
