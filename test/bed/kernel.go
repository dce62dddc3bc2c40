package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

// The packages that stand for Debian's newest kernels: one without drivers of hardware,
// and one with.
const (
	cloudKernel = "linux-image-cloud-amd64"
	fullKernel  = "linux-image-amd64"
)

// Kernel gives b a kernel for guests: Debian's cloud kernel, whose package is
// fetched from the mirror once per machine and day.
func Kernel(t testing.TB, b *Bed) {
	t.Helper()
	if out := b.Try("kernel", "ls", "--json"); out.Status == 0 && strings.Contains(out.Stdout, `"id"`) {
		return
	}
	b.Run("kernel", "add", KernelPackage(t))
}

// MachineKernel gives b a kernel for machines as well: Debian's full one.
func MachineKernel(t testing.TB, b *Bed) {
	t.Helper()
	Kernel(t, b)
	if out := b.Try("kernel", "show", "machines"); out.Status != 0 {
		b.Run("kernel", "add", "--name", "machines", FullKernelPackage(t))
	}
}

// stateVariable names a folder with what another daemon has kept and every bed is to
// have from its beginning, such as kernels: to take a package, or to boot a system that
// is to be saved, takes minutes on an emulated processor.
const stateVariable = "STRATA_TEST_STATE"

// ready gives a root's state what there is already.
func ready(t testing.TB, state string) {
	t.Helper()
	from := os.Getenv(stateVariable)
	if from == "" {
		return
	}
	if out, err := exec.Command("cp", "-al", from, state).CombinedOutput(); err != nil {
		t.Fatalf("give a bed what is in %s: %v %s", from, err, out)
	}
}

// KernelPackage returns the path of the package of Debian's cloud kernel.
func KernelPackage(t testing.TB) string { return packageOf(t, cloudKernel) }

// FullKernelPackage returns the path of the package of Debian's kernel that has drivers for
// hardware.
func FullKernelPackage(t testing.TB) string { return packageOf(t, fullKernel) }

func packageOf(t testing.TB, kernel string) string {
	t.Helper()
	return fetch(t, kernel, "linux-image-*.deb", func() string { return kernelName(kernel) })
}

// Package returns the path of a Debian package, fetched from the mirror once per machine
// and day.
func Package(t testing.TB, name string) string {
	t.Helper()
	return fetch(t, name, "*.deb", func() string { return name })
}

// fetch returns the package that is kept in the folder of what, by a name that pattern
// matches, and fetches the one that find names where there is none of today.
func fetch(t testing.TB, what, pattern string, find func() string) string {
	t.Helper()
	require.Tool(t, "apt-get")
	dir := filepath.Join(os.TempDir(), "strata-test-"+what)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, pattern)); len(found) > 0 {
		if info, err := os.Stat(found[0]); err == nil && time.Since(info.ModTime()) < 24*time.Hour {
			return found[0]
		}
		for _, old := range found {
			os.Remove(old)
		}
	}
	name := find()
	require.Host(t, "debian-mirror", name != "", "apt knows no package "+what)
	cmd := exec.Command("apt-get", "download", name)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	require.Host(t, "debian-mirror", err == nil && len(found) == 1, "the package "+name+" cannot be fetched: "+string(text))
	now := time.Now()
	os.Chtimes(found[0], now, now) // apt gives it the time of the archive
	return found[0]
}

// kernelName asks apt which package is the newest of a kind of kernel.
func kernelName(kernel string) string {
	text, err := exec.Command("apt-cache", "depends", kernel).Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			return name
		}
	}
	return ""
}

// MachineKernelPackage returns the path of the package of Debian's full kernel.
func MachineKernelPackage(t testing.TB) string { return packageOf(t, fullKernel) }
