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

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// TestADaemonThatFindsAnotherIsNoFailure has the socket appear long after the daemon
// that was started here ended.
func TestADaemonThatFindsAnotherIsNoFailure(t *testing.T) {
	const late = 5 // more tries than the end of a daemon takes
	for what, c := range map[string]struct {
		status int
		works  bool
	}{
		"it found another":   {fault.Conflict.Exit(), true},
		"it failed":          {fault.Internal.Exit(), false},
		"it ended by itself": {0, false},
	} {
		t.Run(what, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "cli") // short, for the socket
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			socket, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
			if err := os.WriteFile(log, []byte("first\nlast words\n"), 0o600); err != nil {
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
			conn, err := await(t.Context(), dial, ended, log)
			if conn != nil {
				conn.Close()
			}
			switch {
			case c.works && err != nil:
				t.Errorf("after %d tries: %v", tries, err)
			case !c.works && (err == nil || !strings.Contains(err.Error(), "last words")):
				t.Errorf("after %d tries: %v; want the log's last words", tries, err)
			}
		})
	}
}
