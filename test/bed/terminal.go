package bed

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/require"
)

// Terminal is a CLI command that runs on a terminal of its own.
type Terminal struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	cancel context.CancelFunc
	mu     sync.Mutex
	screen strings.Builder
	seen   int // how much of screen Expect has consumed
	ended  chan struct{}
}

// Terminal starts the CLI on a new terminal of the given size.
func (b *Bed) Terminal(t testing.TB, rows, cols uint16, args ...string) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	term := &Terminal{t: t, master: master, cancel: cancel, ended: make(chan struct{})}
	term.Resize(rows, cols)
	term.cmd = b.Command(ctx, args...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go term.read()
	t.Cleanup(func() { cancel(); master.Close() })
	return term
}

func (t *Terminal) read() {
	defer close(t.ended)
	buf := make([]byte, 4096)
	for {
		n, err := t.master.Read(buf)
		t.mu.Lock()
		t.screen.Write(buf[:n])
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Expect waits until text stands on the terminal behind what was expected before.
func (t *Terminal) Expect(text string) {
	t.t.Helper()
	for deadline := time.Now().Add(require.Patience(time.Minute)); ; time.Sleep(5 * time.Millisecond) {
		t.mu.Lock()
		at := strings.Index(t.screen.String()[t.seen:], text)
		if at >= 0 {
			t.seen += at + len(text)
		}
		t.mu.Unlock()
		if at >= 0 {
			return
		}
		if time.Now().After(deadline) {
			t.t.Fatalf("the terminal does not show %q but %q", text, t.Screen())
		}
	}
}

// Resize changes the terminal's size; a program on it gets SIGWINCH.
func (t *Terminal) Resize(rows, cols uint16) {
	t.t.Helper()
	if err := unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		t.t.Fatal(err)
	}
}

// Screen returns all that was shown.
func (t *Terminal) Screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// Wait waits for the command's end and returns its exit status.
func (t *Terminal) Wait() int {
	t.t.Helper()
	t.cmd.Wait()
	t.cancel()
	select {
	case <-t.ended:
	case <-time.After(require.Patience(time.Second)): // a child may hold the terminal
	}
	return t.cmd.ProcessState.ExitCode()
}
