package qemu_test

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/test/bed"
)

// patience bounds everything that a test waits for.
var patience = require.Patience(60 * time.Second)

// discard is fallocate's punching of a hole as a block device knows it.
func discard(f *os.File, at, size uint64) error {
	const blkDiscard = 0x1277 // linux/fs.h
	area := [2]uint64{at, size}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkDiscard, uintptr(unsafe.Pointer(&area))); errno != 0 {
		return errno
	}
	return nil
}

var kernels struct {
	once  sync.Once
	dir   string
	store *kernel.Store
	found kernel.Kernel
	err   error
}

// bootFiles are a kernel, and an initramfs with this program.
func bootFiles(t *testing.T, w kernel.Wanted) (image, initrd string) {
	t.Helper()
	deb := bed.KernelPackage(t)
	kernels.once.Do(func() {
		dir, err := os.MkdirTemp("", "strata-qemu-test-")
		if err != nil {
			kernels.err = err
			return
		}
		kernels.dir = dir
		if kernels.store, kernels.err = kernel.Open(dir, slog.New(slog.DiscardHandler)); kernels.err != nil {
			return
		}
		f, err := os.Open(deb)
		if err != nil {
			kernels.err = err
			return
		}
		defer f.Close()
		kernels.found, kernels.err = kernels.store.Import(context.Background(), f, kernel.ImportOptions{}, nil)
	})
	must(t, kernels.err)
	set, err := kernels.found.Set(w)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	program, err := elf.Open(self)
	must(t, err)
	defer program.Close()
	libraries, _ := program.ImportedLibraries()
	require.Host(t, "static-test", len(libraries) == 0, "the test's program loads libraries, so it is no /init: set CGO_ENABLED=0")
	made, err := kernels.store.Initramfs(t.Context(), kernels.found, self, set)
	must(t, err)
	return kernels.found.Vmlinux(), made.Path
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// machine is a QEMU that runs.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	dir     string
	console *words
	errors  *words
	keeper  *net.UnixConn
	events  *qemu.QMP // the keeper's monitor
	control net.Conn
	lines   *bufio.Scanner
	ended   chan struct{} // closed when the process is gone
	disk    string
}

// words are what somebody says, for a reader at any time.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// options are what differs between tests.
type options struct {
	confine bool
	user    uint32
	modules *kernel.Wanted
	disk    string
	change  func(args []string) []string

	processors int // 0: one
}

