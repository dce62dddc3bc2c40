package warm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
	"github.com/strata-project/strata/test/bed"
)

// user owns nothing on any host.
const user = 1_900_000_011

var patience = require.Patience(60 * time.Second)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Command { // the stage before QEMU
		os.Exit(confine.Run(os.Args))
	}
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

var built struct {
	once          sync.Once
	dir           string
	image, initrd string
	template      string
	err           error
}

// files are a kernel, an initramfs with strata's agent, and a template with busybox.
func files(t testing.TB) {
	t.Helper()
	deb := bed.KernelPackage(t)
	busybox, mkfs := require.Tool(t, "busybox"), require.Tool(t, "mkfs.erofs")
	built.once.Do(func() { built.err = build(deb, busybox, mkfs) })
	must(t, built.err)
}

func build(deb, busybox, mkfs string) (err error) {
	if built.dir, err = os.MkdirTemp("", "strata-warm-test-"); err != nil {
		return err
	}
	agent := filepath.Join(built.dir, "strata-vmagent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", agent, "../../../cmd/strata-vmagent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w: %s", err, out)
	}
	store, err := kernel.Open(filepath.Join(built.dir, "kernels"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	f, err := os.Open(deb)
	if err != nil {
		return err
	}
	defer f.Close()
	k, err := store.Import(context.Background(), f, kernel.ImportOptions{}, nil)
	if err != nil {
		return err
	}
	set, err := k.Set(kernel.Guest)
	if err != nil {
		return err
	}
	made, err := store.Initramfs(context.Background(), k, agent, set)
	if err != nil {
		return err
	}
	built.image, built.initrd = k.Vmlinux(), made.Path
	if err := os.Chmod(built.dir, 0o755); err != nil {
		return err
	}
	tree := filepath.Join(built.dir, "tree")
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "bin/busybox"), program, 0o755)
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Fields("sh cat dd od date") {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", name)); err != nil {
			return err
		}
	}
	built.template = filepath.Join(built.dir, "template.erofs")
	if out, err := exec.Command(mkfs, "--all-root", built.template, tree).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %s", err, out)
	}
	return nil
}

// options are what differs between machines.
type options struct {
	memory   *os.File // nil: anonymous
	shared   bool
	incoming bool
	blank    bool // nothing is behind the disks
}

