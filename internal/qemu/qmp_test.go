package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// monitor is a stand-in: it greets, and answers each command by say.
func monitor(t *testing.T, greeting string, say func(id uint64, command string) string) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, greeting)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			var c struct {
				Execute string `json:"execute"`
				ID      uint64 `json:"id"`
			}
			if json.Unmarshal(lines.Bytes(), &c) != nil {
				return
			}
			answer := fmt.Sprintf(`{"return": {}, "id": %d}`, c.ID)
			if c.Execute != "qmp_capabilities" {
				answer = say(c.ID, c.Execute)
			}
			if _, err := fmt.Fprint(conn, answer+"\r\n"); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}` + "\r\n"

func TestExecute(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), require.Patience(10*time.Second))
	defer cancel()
	for sentence, c := range map[string]struct {
		answer string // %d is the command's id
		kind   fault.Kind
		words  string
	}{
		"an answer is read":             {answer: `{"return": {"status": "paused"}, "id": %d}`},
		"events come in between":        {answer: `{"event": "STOP", "data": {}}` + "\r\n" + `{"return": {"status": "paused"}, "id": %d}`},
		"an id that nobody asked with":  {answer: `{"return": 1, "id": 77}` + "\r\n" + `{"return": {"status": "paused"}, "id": %d}`},
		"a refusal has QEMU's words":    {answer: `{"error": {"class": "GenericError", "desc": "not\u0007\u009b2J\r\nnow"}, "id": %d}`, kind: fault.Unable, words: "not??2J now"},
		"an answer of another type":     {answer: `{"return": 5, "id": %d}`, kind: fault.Unable, words: "is none"},
		"a line that is no JSON":        {answer: `{"return`, kind: fault.Unable, words: "gone"},
		"a line that does not end soon": {answer: strings.Repeat("x", maxLine+1), kind: fault.Unable, words: "gone"},
	} {
		t.Run(sentence, func(t *testing.T) {
			q, err := Open(ctx, monitor(t, greeting, func(id uint64, _ string) string {
				if strings.Contains(c.answer, "%d") {
					return fmt.Sprintf(c.answer, id)
				}
				return c.answer
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			var r struct{ Status string }
			err = q.Execute(ctx, "query-status", nil, &r)
			if c.words == "" {
				if err != nil || r.Status != "paused" {
					t.Errorf("got %+v, %v", r, err)
				}
				return
			}
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAMonitorThatSaysNothingIsNotWaitedForLonger(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, monitor(t, "", nil)); !fault.Is(err, fault.Busy) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "monitor")
	nobody, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		defer unix.Close(nobody)
		err = errors.Join(unix.Bind(nobody, &unix.SockaddrUnix{Name: path}), unix.Listen(nobody, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the first waits in line, and leaves it full
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := Dial(ctx, path); !fault.Is(err, fault.Busy) || Gone(err) || !strings.HasPrefix(err.Error(), "QEMU does not answer") {
			t.Errorf("where nobody accepts: %v", err)
		}
	}
	if _, err := Open(context.Background(), monitor(t, "hello\n", nil)); !fault.Is(err, fault.Unable) {
		t.Errorf("who is no monitor gives %v", err)
	}
}

func TestARealMonitor(t *testing.T) {
	program := require.Tool(t, "qemu-system-x86_64")
	ctx, cancel := context.WithTimeout(context.Background(), require.Patience(20*time.Second))
	defer cancel()
	path := filepath.Join(t.TempDir(), "m")
	cmd := exec.Command(program, "-M", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "unix:"+path+",server=on,wait=off")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var q *QMP
	var err error
	for q == nil && ctx.Err() == nil {
		if q, err = Dial(ctx, path); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if err := q.Execute(ctx, "no-such-command", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("got %v", err)
	}
	if err := q.Execute(ctx, "quit", nil, nil); err != nil {
		t.Error(err)
	}
	for e := range q.Events() {
		if e.Name == "SHUTDOWN" {
			return
		}
	}
	t.Error("the end was not told")
}

func FuzzQMP(f *testing.F) {
	f.Add([]byte(greeting + `{"return": {}, "id": 1}` + "\n" + `{"event": "STOP"}`))
	f.Fuzz(func(t *testing.T, said []byte) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Write(pair[1], said)
		unix.Shutdown(pair[1], unix.SHUT_WR)
		defer unix.Close(pair[1])
		q, err := Open(context.Background(), unixConn(t, pair[0]))
		if err == nil {
			q.Execute(context.Background(), "query-status", nil, nil)
			q.Close()
		}
	})
}

func unixConn(t *testing.T, fd int) *net.UnixConn {
	file := os.NewFile(uintptr(fd), "monitor")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}
