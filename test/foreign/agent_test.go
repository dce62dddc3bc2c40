package foreign

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// littleInit is the first program of a Debian that has little but its kernel and
// qemu-guest-agent.
const littleInit = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /var/run /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir /dev/pts
/bin/busybox mount -t devpts pts /dev/pts
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for m in $(cat /modules); do insmod $m || echo "no $m"; done
ip link set lo up
ip link set eth0 up
(sleep 1; udhcpc -i eth0 -q -s /dhcp) &
for p in /sys/class/virtio-ports/*; do
	[ "$(cat $p/name)" = org.qemu.guest_agent.0 ] && port=/dev/${p##*/}
done
echo "port: $port"
case "$(cat /proc/cmdline)" in *without*) ;; *) qemu-ga -m virtio-serial -p $port -t /run & ;; esac
echo little Debian is up
while :; do sleep 1000; done
`

// tree is what the little Debian consists of.
func tree(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"busybox", "ldd", "mke2fs"} {
		require.Tool(t, tool)
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	write("bin/busybox", read(busybox))
	for _, name := range strings.Fields("sh ls cat mkdir mount insmod ip udhcpc sleep echo kill poweroff mv chmod rm ln uname id env sync wc head date setsid stty pwd cp readlink dirname touch true false") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	agent := filepath.Join(unpacked(t, "qemu-guest-agent"), "usr/sbin/qemu-ga")
	write("usr/sbin/qemu-ga", read(agent))
	libraries, err := exec.Command("ldd", agent).Output()
	if err != nil {
		t.Fatalf("libraries of qemu-ga: %v", err)
	}
	for _, word := range strings.Fields(string(libraries)) {
		if strings.HasPrefix(word, "/") {
			write(word, read(word))
		}
	}
	write("init", littleInit)
	write("dhcp", "#!/bin/busybox sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev $interface\n")
	write("sbin/shutdown", "#!/bin/busybox sh\necho shutdown \"$@\" >/dev/console\n/bin/busybox poweroff -f\n")
	write("etc/os-release", "NAME=Debian\nPRETTY_NAME=\"little Debian\"\nID=debian\n")
	write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
	write("etc/group", "root:x:0:\nnogroup:x:65534:\n")
	modules(t, dir, write, read)
	return dir
}

// modules puts the drivers in, in the order in which they are loaded, and the kernel
// beside the tree.
func modules(t *testing.T, dir string, write func(name, text string), read func(string) string) {
	t.Helper()
	kernel := t.TempDir()
	if out, err := exec.Command("dpkg", "-x", bed.MachineKernelPackage(t), kernel).CombinedOutput(); err != nil {
		t.Fatalf("unpack the kernel: %v: %s", err, out)
	}
	var order []string
	for _, name := range strings.Fields("virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console e1000e") {
		var found []string
		for depth := range 4 { // drivers of cards are deeper down than others
			some, _ := filepath.Glob(filepath.Join(kernel, "lib/modules/*/kernel/drivers", strings.Repeat("*/", depth+1), name+".ko"))
			found = append(found, some...)
		}
		if len(found) != 1 {
			t.Fatalf("module %s: %q", name, found)
		}
		write("m/"+name+".ko", read(found[0]))
		order = append(order, "/m/"+name+".ko")
	}
	write("modules", strings.Join(order, "\n")+"\n")
	images, _ := filepath.Glob(filepath.Join(kernel, "boot/vmlinuz-*"))
	if len(images) != 1 {
		t.Fatalf("kernels: %q", images)
	}
	if err := os.Rename(images[0], dir+".vmlinuz"); err != nil {
		t.Fatal(err)
	}
}

// The disk of the little Debian: GRUB, as its installer would put it, and one partition.
const (
	sector         = 512
	partitionStart = 2048 // sectors
	diskSize       = 96 << 20
)

// littleDebian makes a disk that firmware boots. It is raw.
func littleDebian(t *testing.T, words string) string {
	t.Helper()
	dir, boot := tree(t), t.TempDir()
	pack := exec.Command("sh", "-c", "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"+boot+"/initrd && mv ../"+filepath.Base(dir)+".vmlinuz "+boot+"/vmlinuz")
	pack.Dir = dir
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("pack the initramfs: %v: %s", err, out)
	}
	work := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	parts, tools := filepath.Join(unpacked(t, "grub-pc-bin"), "usr/lib/grub/i386-pc"), unpacked(t, "grub-common")
	config := file(t, "grub.cfg", []byte("linux (hd0,msdos1)/vmlinuz console=ttyS0 quiet panic=5 "+words+"\ninitrd (hd0,msdos1)/initrd\nboot\n"))
	run(filepath.Join(tools, "usr/bin/grub-mkimage"), "-d", parts, "-O", "i386-pc", "-o", work+"/core.img", "-p", "(hd0,msdos1)/", "-c", config, "biosdisk", "part_msdos", "ext2", "linux", "boot")
	first, err := os.ReadFile(filepath.Join(parts, "boot.img"))
	if err != nil {
		t.Fatal(err)
	}
	core, err := os.ReadFile(work + "/core.img")
	if err != nil {
		t.Fatal(err)
	}
	if len(core) > (partitionStart-1)*sector {
		t.Fatalf("GRUB has %d bytes", len(core))
	}
	head := make([]byte, sector, sector+len(core))
	copy(head, first)
	entry := head[446:510] // where boot.img has code for floppies
	clear(entry)
	entry[0], entry[4] = 0x80, 0x83 // active, Linux
	binary.LittleEndian.PutUint32(entry[8:], partitionStart)
	binary.LittleEndian.PutUint32(entry[12:], diskSize/sector-partitionStart)
	head[510], head[511] = 0x55, 0xaa
	disk := filepath.Join(work, "disk.raw")
	if err := os.WriteFile(disk, append(head, core...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, diskSize); err != nil {
		t.Fatal(err)
	}
	run("mke2fs", "-q", "-F", "-t", "ext2", "-d", boot, "-E", "offset=1048576", disk, "94m")
	return disk
}

// TestAGuestAgentIsSpokenWith runs a system that has qemu-guest-agent, and nothing of
// strata's.
func TestAGuestAgentIsSpokenWith(t *testing.T) {
	b := start(t)
	b.Run("run", "--name", "deb", "--os", "linux", "--disk-image", littleDebian(t, ""), "--memory", "256M")
	await(t, "it is ready", func() bool { return show(t, b, "deb").Ready })
	b.Run("wait", "deb", "--ready", "--timeout", "10s")
	if out := b.Try("exec", "deb", "uname", "-s"); out.Status != 0 || out.Stdout != "Linux\n" {
		t.Fatalf("uname: %+v", out)
	}
	for what, c := range map[string]struct {
		args   []string
		status int
		out    string
		err    string
	}{
		"streams are kept apart":  {[]string{"exec", "deb", "sh", "-c", "echo out; echo err >&2; exit 7"}, 7, "out\n", "err\n"},
		"a signal ends a program": {[]string{"exec", "deb", "sh", "-c", "kill -TERM $$"}, 143, "", ""},
		"it has its variables":    {[]string{"exec", "-e", "A=b c", "deb", "sh", "-c", `echo "$A"`}, 0, "b c\n", ""},
		"a program is missing":    {[]string{"exec", "deb", "/no/such"}, 127, "", "No such file"},
		"a terminal is refused":   {[]string{"exec", "-t", "deb", "sh"}, 125, "", "terminal"},
		"a user is refused":       {[]string{"exec", "-u", "nobody", "deb", "id"}, 125, "", "own user"},
		"a folder is refused":     {[]string{"exec", "-w", "/tmp", "deb", "id"}, 125, "", "folder"},
	} {
		out := b.Try(c.args...)
		if out.Status != c.status || out.Stdout != c.out || c.err != "" && !strings.Contains(out.Stderr, c.err) {
			t.Errorf("%s: %+v", what, out)
		}
	}
	out := b.Feed(bytes.NewReader(bytes.Repeat([]byte("0123456789"), 30_000)), "exec", "-i", "deb", "wc", "-c")
	if out.Status != 0 || out.Stdout != "300000\n" {
		t.Errorf("input: %+v", out)
	}
	if out := b.Feed(bytes.NewReader(make([]byte, 2<<20)), "exec", "-i", "deb", "wc", "-c"); out.Status != 125 || !strings.Contains(out.Stderr, "1 MiB of input") {
		t.Errorf("much input: %+v", out)
	}
	if out := b.Try("exec", "deb", "head", "-c", "3000000", "/dev/zero"); len(out.Stdout) != 3_000_000 || out.Status != 0 {
		t.Errorf("%d bytes of output, status %d, %s", len(out.Stdout), out.Status, out.Stderr)
	}
	e := show(t, b, "deb")
	if a := e.GuestAgent; a == nil || a.Kind != "qemu" || a.System != "little Debian" || !strings.HasPrefix(a.Version, "7.") || !e.Ready {
		t.Errorf("%+v", a)
	}
	own, _, _ := strings.Cut(e.Network.IPv4, "/")
	await(t, "its address is told", func() bool {
		a := show(t, b, "deb").GuestAgent
		return a != nil && len(a.Addresses) == 1 && strings.HasPrefix(a.Addresses[0], own+"/")
	})
	if out := b.Run("ps", "deb"); !strings.Contains(out, "qemu-guest-agent answers") {
		t.Errorf("ps: %s", out)
	}
	installs(t, b, "deb")
	// The clock stands still while the system does, and is set then.
	b.Run("pause", "deb")
	if out := b.Try("exec", "deb", "true"); out.Status != 125 || !strings.Contains(out.Stderr, "paused") {
		t.Errorf("paused: %+v", out)
	}
	b.Run("resume", "deb")
	began := time.Now()
	b.Run("stop", "deb") // its kernel has no driver for the power button
	if e := show(t, b, "deb"); e.Exit == nil || e.Exit.Crash != "" || e.Exit.Signal != 0 || e.GuestAgent != nil {
		t.Errorf("after %v: %+v", time.Since(began), e.Exit)
	}
	b.Run("rm", "deb")
}

// installs has strata's own agent put into a system, without anything typed there.
func installs(t *testing.T, b *bed.Bed, name string) {
	t.Helper()
	if out := b.Try("cp", name+":/etc/os-release", t.TempDir()); out.Status == 0 || !strings.Contains(out.Stderr, "strata agent install") {
		t.Errorf("cp without strata's agent: %+v", out)
	}
	b.Run("agent", "install", name)
	if a := show(t, b, name).GuestAgent; a == nil || a.Kind != "strata" || a.System != "little Debian" {
		t.Errorf("installed: %+v", a)
	}
	for what, c := range map[string]struct {
		args   []string
		status int
		out    string
	}{
		"a program ends":       {[]string{"exec", name, "sh", "-c", "echo out; exit 7"}, 7, "out\n"},
		"a user is another":    {[]string{"exec", "-u", "nobody", name, "id", "-un"}, 0, "nobody\n"},
		"a folder is chosen":   {[]string{"exec", "-w", "/etc", name, "sh", "-c", "pwd"}, 0, "/etc\n"},
		"a signal is told":     {[]string{"exec", name, "sh", "-c", "kill -KILL $$"}, 137, ""},
		"a program is missing": {[]string{"exec", name, "/no/such"}, 127, ""},
	} {
		if out := b.Try(c.args...); out.Status != c.status || out.Stdout != c.out {
			t.Errorf("by strata's agent, %s: %+v", what, out)
		}
	}
	if out := b.Feed(bytes.NewReader(make([]byte, 2<<20)), "exec", "-i", name, "wc", "-c"); out.Stdout != "2097152\n" {
		t.Errorf("by strata's agent, much input: %+v", out)
	}
	tty := b.Terminal(t, 33, 77, "exec", "-it", name, "sh", "-c", "stty size; exit 5")
	tty.Expect("33 77")
	if status := tty.Wait(); status != 5 {
		t.Errorf("by strata's agent, a terminal: status %d", status)
	}
	dir := t.TempDir()
	b.Run("cp", name+":/etc/os-release", dir)
	if text, err := os.ReadFile(filepath.Join(dir, "os-release")); err != nil || !strings.Contains(string(text), "little Debian") {
		t.Errorf("copied: %q, %v", text, err)
	}
	b.Run("cp", filepath.Join(dir, "os-release"), name+":/tmp/")
	if out := b.Run("exec", name, "cat", "/tmp/os-release"); !strings.Contains(out, "little Debian") {
		t.Errorf("copied in: %q", out)
	}
	if out := b.Run("ps", name); !strings.Contains(out, "qemu-ga") {
		t.Errorf("ps: %s", out)
	}
	if out := b.Run("logs", "--kernel", name); !strings.Contains(out, "e1000e") {
		t.Errorf("the kernel's log: %d bytes", len(out))
	}
	// It outlives the daemon, and its own end.
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	await(t, "the next daemon finds the agent", func() bool {
		a := show(t, b, name).GuestAgent
		return a != nil && a.Kind == "strata"
	})
	b.Run("agent", "install", name) // which ends the one that runs
	if out := b.Try("exec", name, "echo", "again"); out.Stdout != "again\n" {
		t.Errorf("by an agent that was installed again: %+v", out)
	}
}

// TestNoGuestAgentIsThere runs the same system without it, and without a port for it.
func TestNoGuestAgentIsThere(t *testing.T) {
	b := start(t)
	disk := littleDebian(t, "without")
	b.Run("run", "--name", "deb", "--os", "linux", "--disk-image", disk, "--memory", "256M")
	console(t, b, "deb", "port: /dev/vport0p")
	if e := show(t, b, "deb"); e.Ready || e.GuestAgent != nil {
		t.Errorf("it is ready: %+v", e.GuestAgent)
	}
	if out := b.Try("wait", "deb", "--ready", "--timeout", "2s"); out.Status == 0 || !strings.Contains(out.Stderr, "not ready within 2s") {
		t.Errorf("wait: %+v", out)
	}
	if out := b.Try("exec", "deb", "true"); out.Status != 125 || !strings.Contains(out.Stderr, "install qemu-guest-agent") {
		t.Errorf("exec: %+v", out)
	}
	if out := b.Run("agent", "install", "deb"); !strings.Contains(out, "sh /mnt/install.sh") {
		t.Errorf("what is to be typed: %q", out)
	}
	if f := show(t, b, "deb").Spec.Foreign; !strings.HasSuffix(f.ISO, "/agent.iso") {
		t.Errorf("in the drive: %q", f.ISO)
	}
	b.Run("rm", "-f", "deb")
	b.Run("run", "--name", "deb", "--os", "linux", "--no-guest-agent", "--disk-image", disk, "--memory", "256M")
	if e := show(t, b, "deb"); !e.Ready {
		t.Error("a system in which nobody can answer is not ready at once")
	}
	console(t, b, "deb", "port: \r\nlittle")
	b.Run("rm", "-f", "deb")
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(require.Patience(5 * time.Minute)); !so(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// console waits until a system has written words to its serial line.
func console(t *testing.T, b *bed.Bed, name, words string) {
	t.Helper()
	await(t, words+" is written", func() bool {
		return strings.Contains(b.Try("console", name).Stdout, words)
	})
}