// machine is a QEMU that runs.
type machine struct {
	t       testing.TB
	dir     string
	cmd     *exec.Cmd
	disk    string
	errors  *words
	console *words
	streams net.Conn
	ended   chan struct{}
	started time.Time
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

// diskSize is that of a private disk. Unit: bytes.
const diskSize = 256 << 20

const memorySize = 512 * unit.MiB

// start runs a machine that is confined as in earnest.
func start(t testing.TB, o options) *machine {
	t.Helper()
	files(t)
	program, err := qemu.Find(t.Context())
	require.Machines(t)
	require.Host(t, "qemu-system-x86_64", err == nil, fmt.Sprint(err))
	m := &machine{t: t, dir: t.TempDir(), errors: new(words), console: new(words), ended: make(chan struct{})}
	var handed []*os.File
	defer func() {
		for _, f := range handed {
			f.Close()
		}
	}()
	hand := func(f *os.File, err error) int {
		must(t, err)
		handed = append(handed, f)
		return 2 + len(handed)
	}
	hand(os.Open(os.DevNull))
	g := qemu.Guest{
		Name: "test", Accelerator: qemu.TCG, Memory: memorySize, Processors: 1, TSC: qemu.TSC(), Ring: program.Ring,
		Firmware: program.Firmware, Incoming: o.incoming, MAC: "02:00:00:00:00:07",
	}
	if o.blank {
		g.Template, g.Disk = hand(readOnly(anonymous(1<<40))), hand(anonymous(10<<30))
	} else {
		m.disk = filepath.Join(m.dir, "disk.ext4")
		makeDisk(t, m.disk)
		g.Template, g.Disk = hand(os.Open(built.template)), hand(os.OpenFile(m.disk, os.O_RDWR, 0))
	}
	g.Control, g.Monitor = hand(m.listen("control")), hand(m.listen("monitor"))
	m.streams = pair(t, func(f *os.File) { g.Streams = hand(f, nil) })
	console := pair(t, func(f *os.File) { g.Console = hand(f, nil) })
	events := pair(t, func(f *os.File) { g.Events = hand(f, nil) })
	go io.Copy(m.console, console)
	go io.Copy(io.Discard, events)
	g.Tap = hand(tap())
	if !o.incoming {
		g.Kernel, g.Initrd = "/vmlinux", "/initramfs"
	}
	if o.memory != nil {
		fd, err := unix.FcntlInt(o.memory.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		g.Backing = qemu.Backing{File: confine.FilesPlace + "/" + strconv.Itoa(hand(os.NewFile(uintptr(fd), "memory"), err)), Shared: o.shared}
	}
	stage := confine.Spec{Program: program.Path, Args: g.Args(), User: user, First: 4, Last: 2 + len(handed), Files: o.memory != nil}
	if !o.incoming {
		stage.Show = []confine.Shown{{Path: built.image, At: g.Kernel}, {Path: built.initrd, At: g.Initrd}}
	}
	m.cmd = exec.Command("/proc/self/exe")
	m.cmd.Args = stage.Encode()
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
	m.cmd.ExtraFiles, m.cmd.Stderr = handed, m.errors
	m.started = time.Now()
	must(t, m.cmd.Start())
	go func() { m.cmd.Wait(); close(m.ended) }()
	t.Cleanup(func() {
		m.end()
		if t.Failed() {
			t.Logf("console:\n%s\nQEMU: %s", m.console, m.errors)
		}
	})
	return m
}

func (m *machine) end() {
	m.cmd.Process.Kill()
	<-m.ended
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

func anonymous(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("blank", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "blank")
	return f, f.Truncate(size)
}

// readOnly returns f as QEMU's descriptor of a disk that is not written to has to be.
func readOnly(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

func pair(t testing.TB, theirs func(*os.File)) net.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs(os.NewFile(uintptr(fds[1]), "qemu"))
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// tap returns a network device that leads nowhere, in a namespace of its own.
func tap() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return
		}
		r, _ := unix.NewIfreq("card")
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
		f = os.NewFile(uintptr(fd), "card")
	}()
	<-done
	return f, err
}

func makeDisk(t testing.TB, path string) {
	t.Helper()
	upper := t.TempDir()
	must(t, os.Mkdir(filepath.Join(upper, "upper"), 0o755), os.Mkdir(filepath.Join(upper, "work"), 0o755))
	if out, err := exec.Command(require.Tool(t, "mkfs.ext4"), "-q", "-d", upper, path, strconv.Itoa(diskSize>>10)+"k").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

func (m *machine) dial(ctx context.Context) *control.Client {
	m.t.Helper()
	c, err := control.Dial(ctx, filepath.Join(m.dir, "control"))
	if err != nil {
		m.t.Fatalf("%v\nQEMU: %s", err, m.errors)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}

func (m *machine) monitor(ctx context.Context) *qemu.QMP {
	m.t.Helper()
	q, err := qemu.Dial(ctx, filepath.Join(m.dir, "monitor"))
	if err != nil {
		m.t.Fatalf("%v\nQEMU: %s", err, m.errors)
	}
	m.t.Cleanup(func() { q.Close() })
	return q
}

// begin puts an environment together whose main program is a shell, and returns
// when that runs.
func (m *machine) begin(ctx context.Context, c *control.Client, script string) *streamstest.Client {
	m.t.Helper()
	r := spec.Run{
		Hostname: "guest", Template: "/dev/vda", Disk: "/dev/vdb", Clock: time.Now().UnixNano(), Entropy: make([]byte, 64),
		Network: &spec.Network{MAC: []byte{2, 0, 0, 0, 0, 0x17}, MTU: 1400, Address: []spec.Address{{IP: []byte{10, 9, 8, 7}, Bits: 24}}},
		Main:    &wire.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, WorkDir: "/"},
	}
	rand.Read(r.Entropy)
	type met struct {
		client *streamstest.Client
		err    error
	}
	meeting := make(chan met, 1)
	go func() { s, err := streamstest.Meet(ctx, m.streams); meeting <- met{s, err} }()
	must(m.t, c.Run(ctx, r))
	k := <-meeting
	must(m.t, k.err, k.client.Main().Started(ctx))
	return k.client
}

// run returns what the main program says.
func (m *machine) run(ctx context.Context, c *control.Client, script string) string {
	m.t.Helper()
	k := m.begin(ctx, c, script)
	result, err := k.Main().Collect(ctx)
	must(m.t, err, k.Taken())
	return string(result.Stdout)
}
