package guest_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
	"github.com/strata-project/strata/internal/stratum/guest"
)

// TestMain puts the programs that the driver looks for on the PATH: those of
// STRATA_BIN, or ones that it builds.
func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if filepath.Base(os.Args[0]) == qemuName {
		return impersonate(os.Args[1:])
	}
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "strata-bin")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"strata-keeper", "strata-agent", "strata-vmagent"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), "github.com/strata-project/strata/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, text)
			return 1
		}
	}
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return m.Run()
}

// patience bounds every single step: a boot under emulation on a busy host takes
// many seconds.
var patience = require.Patience(90 * time.Second)

// root is a private strata root for a driver.
type root struct {
	places  place.Places
	pool    *disk.Pool
	kernels *kernel.Store
	groups  *resource.Root
	driver  *guest.Driver
	layer   string
	bases   atomic.Uint32
}

func newRoot(t testing.TB) *root {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.ext4")
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	deb := kernelPackage(t)
	dir, err := os.MkdirTemp("", "strg") // sockets below it want a short path
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o711)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &root{}
	if r.places, err = place.Find(dir); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if r.kernels, err = kernel.Open(filepath.Join(r.places.State, "kernels"), nil); err != nil {
		t.Fatal(err)
	}
	content, err := os.Open(deb)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	if _, err := r.kernels.Import(ctx, content, kernel.ImportOptions{Source: filepath.Base(deb)}, nil); err != nil {
		t.Fatal(err)
	}
	if r.groups, err = resource.Open(r.places.Name("stratatest")); err != nil {
		require.Host(t, "cgroups", false, err.Error())
	}
	t.Cleanup(func() {
		if err := r.groups.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	if r.pool, err = disk.OpenPool(ctx, filepath.Join(r.places.State, "pool"), disk.Options{Size: 256 << 20, Reserve: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.pool.Close() })
	r.layer = drivertest.Layer(t)
	r.driver = r.newDriver(t)
	return r
}

func (r *root) options() guest.Options {
	return guest.Options{Places: r.places, Kernels: r.kernels, Pool: r.pool, Resources: r.groups}
}

func (r *root) newDriver(t testing.TB, change ...func(*guest.Options)) *guest.Driver {
	t.Helper()
	o := r.options()
	for _, c := range change {
		c(&o)
	}
	d, err := guest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// kernelPackage returns Debian's package of a cloud kernel, which tests fetch from
// the mirror once per machine.
func kernelPackage(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "strata-test-kernel")
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
	have := func() []string { l, _ := filepath.Glob(filepath.Join(dir, "linux-image-*.deb")); return l }
	if found := have(); len(found) > 0 {
		return found[0]
	}
	require.Tool(t, "apt-get")
	text, err := exec.Command("apt-cache", "depends", "linux-image-cloud-amd64").Output()
	_, rest, _ := strings.Cut(string(text), "Depends: ")
	name, _, _ := strings.Cut(rest, "\n")
	require.Host(t, "debian-mirror", err == nil && strings.HasPrefix(name, "linux-image-"), "apt knows no package linux-image-cloud-amd64")
	cmd := exec.Command("apt-get", "download", strings.TrimSpace(name))
	cmd.Dir = dir
	text, err = cmd.CombinedOutput()
	found := have()
	require.Host(t, "debian-mirror", err == nil && len(found) > 0, "a kernel cannot be fetched: "+string(text))
	return found[0]
}

func newID() string {
	b := make([]byte, 6)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// plan returns a plan of the busybox layer with a disk of its own.
func (r *root) plan(t testing.TB) stratum.Plan {
	t.Helper()
	p := stratum.Plan{ID: newID(), Name: "guest", Hostname: "guest", IDBase: 1<<30 + r.bases.Add(1)*mount.IDs}
	dir := filepath.Join(r.places.State, p.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Disk = filepath.Join(dir, "disk.ext4")
	if err := r.pool.Create(context.Background(), p.Disk, 0); err != nil {
		t.Fatal(err)
	}
	p.Layers = []stratum.LayerFile{{Digest: "sha256:b05b0c", Path: r.layer}}
	p.Whole = p.Layers[0]
	p.Log = stratum.LogPlan{Dir: filepath.Join(dir, "log"), Size: 1 << 20, Files: 2}
	p.Console = stratum.LogPlan{Dir: filepath.Join(dir, "console"), Size: 1 << 20, Files: 2}
	return p
}

func newFixture(t *testing.T) drivertest.Fixture {
	r := newRoot(t)
	return drivertest.Fixture{
		Driver:   r.driver,
		Again:    func(t *testing.T) stratum.Driver { return r.newDriver(t) },
		Plan:     func(t *testing.T) stratum.Plan { return r.plan(t) },
		Host:     r.host,
		Patience: patience,
		Crowd:    4,
		Folder: func(t *testing.T) string {
			dir, err := os.MkdirTemp("", "strv")
			if err != nil {
				t.Fatal(err)
			}
			os.Chmod(dir, 0o755)
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		},
	}
}

// host lists what this root has on the host: groups, run files, sockets (which
// tell of every keeper and QEMU that lives), servers of volumes. Machines that are
// only made to be saved come and go by themselves.
func (r *root) host(t *testing.T) string {
	t.Helper()
	var all []string
	ids, err := r.groups.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		all = append(all, "group "+id)
	}
	filepath.WalkDir(filepath.Join(r.places.Run, "vm"), func(path string, _ fs.DirEntry, _ error) error {
		all = append(all, "file "+path)
		return nil
	})
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		if i := strings.Index(line, r.places.Root+"/"); i >= 0 {
			all = append(all, "socket "+strings.TrimSpace(line[i:]))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, r.places.Root+"/") {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	all = slices.DeleteFunc(all, func(line string) bool { return strings.Contains(line, "saving-") })
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

func TestContract(t *testing.T) { drivertest.Run(t, newFixture) }
