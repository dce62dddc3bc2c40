package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
)

// Patience bounds every single command of a test.
var Patience = require.Patience(2 * time.Minute)

// Bed is one private strata. It is safe for concurrent use but for the methods
// that end and start the daemon.
type Bed struct {
	t      testing.TB
	Places place.Places
	bin    string
	host   chan func() // runs functions inside the bed's network namespace
	guest  bool        // the namespace is another bed's
	mu     sync.Mutex
	daemon *exec.Cmd
	Log    string // the daemon's log file
}

// New starts a strata for t and removes it when t ends.
func New(t testing.TB) *Bed {
	t.Helper()
	return NewIn(t, os.TempDir())
}

// NewIn is New with the root below a folder of the caller's choice, whose path
// must be short: t.TempDir is too long for the sockets below it.
func NewIn(t testing.TB, parent string) *Bed {
	t.Helper()
	b := lay(t, parent)
	b.host = make(chan func())
	b.namespace()
	t.Cleanup(b.close)
	b.StartDaemon()
	return b
}

// NewBeside starts a second strata on the host of the first: with a root and a
// daemon of its own, in the same network namespace.
func NewBeside(t testing.TB, first *Bed) *Bed {
	t.Helper()
	b := lay(t, os.TempDir())
	b.host, b.guest = first.host, true
	t.Cleanup(b.close)
	b.StartDaemon()
	return b
}

// lay makes a bed's root.
func lay(t testing.TB, parent string) *Bed {
	t.Helper()
	require.Root(t)
	for _, tool := range []string{"mkfs.ext4", "mkfs.erofs", "busybox"} {
		require.Tool(t, tool)
	}
	dir, err := os.MkdirTemp(parent, "strata")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	places, err := place.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	ready(t, places.State)
	return &Bed{t: t, Places: places, bin: programs(t), Log: filepath.Join(dir, "stratad.log")}
}

// For returns the same bed, with t as the test that fails when one of its
// methods does. Ending and starting the daemon is left to the bed itself.
func (b *Bed) For(t testing.TB) *Bed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &Bed{t: t, Places: b.Places, bin: b.bin, host: b.host, daemon: b.daemon, Log: b.Log}
}

// namespace makes the bed's network namespace on a thread that stays in it.
func (b *Bed) namespace() {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		made <- err
		for do := range b.host {
			do()
		}
	}()
	if err := <-made; err != nil {
		b.t.Fatalf("make a network namespace: %v", err)
	}
}

// Host runs do on a thread inside the network namespace that the bed's daemon
// takes for the host's. Sockets that do opens belong to it.
func (b *Bed) Host(do func()) {
	done := make(chan struct{})
	b.host <- func() { defer close(done); do() }
	<-done
}

// StartDaemon starts a daemon and waits until it answers.
func (b *Bed) StartDaemon() {
	b.t.Helper()
	log, err := os.OpenFile(b.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	cmd := b.Daemon("--log-level", "debug")
	cmd.Stdout, cmd.Stderr = log, log
	b.Host(func() { err = cmd.Start() })
	if err != nil {
		b.t.Fatalf("start stratad: %v", err)
	}
	b.mu.Lock()
	b.daemon = cmd
	b.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		if out := b.Try("info", "--json"); out.Status == 0 {
			return
		}
		select {
		case err := <-ended:
			b.t.Fatalf("stratad ended at once: %v\n%s", err, b.DaemonLog())
		default:
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("stratad does not answer\n%s", b.DaemonLog())
		}
	}
}

// Daemon returns a daemon for the bed's root that is not started yet.
func (b *Bed) Daemon(flags ...string) *exec.Cmd {
	return exec.Command(b.Program("stratad"), append([]string{"--root", b.Places.Root}, flags...)...)
}

// DaemonPID returns the daemon's process id.
func (b *Bed) DaemonPID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.daemon.Process.Pid
}

