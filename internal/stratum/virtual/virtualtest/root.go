// Package virtualtest is what tests of drivers of virtual machines have in common: a
// private strata root with a kernel, and what such a driver leaves on the host.
package virtualtest

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
	"testing"
	"time"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/resource/resourcetest"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
)

// Main runs tests with the programs that drivers look for on the PATH: those of
// STRATA_BIN, or ones that it builds.
func Main(m *testing.M) int {
	defer kernels.remove()
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "strata-bin")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"strata-keeper", "strata-agent", "strata-vmagent", "strata-volume"} {
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

// Patience bounds every single step: a boot under emulation on a busy host takes
// many seconds.
var Patience = require.Patience(90 * time.Second)

// Root is a private strata root for a driver.
type Root struct {
	Places  place.Places
	Kernels *kernel.Store
	// KernelDir is where Kernels is, for another process.
	KernelDir string
	Groups    *resource.Root
	Pool      *disk.Pool
	layer     string
	bases     atomic.Uint32
}

// New returns a root whose kernel is that of Debian's package, which stands for the
// newest of its kind, such as linux-image-cloud-amd64.
func New(t testing.TB, name string) *Root {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.ext4")
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	dir, err := os.MkdirTemp("", "strg") // sockets below it want a short path
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o711)
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &Root{}
	if r.Places, err = place.Find(dir); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	shared := kernels.of(t, name)
	r.Kernels, r.KernelDir = shared.Store, shared.dir
	r.Groups = resourcetest.Open(t, r.Places.Name("stratatest"))
	if r.Pool, err = disk.OpenPool(ctx, filepath.Join(r.Places.State, "pool"), disk.Options{Size: 256 << 20, Reserve: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Pool.Close() })
	r.layer = drivertest.Layer(t)
	return r
}

func newID() string {
	b := make([]byte, 6)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Plan returns a plan of the busybox layer with a disk of its own.
func (r *Root) Plan(t testing.TB) stratum.Plan {
	t.Helper()
	p := stratum.Plan{ID: newID(), Name: "virtual", Hostname: "virtual", IDBase: 1<<30 + r.bases.Add(1)*mount.IDs}
	dir := filepath.Join(r.Places.State, p.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Disk = filepath.Join(dir, "disk.ext4")
	if err := r.Pool.Create(context.Background(), p.Disk, 0); err != nil {
		t.Fatal(err)
	}
	p.Layers = []stratum.LayerFile{{Digest: "sha256:b05b0c", Path: r.layer}}
	p.Whole = p.Layers[0]
	p.Log = stratum.LogPlan{Dir: filepath.Join(dir, "log"), Size: 1 << 20, Files: 2}
	p.Console = stratum.LogPlan{Dir: filepath.Join(dir, "console"), Size: 1 << 20, Files: 2}
	return p
}

// Fixture is what the contract of drivers is tested with: drivers that make returns,
// with their run folders in dir, below the place of runs.
func (r *Root) Fixture(t *testing.T, dir string, make func(t testing.TB) stratum.Driver) drivertest.Fixture {
	return drivertest.Fixture{
		Driver:   make(t),
		Again:    func(t *testing.T) stratum.Driver { return make(t) },
		Plan:     func(t *testing.T) stratum.Plan { return r.Plan(t) },
		Host:     func(t *testing.T) string { return r.Host(t, dir) },
		Patience: Patience,
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

// Host lists what this root has on the host: groups, run files, sockets (which
// tell of every keeper and QEMU that lives), servers of volumes. Machines that are
// only made to be saved come and go by themselves.
func (r *Root) Host(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	ids, err := r.Groups.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		all = append(all, "group "+id)
	}
	filepath.WalkDir(filepath.Join(r.Places.Run, dir), func(path string, _ fs.DirEntry, _ error) error {
		all = append(all, "file "+path)
		return nil
	})
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		if i := strings.Index(line, r.Places.Root+"/"); i >= 0 {
			all = append(all, "socket "+strings.TrimSpace(line[i:]))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, r.Places.Root+"/") {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	all = slices.DeleteFunc(all, func(line string) bool { return strings.Contains(line, place.SavingPrefix) })
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}
