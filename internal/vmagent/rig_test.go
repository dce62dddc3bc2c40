package vmagent_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/test/bed"
)

var unpacked struct {
	once        sync.Once
	dir         string
	tree, image string
	err         error
}

// kernelFiles are the modules of Debian's cloud kernel, and its uncompressed image.
func kernelFiles(t *testing.T) (tree, image string) {
	t.Helper()
	require.Machines(t)
	deb := bed.KernelPackage(t)
	unpacked.once.Do(func() { unpacked.tree, unpacked.image, unpacked.err = unpack(deb) })
	if unpacked.err != nil {
		t.Fatal(unpacked.err)
	}
	return unpacked.tree, unpacked.image
}

func unpack(deb string) (tree, image string, err error) {
	if unpacked.dir, err = os.MkdirTemp("", "vmagent-kernel"); err != nil {
		return "", "", err
	}
	store, err := kernel.Open(filepath.Join(unpacked.dir, "store"), slog.New(slog.DiscardHandler))
	if err != nil {
		return "", "", err
	}
	f, err := os.Open(deb)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	k, err := store.Import(context.Background(), f, kernel.ImportOptions{}, nil)
	if err != nil {
		return "", "", err
	}
	tree = filepath.Join(unpacked.dir, "tree")
	if out, err := exec.Command("dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("unpack %s: %w: %s", deb, err, out)
	}
	return filepath.Join(tree, "lib/modules", k.Release, "kernel"), k.Vmlinux(), nil
}

// modules are those of a guest, in load order.
var modules = strings.Fields(`drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_mmio drivers/char/virtio_console
	drivers/block/virtio_blk drivers/char/hw_random/virtio-rng net/core/failover drivers/net/net_failover drivers/net/virtio_net
	fs/overlayfs/overlay lib/libcrc32c fs/erofs/erofs drivers/virtio/virtio_balloon`)

// late is the one of them that no program waits for.
const late = "drivers/char/hw_random/virtio-rng"

var built struct {
	once sync.Once
	path string
	err  error
}

// agentBinary builds the agent once for all tests.
func agentBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "vmagent")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "strata-vmagent")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", built.path, "../../cmd/strata-vmagent")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the agent: %w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
	if unpacked.dir != "" {
		os.RemoveAll(unpacked.dir)
	}
	os.Exit(status)
}

