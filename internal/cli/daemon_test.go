package cli

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// TestADaemonThatFindsAnotherIsNoFailure has the socket appear long after the daemon
// that was started here ended.
func TestADaemonThatFindsAnotherIsNoFailure(t *testing.T) {
	const late = 5 // more tries than the end of a daemon takes
	for what, c := range map[string]struct {
		status int
		other  bool // another daemon is there
	}{
		"it found another":                {fault.Conflict.Exit(), true},
		"it found what will never answer": {fault.Conflict.Exit(), false},
		"it failed":                       {fault.Internal.Exit(), false},
		"it ended by itself":              {0, false},
	} {
		t.Run(what, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "cli") // short, for the socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
			if err := os.WriteFile(log, []byte("first\nlast words\n  hint: what to do\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			tries := 0
			dial := func(ctx context.Context) (net.Conn, error) {
				if tries++; tries == late {
					l, err := net.Listen("unix", socket)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { l.Close() })
				}
				return client.DialSocket(socket)(ctx)
			}
			ended := make(chan error, 1)
			ended <- exec.Command("sh", "-c", "exit "+strconv.Itoa(c.status)).Run()
			held := filepath.Join(dir, "lock")
			if c.other {
				lock, err := os.Create(held)
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
				if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
			}
			conn, err := await(t.Context(), dial, ended, log, func() bool { return isHeld(held) })
			if conn != nil {
				conn.Close()
			}
			switch {
			case c.other && err != nil:
				t.Errorf("after %d tries: %v", tries, err)
			case !c.other && (err == nil || !strings.Contains(err.Error(), "last words")):
				t.Errorf("after %d tries: %v; want the log's last words", tries, err)
			}
		})
	}
}

// TestADaemonThatListensAndFailsSaysWhy has one end while it is asked, and its end seen later.
func TestADaemonThatListensAndFailsSaysWhy(t *testing.T) {
	dir, err := os.MkdirTemp("", "cli") // short, for the socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte("last words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			conn.Close()
		}
		l.Close()
		ended <- exec.Command("false").Run()
	}()
	if err := failed(t.Context(), client.DialSocket(socket), ended, log); err == nil || !strings.Contains(err.Error(), "exit status 1: last words") {
		t.Errorf("%v; want the log's last words", err)
	}
}
