package bootdisk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/kernel/bootdisk"
	"github.com/strata-project/strata/internal/kernel/cpio"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
)

// TestMain makes this program the /init of a machine where it is one.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		initialize()
		return
	}
	code := m.Run()
	if boot.dir != "" {
		_ = os.RemoveAll(boot.dir)
	}
	os.Exit(code)
}

// initialize tells what came of the boot, and ends the machine.
func initialize() {
	_ = unix.Mount("proc", "/proc", "proc", 0, "")
	_ = unix.Mount("sysfs", "/sys", "sysfs", 0, "")
	line, _ := os.ReadFile("/proc/cmdline")
	_, err := os.Stat("/sys/firmware/efi")
	fmt.Printf("command line: %s.\n", bytes.TrimSpace(line))
	large, _ := os.ReadFile("/large")
	fmt.Printf("efi %v large %x\n", err == nil, sha256.Sum256(large))
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // PID 1 does not return
}

// boot is what all tests here boot, made once.
var boot struct {
	once                     sync.Once
	dir, vmlinux, cpio, disk string
	command, large           string
	err                      error
}

// prepared gets the distribution's kernel, as users do, and makes a disk with it.
func prepared(t testing.TB) {
	t.Helper()
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	require.Tool(t, "apt-get")
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").CombinedOutput()
	require.Host(t, "debian-mirror", err == nil && bytes.Contains(out, []byte("Depends: linux-image-")), "apt knows no package linux-image-cloud-amd64")
	boot.once.Do(func() { boot.err = prepare(context.Background()) })
	if boot.err != nil {
		t.Fatal(boot.err)
	}
}

func prepare(ctx context.Context) (err error) {
	if boot.dir, err = os.MkdirTemp("", "strata-bootdisk-"); err != nil {
		return err
	}
	s, err := kernel.Open(filepath.Join(boot.dir, "kernels"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	k, err := s.Add(ctx, kernel.AddOptions{Source: "debian"}, nil)
	if err != nil {
		return err
	}
	boot.vmlinux, boot.cpio, boot.disk = k.Vmlinux(), filepath.Join(boot.dir, "initramfs"), filepath.Join(boot.dir, "disk")
	boot.command = fmt.Sprintf("console=ttyS0 panic=-1 quiet tsc_early_khz=%d", qemu.TSC())
	if err := archive(); err != nil {
		return err
	}
	return write(ctx, boot.disk)
}

// archive makes an initramfs of this program and a file that nobody can compress.
func archive() error {
	large := make([]byte, 5<<20+77)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(large)
	boot.large = fmt.Sprintf("%x", sha256.Sum256(large))
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	f, err := os.Create(boot.cpio)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.NewWriter(f)
	for _, dir := range []string{"dev", "proc", "sys"} {
		err = errors.Join(err, w.Folder(dir, 0o755))
	}
	return errors.Join(err, w.Character("dev/console", 0o600, 5, 1),
		w.File("init", 0o755, int64(len(program)), bytes.NewReader(program)),
		w.File("large", 0o644, int64(len(large)), bytes.NewReader(large)), w.Close())
}

func write(ctx context.Context, path string) error {
	vmlinux, err := os.Open(boot.vmlinux)
	if err != nil {
		return err
	}
	defer vmlinux.Close()
	initramfs, err := os.Open(boot.cpio)
	if err != nil {
		return err
	}
	defer initramfs.Close()
	info, err := initramfs.Stat()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = bootdisk.Make(ctx, f, bootdisk.Parts{Kernel: vmlinux, Initramfs: initramfs, InitramfsSize: info.Size(), CommandLine: boot.command})
	return err
}

// machine returns a QEMU of a type with a disk at its first port. Its place in the
// order leaves the first to what -kernel takes.
func machine(ctx context.Context, kind, disk string, more ...string) *exec.Cmd {
	args := []string{"-M", kind, "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-drive", "if=none,id=disk,format=raw,snapshot=on,file=" + disk, "-device", "ide-hd,bus=ide.0,drive=disk,bootindex=1"}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, more...)...)
	cmd.Dir = boot.dir
	return cmd
}

// ovmf asks for the firmware and returns the options that it takes.
func ovmf(t *testing.T) []string {
	t.Helper()
	const code, vars = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	store, err := os.ReadFile(vars)
	require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
	own := filepath.Join(boot.dir, "vars") // a test's own folder has its name, and QEMU takes a comma for an end
	if err := os.WriteFile(own, store, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "if=pflash,format=raw,readonly=on,file=" + code, "-drive", "if=pflash,format=raw,file=" + own}
}

func TestStockFirmwareBootsTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		kind string
		uefi bool
		more []string
	}{
		"a BIOS from AHCI":                    {kind: "q35"},
		"a BIOS from AHCI, with a VGA":        {kind: "q35", more: []string{"-vga", "std"}},
		"a BIOS from IDE":                     {kind: "pc"},
		"a BIOS, with memory on either side":  {kind: "q35", more: []string{"-m", "4G"}},
		"UEFI from AHCI":                      {kind: "q35", uefi: true},
		"UEFI from AHCI, with a screen":       {kind: "q35", uefi: true, more: []string{"-vga", "std"}},
		"UEFI, with memory on either side":    {kind: "q35", uefi: true, more: []string{"-m", "4G"}},
		"a BIOS, with as little as it can be": {kind: "q35", more: []string{"-m", "160"}},
	} {
		t.Run(name, func(t *testing.T) {
			prepared(t)
			if c.uefi {
				c.more = append(c.more, ovmf(t)...)
			}
			ctx, cancel := context.WithTimeout(t.Context(), require.Patience(3*time.Minute))
			defer cancel()
			start := time.Now()
			out, err := machine(ctx, c.kind, boot.disk, c.more...).CombinedOutput()
			t.Logf("booted, and ended, in %v", time.Since(start))
			for _, want := range []string{"command line: " + boot.command + ".", fmt.Sprintf("efi %v large %s", c.uefi, boot.large)} {
				if err != nil || !bytes.Contains(out, []byte(want)) {
					t.Fatalf("%v: it did not say %q:\n%s", err, want, out)
				}
			}
		})
	}
}

func TestALoaderSaysWhyItCannot(t *testing.T) {
	for name, c := range map[string]struct {
		more []string
		uefi bool
		harm func(disk []byte)
		says string
	}{
		"too little memory":            {more: []string{"-m", "48"}, says: "strata: the machine has not enough memory"},
		"too little memory, UEFI":      {more: []string{"-m", "64"}, uefi: true, says: "strata: the machine has not enough memory"},
		"a processor of 32 bits":       {more: []string{"-cpu", "qemu32"}, says: "strata: the processor has no 64-bit mode"},
		"a disk that was written over": {harm: func(disk []byte) { clear(disk[43*512 : 58*512]) }, says: "strata: the boot disk is damaged"},
		"a disk that is cut":           {harm: func(disk []byte) {}, says: "strata: the boot disk cannot be read"},
		"a disk that is cut, for UEFI": {uefi: true, harm: func(disk []byte) {}, says: "strata: the boot disk cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			prepared(t)
			if c.uefi {
				c.more = append(c.more, ovmf(t)...)
			}
			disk := boot.disk
			if c.harm != nil {
				disk = harmed(t, c.harm, c.says == "strata: the boot disk cannot be read")
			}
			ctx, cancel := context.WithTimeout(t.Context(), require.Patience(2*time.Minute))
			defer cancel()
			cmd := machine(ctx, "q35", disk, c.more...)
			seen := &watched{want: []byte(c.says), done: cancel}
			cmd.Stdout = seen
			err := cmd.Run() // ends with what is waited for, or with the time
			if !seen.found() {
				t.Errorf("%v: it did not say %q:\n%s", err, c.says, seen.all.Bytes())
			}
		})
	}
}

// harmed is a disk with something wrong; a cut one misses what is past 8 MiB.
func harmed(t *testing.T, harm func([]byte), cut bool) string {
	t.Helper()
	data, err := os.ReadFile(boot.disk)
	if err != nil {
		t.Fatal(err)
	}
	harm(data)
	if cut {
		data = data[:8<<20]
	}
	path := filepath.Join(boot.dir, "harmed")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// watched calls done once it was written want.
type watched struct {
	mu   sync.Mutex
	all  bytes.Buffer
	want []byte
	done func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	if bytes.Contains(w.all.Bytes(), w.want) {
		w.done()
	}
	return len(p), nil
}

func (w *watched) found() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.all.Bytes(), w.want)
}

// BenchmarkBoot boots the disk, and the same kernel by QEMU's own loader beside the
// same disk, in turns, from QEMU's start to its end. The ratios are of medians, of
// the time by the clock and that of the processor.
func BenchmarkBoot(b *testing.B) {
	prepared(b)
	direct := []string{"-kernel", boot.vmlinux, "-initrd", boot.cpio, "-append", boot.command}
	for _, kind := range []string{"q35", "pc"} {
		b.Run(kind, func(b *testing.B) {
			var wall, processor [2][]time.Duration
			for b.Loop() {
				for i, more := range [][]string{nil, direct} {
					start := time.Now()
					cmd := machine(b.Context(), kind, boot.disk, more...)
					if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte(boot.large)) {
						b.Fatalf("%v\n%s", err, out)
					}
					wall[i] = append(wall[i], time.Since(start))
					processor[i] = append(processor[i], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
				}
			}
			median := func(all []time.Duration) float64 { slices.Sort(all); return all[len(all)/2].Seconds() }
			b.ReportMetric(median(wall[0])/median(wall[1]), "of-direct")
			b.ReportMetric(median(processor[0])/median(processor[1]), "of-direct-cpu")
			b.ReportMetric(1000*median(wall[0]), "ms")
		})
	}
}