func initramfs(t *testing.T, without ...string) string {
	t.Helper()
	tree, _ := kernelFiles(t)
	var c cpio
	c.add("dev", 0o40755, nil, 0, 0)
	c.add("dev/console", 0o20600, nil, 5, 1)
	c.add("dev/null", 0o20666, nil, 1, 3) // Go opens it before anything else
	c.add("modules", 0o40755, nil, 0, 0)
	var order, later strings.Builder
	for _, m := range modules {
		name := "modules/" + filepath.Base(m) + ".ko"
		data, err := os.ReadFile(filepath.Join(tree, m+".ko"))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range without {
			if filepath.Base(m) == w {
				data = []byte("not a module")
			}
		}
		if at := bytes.LastIndex(data, []byte("~Module signature appended~\n")); at > 0 {
			size := binary.BigEndian.Uint32(data[at-4:])
			data = data[:at-12-int(size)] // struct module_signature
		}
		c.add(name, 0o100644, data, 0, 0)
		list := &order
		if m == late {
			list = &later
		}
		list.WriteString("/" + name + "\n")
	}
	c.add("modules/order", 0o100644, []byte(order.String()), 0, 0)
	c.add("modules/later", 0o100644, []byte(later.String()), 0, 0)
	program, err := os.ReadFile(agentBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	c.add("init", 0o100755, program, 0, 0)
	path := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(path, c.end(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// guest is one QEMU.
type guest struct {
	dir     string
	cmd     *exec.Cmd
	console *bytes.Buffer
	started time.Time
	streams net.Conn // the keeper's end
	ended   chan struct{}
}

type machine struct {
	template, disk string
	initramfs      string
	extra          []string
}

// bootGuest starts QEMU as docs and facts have it.
func bootGuest(t *testing.T, m machine) *guest {
	t.Helper()
	program := require.Tool(t, "qemu-system-x86_64")
	_, image := kernelFiles(t)
	if m.initramfs == "" {
		m.initramfs = initramfs(t)
	}
	g := &guest{dir: t.TempDir(), console: new(bytes.Buffer), ended: make(chan struct{})}
	// The keeper's end is there from the start, so it listens and QEMU connects.
	l, err := net.Listen("unix", filepath.Join(g.dir, "streams"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off", "-bios", "qboot.rom",
		"-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "512", "-no-reboot", "-kernel", image, "-initrd", m.initramfs,
		"-append", "quiet cryptomgr.notests noreplace-smp panic=-1 console=hvc0 tsc=reliable tsc_early_khz=" + strconv.Itoa(qemu.TSC()),
		"-device", "virtio-serial-device", "-chardev", "stdio,id=console", "-device", "virtconsole,chardev=console",
		"-chardev", "socket,id=control,path=" + filepath.Join(g.dir, "control") + ",server=on,wait=off", "-device", "virtserialport,chardev=control,name=strata.control",
		"-chardev", "socket,id=streams,path=" + filepath.Join(g.dir, "streams"), "-device", "virtserialport,chardev=streams,name=strata.streams",
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device",
		"-device", "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on",
	}
	if m.template != "" {
		args = append(args, "-drive", "if=none,id=t,format=raw,readonly=on,file="+m.template, "-device", "virtio-blk-device,drive=t,serial=strata-template",
			"-drive", "if=none,id=d,format=raw,file="+m.disk, "-device", "virtio-blk-device,drive=d,serial=strata-disk")
	}
	g.cmd = exec.Command(program, append(args, m.extra...)...)
	g.cmd.Stdout, g.cmd.Stderr = g.console, g.console
	g.started = time.Now()
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { g.cmd.Wait(); close(g.ended) }()
	t.Cleanup(func() {
		g.cmd.Process.Kill()
		<-g.ended
		if t.Failed() {
			t.Logf("console:\n%s", g.console)
		}
	})
	if g.streams, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.streams.Close() })
	return g
}

var patience = require.Patience(60 * time.Second)

func (g *guest) dial(t *testing.T) *control.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := control.Dial(ctx, filepath.Join(g.dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (g *guest) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.ended:
	case <-time.After(patience):
		t.Fatal("the guest does not end")
	}
}

func (g *guest) run(t *testing.T, c *control.Client, r spec.Run) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return c.Run(ctx, r)
}

// files makes a template of busybox and an empty disk.
func files(t *testing.T) (template, disk string) {
	t.Helper()
	return filesWith(t, func(string) {})
}

// filesWith does so after more has put more into the template's tree.
func filesWith(t *testing.T, more func(tree string)) (template, disk string) {
	t.Helper()
	busybox, err := os.ReadFile(require.Tool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	tree, dir := t.TempDir(), t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "root"} {
		if err := os.Mkdir(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, data []byte, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(tree, name), data, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/busybox", busybox, 0o755)
	write("etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"), 0o644)
	write("etc/hosts", []byte("of the template\n"), 0o644)
	for _, name := range strings.Fields("sh true false cat ls id ip mount echo sleep ps hostname date head dd kill stat sync mkdir test touch od grep wc sed tail tty poweroff tr") {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	more(tree)
	template, disk = filepath.Join(dir, "template.erofs"), filepath.Join(dir, "disk.ext4")
	command(t, require.Tool(t, "mkfs.erofs"), "--all-root", template, tree)
	upper := t.TempDir()
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(upper, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, require.Tool(t, "mkfs.ext4"), "-q", "-d", upper, disk, "256M")
	return template, disk
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func network() *spec.Network {
	v6 := func(last byte) []byte { return []byte{0: 0xfd, 15: last} }
	return &spec.Network{
		MAC: []byte{2, 0, 0, 0, 0, 0x17}, MTU: 1400,
		Address:  []spec.Address{{IP: []byte{10, 9, 8, 7}, Bits: 24}, {IP: v6(7), Bits: 64}},
		Gateways: [][]byte{{10, 9, 8, 1}, v6(1)},
	}
}

func basicRun() spec.Run {
	return spec.Run{
		Hostname: "guest", Template: "/dev/vda", Disk: "/dev/vdb", Clock: time.Now().UnixNano(), Entropy: bytes.Repeat([]byte{7}, 64),
		Files:   []spec.File{{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n")}},
		Network: network(),
		Memory:  64 << 20, PIDs: 64,
	}
}