// SignalDaemon sends sig to the daemon and, where wait is set, waits for its end.
func (b *Bed) SignalDaemon(sig syscall.Signal, wait bool) {
	b.t.Helper()
	b.mu.Lock()
	cmd := b.daemon
	b.mu.Unlock()
	if err := cmd.Process.Signal(sig); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return
		}
		b.t.Fatalf("signal the daemon: %v", err)
	}
	for deadline := time.Now().Add(require.Patience(20 * time.Second)); wait; time.Sleep(time.Millisecond) {
		if cmd.Process.Signal(syscall.Signal(0)) != nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the daemon does not end on %v", sig)
		}
	}
}

// DaemonLog returns the end of what the daemon said.
func (b *Bed) DaemonLog() string {
	data, _ := os.ReadFile(b.Log)
	if len(data) > 16<<10 {
		data = data[len(data)-16<<10:]
	}
	return string(data)
}

// Output is how a command of the CLI ended.
type Output struct {
	Stdout, Stderr string
	Status         int
	Took           time.Duration
}

// Command returns a CLI command that is not started yet.
func (b *Bed) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "strata"), args...)
	cmd.Env = append(os.Environ(), place.RootVariable+"="+b.Places.Root, "STRATA_AUTOSTART=no")
	return cmd
}

// Try runs the CLI and returns how it ended, well or not.
func (b *Bed) Try(args ...string) Output { return b.Feed(nil, args...) }

// Feed is Try with standard input.
func (b *Bed) Feed(stdin io.Reader, args ...string) Output {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := b.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	begun := time.Now()
	err := cmd.Run()
	out := Output{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode(), Took: time.Since(begun)}
	if ctx.Err() != nil {
		b.t.Errorf("strata %s: took more than %v\n%s", strings.Join(args, " "), Patience, out.Stderr)
	} else if err != nil && cmd.ProcessState == nil {
		b.t.Fatalf("strata %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// Run runs the CLI, fails the test unless it exits 0, and returns its standard
// output without the last newline.
func (b *Bed) Run(args ...string) string {
	b.t.Helper()
	out := b.Try(args...)
	if out.Status != 0 {
		b.t.Fatalf("strata %s: exit status %d\n%s%s", strings.Join(args, " "), out.Status, out.Stdout, out.Stderr)
	}
	return strings.TrimSuffix(out.Stdout, "\n")
}

// Program returns the path of one of strata's programs.
func (b *Bed) Program(name string) string { return filepath.Join(b.bin, name) }

// close resets the root, ends the daemon and proves that nothing is left.
func (b *Bed) close() {
	if b.t.Failed() {
		b.t.Logf("the daemon's log ends:\n%s", b.DaemonLog())
	}
	if b.Try("info").Status != 0 {
		b.SignalDaemon(syscall.SIGKILL, true)
		b.StartDaemon()
	}
	if out := b.Try("system", "reset", "--force"); out.Status != 0 {
		b.t.Errorf("strata system reset: exit status %d\n%s", out.Status, out.Stderr)
	}
	b.SignalDaemon(syscall.SIGTERM, true)
	var left []string
	for deadline := time.Now().Add(require.Patience(10 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		if left = b.Left(); len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			b.t.Errorf("left on the host:\n  %s", strings.Join(left, "\n  "))
			break
		}
	}
	if !b.guest {
		close(b.host)
	}
	if err := os.RemoveAll(b.Places.Root); err != nil {
		b.t.Errorf("remove %s: %v", b.Places.Root, err)
	}
}

var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "strata-bin")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
		"github.com/strata-project/strata/cmd/strata", "github.com/strata-project/strata/cmd/stratad",
		"github.com/strata-project/strata/cmd/strata-keeper", "github.com/strata-project/strata/cmd/strata-agent", "github.com/strata-project/strata/cmd/strata-vmagent",
		"github.com/strata-project/strata/cmd/strata-volume")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func programs(t testing.TB) string {
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Fetch reads what a TCP server says, "" where there is none. It belongs inside Host.
func Fetch(address string) string {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return ""
	}
	data, _ := io.ReadAll(conn)
	return string(data)
}
