package cli

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/server/servertest"
)

// terminal is a pseudo-terminal with what was written to it.
type terminal struct {
	t            *testing.T
	master, side *os.File
	mu           sync.Mutex
	text         string
}

func newTerminal(t *testing.T, rows, cols uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { side.Close() })
	p := &terminal{t: t, master: master, side: side}
	p.size(rows, cols)
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.text += string(b[:n])
			p.mu.Unlock()
		}
	}()
	return p
}

func (p *terminal) size(rows, cols uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		p.t.Fatal(err)
	}
}

// frame waits for a screen that is as wanted, and returns its lines.
func (p *terminal) frame(what string, is func([]string) bool) []string {
	p.t.Helper()
	for end := time.Now().Add(require.Patience(20 * time.Second)); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		frames := strings.Split(p.text, screenHome)
		p.mu.Unlock()
		for _, f := range frames[max(1, len(frames)-3):] {
			whole, _, ok := strings.Cut(f, restBelow)
			if lines := strings.Split(strings.ReplaceAll(whole, restOfLine, ""), "\r\n"); ok && is(lines) {
				return lines
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Fatalf("not seen: %s\n%q", what, p.text[max(0, len(p.text)-3000):])
	return nil
}

func (p *terminal) press(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

func with(part string) func([]string) bool {
	return func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), part) }
}

func startTop(t *testing.T, p *terminal) *exec.Cmd {
	t.Helper()
	root, err := os.MkdirTemp("", "top") // short, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	l, err := net.Listen("unix", filepath.Join(root, "strata.sock"))
	if err != nil {
		t.Fatal(err)
	}
	e := servertest.New()
	h := server.New(e, slog.New(slog.DiscardHandler)).HTTP()
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })
	for i := range 30 {
		env, err := e.Create(t.Context(), api.Spec{Name: fmt.Sprintf("web-%02d", i), Template: "busybox", Command: []string{"sleep", "99"}})
		if err == nil {
			err = e.Start(t.Context(), env.ID, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("strata", "top", "--interval", "100ms")
	cmd.Env = append(os.Environ(), "STRATA_ROOT="+root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.side, p.side, p.side
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

func TestTopOnATerminal(t *testing.T) {
	p := newTerminal(t, 24, 80)
	before, err := unix.IoctlGetTermios(int(p.side.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := startTop(t, p)
	lines := p.frame("environments, the busiest first", with("\nweb-29"))
	fits := func(lines []string, rows, cols int) {
		t.Helper()
		if len(lines) != rows {
			t.Errorf("%d lines on a screen of %d", len(lines), rows)
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > cols {
				t.Errorf("a line is wider than %d: %q", cols, l)
			}
		}
	}
	fits(lines, 24, 80)
	if !strings.HasSuffix(lines[4], "OUT/s") {
		t.Errorf("the last column is cut: %q", lines[4])
	}
	p.press("n")
	p.frame("sorted by name", with("\nweb-00"))
	p.press("j\x1b[B")
	p.frame("two rows down", func(l []string) bool { return strings.HasPrefix(l[5], "web-02") })
	p.press("/web-2")
	p.frame("filtered", func(l []string) bool { return with("filter: web-2_")(l) && !with("\nweb-1")(l) })
	p.press("\r")
	p.frame("the keys again", with("q quit"))
	p.size(10, 40)
	fits(p.frame("a smaller screen", func(l []string) bool { return len(l) == 10 }), 10, 40)
	p.press("t")
	p.frame("processes", with("PID USER"))
	p.press("q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	after, err := unix.IoctlGetTermios(int(p.side.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %v", after, err)
	}
	p.frame("the first screen and the cursor", func([]string) bool { return strings.HasSuffix(p.text, screenGiven) })
}

func TestTopThatIsTerminatedGivesTheTerminalBack(t *testing.T) {
	p := newTerminal(t, 24, 80)
	before, _ := unix.IoctlGetTermios(int(p.side.Fd()), unix.TCGETS)
	cmd := startTop(t, p)
	p.frame("environments", with("\nweb-29"))
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if after, err := unix.IoctlGetTermios(int(p.side.Fd()), unix.TCGETS); err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %v", after, err)
	}
}

func TestProcessorTimeBecomesARate(t *testing.T) {
	at := time.Unix(1700000000, 0)
	second := int64(time.Second)
	task := func(pid int, cpu, age int64) api.Task { return api.Task{ID: "a", PID: pid, CPUTime: cpu, Age: age} }
	tp := &top{}
	tp.take(api.TaskList{Time: at, Processes: []api.Task{task(1, 10*second, 20*second), task(2, second, 9*second)}})
	// Process 2 is another one by now: it is younger.
	tp.take(api.TaskList{Time: at.Add(2 * time.Second), Processes: []api.Task{task(1, 11*second, 22*second), task(2, second, second)}})
	if got := []float64{tp.view.tasks[0].now, tp.view.tasks[1].now}; got[0] != 50 || got[1] != 100 {
		t.Errorf("%v", got)
	}
}

func FuzzTopDraw(f *testing.F) {
	f.Add("web", "sh -c x", "/x\rtcmnpdrjjk", 80, 24)
	f.Add("", "\x1b[2J\u202e", "", 1, 1)
	f.Fuzz(func(t *testing.T, name, command, keys string, width, height int) {
		width, height = 1+(width&0xff), 1+(height&0xff)
		v := topView{sort: "cpu", usage: api.UsageReport{Environments: []api.Usage{{Environment: name}, {Environment: "b", CPU: 1}}},
			tasks: []topTask{{Task: api.Task{Environment: name, Command: command}}}}
		for _, b := range []byte(keys) {
			v.key(b)
			lines := v.draw(width, height)
			if len(lines) > height {
				t.Fatalf("%d lines on a screen of %d", len(lines), height)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > width || strings.ContainsAny(l, "\x1b\n\r") {
					t.Fatalf("%q", l)
				}
			}
		}
	})
}
