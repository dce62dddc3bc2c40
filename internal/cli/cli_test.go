package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/server/servertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"strata": func() { os.Exit(Main()) },
		// Started by the CLI under this name: a daemon with the fake engine.
		"stratad": func() {
			if err := fakeDaemon(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, "stratad:", err)
				os.Exit(1)
			}
		},
	})
}

// fakeLife ends a fake daemon that the CLI started, since nobody else does.
const fakeLife = 5 * time.Second

func fakeDaemon(root string) error {
	time.AfterFunc(fakeLife, func() { os.Exit(0) })
	l, err := server.Listen(filepath.Join(root, "strata.sock"))
	if err != nil {
		return err
	}
	return server.New(servertest.New(), slog.New(slog.DiscardHandler)).HTTP().Serve(l)
}

// TestScripts runs testdata/script/*.txtar: the CLI as its users see it, against
// a daemon with a fake engine. The script's command `status N CMD...` wants an
// exact exit status.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: false,
		Setup: func(env *testscript.Env) error {
			root, err := os.MkdirTemp("", "cli") // short, for the socket
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(root) })
			env.Setenv("STRATA_ROOT", root)
			env.Setenv(AutostartVariable, "no")
			env.Setenv("NO_SUCH_VARIABLE", "")
			env.Setenv("DOCKER_CONFIG", env.WorkDir)
			if _, err := os.Stat(filepath.Join(env.WorkDir, "no-daemon")); err == nil {
				return nil
			}
			l, err := net.Listen("unix", filepath.Join(root, "strata.sock"))
			if err != nil {
				return err
			}
			h := server.New(servertest.New(), slog.New(slog.DiscardHandler)).HTTP()
			go h.Serve(l)
			env.Defer(func() { h.Close() })
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "unreadable": // a file that not even root may open
				_, err := os.ReadFile("/sys/bus/cpu/drivers_probe")
				return errors.Is(err, fs.ErrPermission), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var end *exec.ExitError
		if !errors.As(err, &end) {
			ts.Fatalf("%v", err)
		}
		got = end.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d; want %d", got, want)
	}
}
