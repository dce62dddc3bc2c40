package zone_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
	"github.com/strata-project/strata/internal/stratum/zone"
)

// lxcfs runs one, and returns where, and what it is.
func lxcfs(t *testing.T) (string, *os.Process) {
	t.Helper()
	require.Root(t)
	require.Tool(t, "lxcfs")
	_, err := os.Stat("/dev/fuse")
	require.Host(t, "fuse", err == nil, "there is no /dev/fuse")
	dir := t.TempDir()
	cmd := exec.Command("lxcfs", "--pidfile", filepath.Join(t.TempDir(), "pid"), dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGCONT)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	for deadline := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "proc", "meminfo")); err == nil {
			return dir, cmd.Process
		}
		if time.Now().After(deadline) {
			t.Fatal("lxcfs does not run")
		}
	}
}

// memory is MemTotal as a zone with a limit of 64 MiB sees it, in KiB, and what is mounted
// over /proc there.
func memory(t *testing.T, r *root, d *zone.Driver) (total int, mounts string) {
	t.Helper()
	p := r.plan(t)
	p.Idle, p.Resources.Memory = true, 64<<20
	live, err := d.Start(t.Context(), p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		live.Kill(t.Context())
		live.Wait(t.Context())
		if _, err := d.Clean(t.Context(), p.ID); err != nil {
			t.Error(err)
		}
	}()
	text, status := inside(t, live, "cat", "/proc/meminfo")
	fields := strings.Fields(text)
	if status != 0 || len(fields) < 2 {
		t.Fatalf("status %d, %q", status, text)
	}
	if total, err = strconv.Atoi(fields[1]); err != nil {
		t.Fatal(err)
	}
	mounts, _ = inside(t, live, "cat", "/proc/mounts")
	if out, status := inside(t, live, "sh", "-c", "echo 1 > /proc/meminfo"); status == 0 {
		t.Errorf("it can be written: %q", out)
	}
	return total, mounts
}

// TestAZoneSeesItsLimitWhereLXCFSRuns: /proc/meminfo is lxcfs's, and the kernel's own where
// none runs, or one hangs.
func TestAZoneSeesItsLimitWhereLXCFSRuns(t *testing.T) {
	shows, process := lxcfs(t)
	r := newRoot(t)
	r.layer = drivertest.Layer(t)
	driver := func(place string) *zone.Driver {
		d, err := zone.New(zone.Options{Places: r.places, Pool: r.pool, Layers: r.layers, Resources: r.groups, LXCFS: place})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	total, mounts := memory(t, r, driver(shows))
	if total != 64<<10 {
		t.Errorf("MemTotal is %d KiB; want %d", total, 64<<10)
	}
	for _, path := range []string{"/proc/meminfo", "/proc/cpuinfo", "/proc/uptime", "/proc/stat", "/sys/devices/system/cpu/online"} {
		if !strings.Contains(mounts, " "+path+" fuse.lxcfs ro,") {
			t.Errorf("%s is not lxcfs's:\n%s", path, mounts)
		}
	}
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if total, mounts := memory(t, r, driver(shows)); total <= 64<<10 || strings.Contains(mounts, "lxcfs") {
		t.Errorf("one that hangs: MemTotal is %d KiB\n%s", total, mounts)
	}
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir() // no file system of lxcfs's
	if err := os.MkdirAll(filepath.Join(plain, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(plain, "proc", "meminfo"), []byte("MemTotal: 1 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, place := range map[string]string{"none": "/nonexistent", "a folder of the same name": plain} {
		if total, mounts := memory(t, r, driver(place)); total <= 64<<10 || strings.Contains(mounts, "lxcfs") {
			t.Errorf("%s: MemTotal is %d KiB\n%s", name, total, mounts)
		}
	}
}
