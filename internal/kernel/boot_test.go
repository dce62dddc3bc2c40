package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
)

// TestMain makes this program the /init of a guest where it is one.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		initialize()
		return
	}
	os.Exit(m.Run())
}

// initialize loads what the initramfs says, tells about it and ends the system.
func initialize() {
	order, err := os.ReadFile("/modules/order")
	fmt.Println("order", err)
	later, err := os.ReadFile("/modules/later")
	fmt.Println("later", err)
	loaded := 0
	for path := range strings.Lines(string(order) + string(later)) {
		path = strings.TrimSpace(path)
		data, err := os.ReadFile(path)
		if err == nil {
			err = unix.InitModule(data, "")
		}
		if err != nil {
			fmt.Println("failed", path, err)
			continue
		}
		loaded++
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("failed", err)
	}
	types, _ := os.ReadFile("/proc/filesystems")
	for _, one := range []string{"erofs", "overlay", "ext4"} {
		fmt.Println("type", one, bytes.Contains(types, []byte("\t"+one+"\n")))
	}
	var name unix.Utsname
	_ = unix.Uname(&name)
	fmt.Println("loaded", loaded, "release", unix.ByteSliceToString(name.Release[:]))
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // PID 1 does not return
}

// debianKernel gets the distribution's kernel, as users do.
func debianKernel(t *testing.T, s *Store) Kernel {
	t.Helper()
	require.Tool(t, "apt-get")
	out, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").CombinedOutput()
	require.Host(t, "debian-mirror", err == nil && bytes.Contains(out, []byte("Depends: linux-image-")), "apt knows no package linux-image-cloud-amd64")
	steps := map[string]bool{}
	start := time.Now()
	k, err := s.Add(t.Context(), AddOptions{Source: "debian"}, func(p Progress) {
		steps[p.Step] = true
		if p.Done > p.Total && p.Total > 0 {
			t.Errorf("progress is %+v", p)
		}
	})
	require.Host(t, "debian-mirror", err == nil || !strings.Contains(err.Error(), "cannot be downloaded"), fmt.Sprint(err))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s from %s in %v: %d bytes, %d modules", k.Name, k.Origin, time.Since(start), k.Size, k.Modules)
	for _, step := range []string{"find", "download", "unpack"} {
		if !steps[step] {
			t.Errorf("nothing was said of step %s", step)
		}
	}
	return k
}

func TestDebiansKernelBootsWithItsInitramfs(t *testing.T) {
	require.Machines(t)
	program := require.Tool(t, "qemu-system-x86_64")
	s := open(t)
	k := debianKernel(t, s)
	set, err := k.Set(Guest)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Absent) != 0 {
		t.Errorf("it lacks %v", set.Absent)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.Initramfs(t.Context(), k, self, set)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs of %d modules: %d bytes", len(set.Modules), image.Size)
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(2*time.Minute))
	defer cancel()
	start := time.Now()
	cmd := exec.CommandContext(ctx, program, "-M", "microvm,acpi=on,pit=off,pic=off,rtc=on", "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", "256", "-bios", "qboot.rom",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "virtio-rng-device",
		"-kernel", k.Vmlinux(), "-initrd", image.Path, "-append", fmt.Sprintf("console=ttyS0 panic=-1 quiet tsc_early_khz=%d", qemu.TSC()))
	cmd.Dir = filepath.Dir(image.Path)
	out, err := cmd.CombinedOutput()
	t.Logf("booted, and ended, in %v", time.Since(start))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"type erofs true", "type overlay true", "type ext4 true", fmt.Sprintf("loaded %d release %s", len(set.Modules), k.Release)} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
}
