package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
)

// bare is the best QEMU command that we know for what strata does with a guest: a
// machine with two disks and nothing else, the kernel entered uncompressed, an
// initramfs of a few modules and a program that mounts, overlays, runs and powers
// off. It is made of the same kernel, the same busybox, and the same QEMU.
type bare struct {
	qemu, vmlinux, modules string
	dir                    string
	template, blank        string      // images: the template, and what every disk is a copy of
	accelerator, processor string      // as strata has them here
	line                   string      // of the kernel
	load                   []string    // modules, in the order of loading
	talk                   []string    // those that are loaded first where something is to be heard
	console                string      // its device
	disks                  [2][]string // what may be the template, and the private disk: to try a wrong one does no harm
	nothing                string      // an archive whose machine runs true
	made                   int         // archives
}

// bareModules are in the order of loading.
var bareModules = []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "overlay", "libcrc32c", "erofs"}

// heardTail ends the names of archives whose machines have a console.
const heardTail = "-heard"

// consoleModules are added where something is to be heard of the guest.
var consoleModules = []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_console"}

// barePatience is how long a machine may take. One that hangs is an error.
const barePatience = 5 * time.Minute

// bare makes what its machines start from. The kernel is strata's.
func (e *env) bare() (*bare, error) {
	b := &bare{dir: filepath.Join(e.work, "bare"), load: bareModules, talk: consoleModules, console: "/dev/hvc0", disks: [2][]string{{"/dev/vda"}, {"/dev/vdb"}}}
	var err error
	if b.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	out, err := e.strata("kernel", "ls", "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("strata kernel ls: %w", err)
	}
	var kernels []api.Kernel
	if err := json.Unmarshal(out, &kernels); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(kernels, func(k api.Kernel) bool { return k.Default })
	if at < 0 {
		return nil, fmt.Errorf("strata has no default kernel")
	}
	dir := filepath.Join(e.root, "state", "kernels", strings.TrimPrefix(kernels[at].ID, "sha256:"))
	b.vmlinux, b.modules = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "modules")
	return b, b.images(e)
}

// images makes the template, with this very program in it, and an empty disk.
func (b *bare) images(e *env) error {
	plain, err := e.tree()
	if err != nil {
		return err
	}
	tree := filepath.Join(b.dir, "tree")
	self, err := e.self()
	if err != nil {
		return err
	}
	b.template, b.blank = filepath.Join(b.dir, "template"), filepath.Join(b.dir, "blank")
	for _, command := range [][]string{
		{"cp", "-a", plain, tree},
		{"ln", "-s", "busybox", filepath.Join(tree, "bin", "sh")},
		{"cp", self, filepath.Join(tree, "bench")},
		{"mkfs.erofs", b.template, tree},
		{"truncate", "-s", "10G", b.blank},
		{"mkfs.ext4", "-q", "-E", "assume_storage_prezeroed=1,nodiscard,lazy_journal_init=1", b.blank},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", command, err, out)
		}
	}
	return nil
}

// initramfs returns an archive whose /init mounts what b has and runs args on it. Its
// output goes to the console where heard is set.
func (b *bare) initramfs(heard bool, args ...string) (string, error) {
	modules := b.load
	p := new(program)
	p.call(callMount, "devtmpfs", "/dev", "devtmpfs", 0, 0)
	// While it starts its first program, the kernel waits less for its own readers;
	// going on so halves what mounts and modules take.
	p.call(callMount, "sysfs", "/sys", "sysfs", 0, 0)
	p.call(callOpen, "/sys/kernel/rcu_expedited", openReadWrite)
	p.call(callWrite, result{}, "1", 1)
	if heard {
		modules = slices.Concat(b.talk, slices.DeleteFunc(slices.Clone(b.load), func(m string) bool { return slices.Contains(b.talk, m) }))
	}
	for _, m := range modules {
		p.call(callOpen, "/"+m, 0)
		p.call(callFinit, result{}, "", 0)
	}
	for _, disk := range b.disks[0] {
		p.call(callMount, disk, "/template", "erofs", mountReadOnly, 0)
	}
	for _, disk := range b.disks[1] {
		p.call(callMount, disk, "/disk", "ext4", 0, 0)
	}
	p.call(callMkdir, "/disk/upper", 0o755)
	p.call(callMkdir, "/disk/work", 0o755)
	p.call(callMount, "overlay", "/root", "overlay", 0, "lowerdir=/template,upperdir=/disk/upper,workdir=/disk/work")
	if heard {
		for fd := range 3 {
			p.call(callOpen, b.console, openReadWrite)
			p.call(callDup2, result{}, fd)
		}
	}
	p.call(callMount, "/dev", "/root/dev", "", mountMove, 0)
	p.call(callChroot, "/root")
	p.call(callChdir, "/")
	p.call(callMount, "proc", "/proc", "proc", 0, 0)
	p.call(callVfork)
	argv, environment := p.list(args...), p.list("PATH=/bin")
	p.whereZero(func() {
		p.call(callExecve, args[0], argv, environment)
		p.call(callExit, 127)
	})
	p.call(callWait4, -1, 0, 0, 0)
	p.call(callReboot, rebootMagic1, rebootMagic2, powerOff)
	return b.archive(heard, modules, archived{"init", 0o100755, p.file()})
}

