package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/kernel/bootdisk"
)

// board is the best QEMU command that we know for what strata does with a machine: the
// same board with the same disks, screen, serial port and card, the same firmware
// without a menu, and the same kernel, put on its boot disk unpacked by the same maker.
// What differs is who runs inside: no agent, but a program that is a list of system calls,
// and an initramfs with the drivers of the disks and the file systems alone.
type board struct {
	*bare
	memory int    // MiB
	serial int    // of boot disks
	last   string // what the last one's serial port said, the kernel's words among it
}

// boardModules are what such a system cannot do without. The kernel's own order of
// dependencies comes first.
var boardModules = kernel.Wanted{
	For: "machines", Early: []string{"crc32c_generic"}, Required: []string{"ahci", "sd_mod", "overlay", "erofs", "ext4"},
}

// board makes what bare machines start from: it looks at what strata's are, so that these
// are the same.
func (e *env) board() (*board, error) {
	if err := e.machineKernel(); err != nil {
		return nil, err
	}
	if err := e.beginAt("machine", "same"); err != nil {
		return nil, err
	}
	same, err := e.show("same")
	if out, err := e.strata("rm", "-f", "same").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	if err != nil {
		return nil, err
	}
	if same.Boot == nil {
		return nil, fmt.Errorf("strata does not say how its machine was booted")
	}
	b, err := e.boardOf(*same.Boot)
	if err != nil {
		return nil, err
	}
	fmt.Printf("  %s, kernel %s, accelerator %s (%s)\n", b.version(), same.Boot.Release, same.Boot.Accelerator, same.Boot.Why)
	return b, nil
}

func (e *env) boardOf(boot api.Boot) (*board, error) {
	b := &board{bare: &bare{dir: filepath.Join(e.work, "board"), console: "/dev/ttyS0", disks: [2][]string{{"/dev/sdb", "/dev/sda", "/dev/sdc"}, {"/dev/sdc", "/dev/sdb", "/dev/sda"}}}, memory: int(boot.Memory >> 20)}
	var err error
	if b.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, err
	}
	// The daemon works on the store: this is a look at a copy, of links.
	store := filepath.Join(b.dir, "kernels")
	if err := errors.Join(os.RemoveAll(b.dir), os.MkdirAll(b.dir, 0o755)); err != nil {
		return nil, err
	}
	if out, err := exec.Command("cp", "-al", filepath.Join(e.root, "state", "kernels"), store).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	kernels, err := kernel.Open(store, nil)
	if err != nil {
		return nil, err
	}
	k, err := kernels.Get(boot.Kernel)
	if err != nil {
		return nil, err
	}
	set, err := k.Set(boardModules)
	if err != nil {
		return nil, err
	}
	for _, m := range set.Modules {
		b.load, b.modules = append(b.load, m.Name), filepath.Dir(m.Path)
	}
	b.vmlinux = k.Vmlinux()
	b.machine(boot.Accelerator)
	return b, b.images(e)
}

// booted makes the disk that firmware boots, of a machine that runs args. Its output goes to
// the serial port where heard is set.
func (b *board) booted(heard bool, args ...string) (string, error) {
	initramfs, err := b.initramfs(heard, args...)
	if err != nil {
		return "", err
	}
	vmlinux, err := os.Open(b.vmlinux)
	if err != nil {
		return "", err
	}
	defer vmlinux.Close()
	archive, err := os.ReadFile(initramfs)
	if err != nil {
		return "", err
	}
	b.serial++
	path := filepath.Join(b.dir, fmt.Sprintf("boot-%d", b.serial))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line := b.line
	if heard {
		path, line = path+heardTail, line+" console=ttyS0" // which is also why what the program says is out before the power is off
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	_, err = bootdisk.Make(context.Background(), f, bootdisk.Parts{Kernel: vmlinux, Initramfs: bytes.NewReader(archive), InitramfsSize: int64(len(archive)), CommandLine: line})
	return path, err
}

// args are QEMU's for a boot disk.
func (b *board) args(boot string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "q35,usb=off,vmport=off", "-accel", b.accelerator, "-cpu", b.processor, "-m", fmt.Sprint(b.memory),
		"-boot", "menu=off,strict=on", "-device", "VGA",
		"-netdev", "hubport,id=net,hubid=0", "-device", "e1000e,netdev=net,romfile=",
		"-device", "isa-serial,chardev=console",
	}
	console := "null"
	if strings.HasSuffix(boot, heardTail) {
		console = "stdio"
	}
	args = append(args, "-chardev", console+",id=console")
	for i, path := range []string{boot, b.template, filepath.Join(b.dir, "disk")} {
		drive := fmt.Sprintf("if=none,id=disk%d,format=raw,discard=unmap,aio=threads,file=%s", i, path)
		device := fmt.Sprintf("ide-hd,drive=disk%d,bus=ide.%d", i, i)
		if i == 0 {
			device += ",bootindex=0"
		}
		args = append(args, "-drive", drive, "-device", device)
	}
	return args
}

// ran is a run of a machine, in milliseconds.
type ran struct {
	took, used float64 // wall and processor time
	first      float64 // until the first word came, 0 where none did
	said       string  // on the serial port, but for the kernel's words
}

// run boots a machine from a boot disk to its end, with a fresh private disk.
func (b *board) run(boot string) (r ran, err error) {
	if out, err := exec.Command("cp", "--sparse=always", b.blank, filepath.Join(b.dir, "disk")).CombinedOutput(); err != nil {
		return r, fmt.Errorf("%w: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), barePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.qemu, b.args(boot)...)
	out := hearing{begun: time.Now()}
	var warned strings.Builder // that a card has no cable is said
	cmd.Stdout, cmd.Stderr = &out, &warned
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("bare QEMU: %w: %s", err, warned.String())
	}
	r.took, r.used = milliseconds(time.Since(out.begun)), milliseconds(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	r.first, b.last = milliseconds(out.first), out.String()
	for line := range strings.Lines(b.last) {
		if !strings.HasPrefix(line, "[") { // else the kernel says it
			r.said += line
		}
	}
	return r, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// check proves that a machine does what it is timed for.
func (b *board) check() error {
	boot, err := b.booted(true, "/bin/sh", "-c", "echo $(id -u) $(grep -c overlay /proc/mounts) > /written && sync && cat /written")
	if err != nil {
		return err
	}
	r, err := b.run(boot)
	if err != nil {
		return err
	}
	if words := strings.Fields(r.said); !slices.Equal(words, []string{"0", "1"}) {
		return fmt.Errorf("the bare machine does not do its work; it says %q", b.last)
	}
	return nil
}
