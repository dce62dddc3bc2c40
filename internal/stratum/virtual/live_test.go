package virtual

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// fakeMonitor is QEMU's monitor as far as processors stand still and go on.
type fakeMonitor struct {
	goesOn bool // somebody has it go on as soon as it is stopped

	mu    sync.Mutex
	state string
}

// answer does a command, as QEMU does: one that stands still already is not stopped. It cannot
// be written down.
func (f *fakeMonitor) answer(command string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch command {
	case "stop":
		if f.state == "running" {
			f.state = "paused"
		}
		if f.goesOn {
			f.state = "running"
		}
	case "cont":
		f.state = "running"
	case "query-status":
		return fmt.Sprintf(`{"status": %q}`, f.state)
	case "query-migrate":
		return `{"status": "failed"}`
	}
	return "{}"
}

func (f *fakeMonitor) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
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
	kernels, err := kernel.Open(filepath.Join(dir, "kernels"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &Live{Run: &held.Run{ID: "a"}, d: &Driver{Held: runs, Log: log, o: Options{Kernels: kernels}}, agent: agent{path: runs.Path("a", ControlSocket)}}
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
	if state := f.now(); state != "paused" || !l.Paused() {
		t.Fatalf("paused, it is %s and says %v", state, l.Paused())
	}
	if err := l.Resume(t.Context()); err != nil {
		t.Errorf("nobody inside sets the clock: %v", err)
	}
	if state := f.now(); state != "running" || l.Paused() {
		t.Errorf("resumed, it is %s and says %v", state, l.Paused())
	}
}

// TestWhatStandsStillForWantOfRoomIsNotPaused has QEMU say so, and has a keeper be at work
// on it: either would go on while it is said to be paused.
func TestWhatStandsStillForWantOfRoomIsNotPaused(t *testing.T) {
	for what, c := range map[string]struct {
		state  string
		goesOn bool
	}{
		"it stands still":        {"io-error", false},
		"it was tried meanwhile": {"io-error", true},
	} {
		t.Run(what, func(t *testing.T) {
			l, f := monitored(t, c.state)
			f.goesOn = c.goesOn
			l.notes.Form = "any"
			ctx, cancel := context.WithTimeout(t.Context(), require.Patience(10*time.Second))
			defer cancel()
			for word, do := range map[string]func() error{
				"pause":   func() error { return l.Pause(ctx) },
				"suspend": func() error { return l.Suspend(ctx, filepath.Join(t.TempDir(), "suspended")) },
			} {
				err := do()
				if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "no room") {
					t.Errorf("%s: %v", word, err)
				}
				if l.Paused() {
					t.Errorf("%s: it is said to be paused", word)
				}
			}
			if state := f.now(); !c.goesOn && state != c.state {
				t.Errorf("it is %s, and was %s", state, c.state)
			}
		})
	}
}

func TestWhatHasLostItsKernelIsNotSuspended(t *testing.T) {
	l, f := monitored(t, "running")
	l.notes.Form, l.notes.Boot.Kernel = "any", "old"
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(10*time.Second))
	defer cancel()
	err := l.Suspend(ctx, filepath.Join(t.TempDir(), "suspended"))
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "its kernel old was removed") {
		t.Errorf("%v", err)
	}
	if state := f.now(); state != "running" || l.Paused() {
		t.Errorf("it is %s, and says that it is paused: %v", state, l.Paused())
	}
}

// TestAPausedAgentsAnswerIsNotWaitedFor: it was held still before the agent could answer who
// told it what to run.
func TestAPausedAgentsAnswerIsNotWaitedFor(t *testing.T) {
	l, _ := monitored(t, "running")
	l.notes.Form = "any"
	answered := make(chan *control.Client, 1)
	l.agent.first = &session{answered, func() { answered <- nil }}
	if err := l.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Suspend(t.Context(), filepath.Join(t.TempDir(), "suspended")); err == nil || !strings.Contains(err.Error(), "migration has failed") {
		t.Errorf("%v", err)
	}
}

func TestAStartThatIsGivenUpWaitsForNoLastWords(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begun := time.Now()
	if err := ended(ctx, new(keeper.Starting)); err != nil || time.Since(begun) >= endPatience {
		t.Errorf("%v, after %v", err, time.Since(begun))
	}
}