const mountMove = 0x2000 // linux/mount.h, MS_MOVE

// shell returns the archive that most people would make: busybox and a script.
func (b *bare) shell() (string, error) {
	name, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	busybox, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	script := "#!/bin/busybox sh\nb=/bin/busybox\n$b mount -t devtmpfs dev /dev\n"
	for _, m := range bareModules {
		script += "$b insmod /" + m + "\n"
	}
	script += "$b mount -t erofs -o ro /dev/vda /template\n$b mount -t ext4 /dev/vdb /disk\n$b mkdir -p /disk/upper /disk/work\n" +
		"$b mount -t overlay -o lowerdir=/template,upperdir=/disk/upper,workdir=/disk/work overlay /root\n$b chroot /root /bin/true\n$b poweroff -f\n"
	return b.archive(false, bareModules, archived{"bin", 0o40755, nil}, archived{"bin/busybox", 0o100755, busybox}, archived{"init", 0o100755, []byte(script)})
}

type archived struct {
	name string
	mode int
	data []byte
}

// archive writes a cpio archive as the kernel unpacks it: with the modules, the
// folders to mount on, and more. Source: Documentation/driver-api/early-userspace/buffer-format.rst.
func (b *bare) archive(heard bool, modules []string, more ...archived) (string, error) {
	for _, dir := range []string{"dev", "sys", "template", "disk", "root"} {
		more = append(more, archived{dir, 0o40755, nil})
	}
	for _, m := range modules {
		data, err := os.ReadFile(filepath.Join(b.modules, m+".ko"))
		if err != nil {
			return "", err
		}
		more = append(more, archived{m, 0o100644, data})
	}
	var f bytes.Buffer
	pad := func() { f.Write(make([]byte, -f.Len()&3)) }
	for i, a := range append(more, archived{"TRAILER!!!", 0, nil}) {
		fmt.Fprintf(&f, "070701%08x%08x%016x%08x%08x%08x%032x%08x%08x%s\x00", i, a.mode, 0, 1, 0, len(a.data), 0, len(a.name)+1, 0, a.name)
		pad()
		f.Write(a.data)
		pad()
	}
	b.made++
	path := filepath.Join(b.dir, "initramfs-"+strconv.Itoa(b.made))
	if heard {
		path += heardTail
	}
	return path, os.WriteFile(path, f.Bytes(), 0o644)
}

// machine takes strata's accelerator. What goes with it are the best values found.
func (b *bare) machine(accelerator string) {
	b.accelerator, b.processor = accelerator, "host"
	b.line = "quiet cryptomgr.notests noreplace-smp panic=-1"
	if accelerator == "kvm" {
		return
	}
	b.processor = "qemu64,+rdrand"
	if khz := tsc(); khz > 0 {
		b.line += fmt.Sprintf(" tsc=reliable tsc_early_khz=%d", khz)
	}
}

func (b *bare) version() string {
	out, _ := exec.Command(b.qemu, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// disk is how a machine has its private disk.
func (b *bare) disk(aio string) []string {
	return []string{"-drive", "if=none,id=disk,format=raw,discard=unmap,aio=" + aio + ",file=" + filepath.Join(b.dir, "disk"), "-device", "virtio-blk-device,drive=disk"}
}

// boot runs a machine from an archive to its end, on a fresh disk, and returns how
// many milliseconds it was there and what its console said.
func (b *bare) boot(initramfs, aio string) (float64, string, error) {
	if out, err := exec.Command("cp", "--sparse=always", b.blank, filepath.Join(b.dir, "disk")).CombinedOutput(); err != nil {
		return 0, "", fmt.Errorf("%w: %s", err, out)
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off", "-accel", b.accelerator, "-cpu", b.processor, "-m", "512", "-bios", "qboot.rom",
		"-kernel", b.vmlinux, "-initrd", initramfs, "-append", b.line,
		"-drive", "if=none,id=template,format=raw,readonly=on,file=" + b.template, "-device", "virtio-blk-device,drive=template",
	}
	args = append(args, b.disk(aio)...)
	if strings.HasSuffix(initramfs, heardTail) {
		args = append(args, "-device", "virtio-serial-device", "-chardev", "stdio,id=console", "-device", "virtconsole,chardev=console")
	}
	ctx, cancel := context.WithTimeout(context.Background(), barePatience)
	defer cancel()
	begun := time.Now()
	out, err := exec.CommandContext(ctx, b.qemu, args...).CombinedOutput()
	if err != nil {
		return 0, "", fmt.Errorf("bare QEMU: %w: %s", err, out)
	}
	return float64(time.Since(begun).Microseconds()) / 1000, string(out), nil
}

// check proves that a machine does what it is timed for.
func (b *bare) check() (err error) {
	if b.nothing, err = b.initramfs(false, "/bin/true"); err != nil {
		return err
	}
	initramfs, err := b.initramfs(true, "/bin/sh", "-c", "echo $(id -u) $(grep -c overlay /proc/mounts) > /written && sync && cat /written")
	if err != nil {
		return err
	}
	_, said, err := b.boot(initramfs, "threads")
	if err == nil && strings.TrimSpace(said) != "0 1" {
		err = fmt.Errorf("the bare machine does not do its work; it says %q", said)
	}
	return err
}