// start runs a guest with everything that a command line has.
func start(t *testing.T, o options) *machine {
	t.Helper()
	m := launch(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	if m.events, err = qemu.Open(ctx, m.keeper); err != nil {
		t.Fatalf("%v: %s", err, m.errors)
	}
	return m
}

// refused runs a guest that does not start, and returns what it says.
func refused(t *testing.T, o options) string {
	t.Helper()
	m := launch(t, o)
	m.wait()
	return m.errors.String()
}

func launch(t *testing.T, o options) *machine {
	t.Helper()
	program, err := qemu.Find(t.Context())
	require.Machines(t)
	require.Host(t, "qemu-system-x86_64", err == nil, fmt.Sprint(err))
	if o.modules == nil {
		o.modules = &kernel.Guest
	}
	image, initrd := bootFiles(t, *o.modules)
	m := &machine{t: t, dir: t.TempDir(), console: new(words), errors: new(words), ended: make(chan struct{}), disk: o.disk}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	hand := func(f *os.File, err error) int {
		must(t, err)
		files = append(files, f)
		return 2 + len(files)
	}
	if m.disk == "" {
		m.disk = filepath.Join(m.dir, "disk")
		must(t, os.WriteFile(m.disk, nil, 0o600), os.Truncate(m.disk, 64<<20))
	}
	template := filepath.Join(m.dir, "template")
	must(t, os.WriteFile(template, nil, 0o600), os.Truncate(template, 16<<20))
	hand(os.Open("/dev/null")) // the keeper's socket is here
	g := qemu.Guest{
		Name: "test", Accelerator: qemu.TCG, Memory: 256 * unit.MiB, Processors: max(1, o.processors), TSC: qemu.TSC(), Turns: program.Turns,
		Kernel: image, Initrd: initrd, Firmware: program.Firmware, MAC: "02:00:00:00:00:07", Ring: program.Ring,
		Template: hand(os.Open(template)), Disk: hand(os.OpenFile(m.disk, os.O_RDWR, 0)),
		Control: hand(m.listen("control")), Monitor: hand(m.listen("monitor")),
	}
	pair := func(number *int) net.Conn {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		*number = hand(os.NewFile(uintptr(fds[1]), "qemu"), nil)
		ours := os.NewFile(uintptr(fds[0]), "ours")
		defer ours.Close()
		conn, err := net.FileConn(ours)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	pair(&g.Streams)
	console := pair(&g.Console)
	m.keeper = pair(&g.Events).(*net.UnixConn)
	go func() { bufio.NewReader(console).WriteTo(m.console) }()
	if o.confine {
		g.Kernel, g.Initrd = "/vmlinux", "/initramfs"
	}
	args := g.Args()
	if o.change != nil {
		args = o.change(args)
	}
	m.cmd = exec.Command(program.Path, args...)
	if o.confine {
		s := confine.Spec{
			Program: program.Path, Args: args, User: o.user, First: 4, Last: 2 + len(files),
			Show: []confine.Shown{{Path: image, At: g.Kernel}, {Path: initrd, At: g.Initrd}},
		}
		m.cmd = exec.Command("/proc/self/exe")
		m.cmd.Args = s.Encode()
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
	}
	m.cmd.ExtraFiles, m.cmd.Stderr = files, m.errors
	must(t, m.cmd.Start())
	go func() { m.cmd.Wait(); close(m.ended) }()
	t.Cleanup(func() {
		m.cmd.Process.Kill()
		<-m.ended
		if t.Failed() {
			t.Logf("console:\n%s\nQEMU: %s", m.console, m.errors)
		}
	})
	return m
}

func (m *machine) listen(name string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(m.dir, name), Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	return l.File()
}

// ask has something done inside.
func (m *machine) ask(command string) string {
	m.t.Helper()
	if m.control == nil {
		conn, err := net.Dial("unix", filepath.Join(m.dir, "control"))
		must(m.t, err)
		m.control, m.lines = conn, bufio.NewScanner(conn)
		m.t.Cleanup(func() { conn.Close() })
	}
	m.control.SetDeadline(time.Now().Add(patience))
	_, err := fmt.Fprintln(m.control, command)
	must(m.t, err)
	if !m.lines.Scan() {
		m.t.Fatalf("no answer to %q: %v", command, m.lines.Err())
	}
	answer, err := strconv.Unquote(m.lines.Text())
	must(m.t, err)
	return answer
}

// tell has something done that gives no answer.
func (m *machine) tell(command string) {
	m.t.Helper()
	_, err := fmt.Fprintln(m.control, command)
	must(m.t, err)
}

// wait waits for the end of QEMU.
func (m *machine) wait() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(patience):
		m.t.Fatal("QEMU does not end")
	}
}

// told waits for an event, and returns its data.
func (m *machine) told(name string) string {
	m.t.Helper()
	late := time.After(patience)
	var seen []string
	for {
		select {
		case e, ok := <-m.events.Events():
			if !ok {
				m.t.Fatalf("%s was not told, only %v", name, seen)
			}
			if e.Name == name {
				return string(e.Data)
			}
			seen = append(seen, e.Name)
		case <-late:
			m.t.Fatalf("%s was not told, only %v", name, seen)
		}
	}
}

// monitor opens the daemon's monitor.
func (m *machine) monitor(ctx context.Context) *qemu.QMP {
	m.t.Helper()
	q, err := qemu.Dial(ctx, filepath.Join(m.dir, "monitor"))
	must(m.t, err)
	m.t.Cleanup(func() { q.Close() })
	return q
}

// field returns the value of a line of a file such as /proc/PID/status.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "there is no " + name
}
