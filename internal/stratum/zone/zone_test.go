package zone_test

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

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/resource/resourcetest"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
	"github.com/strata-project/strata/internal/stratum/zone"
)

// TestMain puts the programs that the driver looks for on the PATH: those of
// STRATA_BIN, or ones that it builds.
func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "strata-bin")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"strata-keeper", "strata-agent"} {
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

// root is a private strata root for a driver.
type root struct {
	places place.Places
	pool   *disk.Pool
	layers *mount.Layers
	groups *resource.Root
	driver *zone.Driver
	layer  string
	bases  atomic.Uint32
}

func newRoot(t testing.TB) *root {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.ext4")
	// Sockets below it want a short path, and the zone's root must pass through.
	dir, err := os.MkdirTemp("", "strz")
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
	r.groups = resourcetest.Open(t, r.places.Name("stratatest"))
	if r.layers, err = mount.OpenLayers(filepath.Join(r.places.Run, "layers")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.layers.UnmountAll(ctx); err != nil {
			t.Error(err)
		}
	})
	if r.pool, err = disk.OpenPool(ctx, filepath.Join(r.places.State, "pool"), disk.Options{Size: 256 << 20, Reserve: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.pool.Close() })
	r.driver = r.newDriver(t)
	return r
}

func (r *root) newDriver(t testing.TB) *zone.Driver {
	d, err := zone.New(zone.Options{Places: r.places, Pool: r.pool, Layers: r.layers, Resources: r.groups})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newID() string {
	b := make([]byte, 6)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// plan returns a plan of the busybox layer with a disk of its own.
func (r *root) plan(t testing.TB) stratum.Plan {
	t.Helper()
	p := stratum.Plan{ID: newID(), Hostname: "zone", IDBase: 1<<30 + r.bases.Add(1)*mount.IDs}
	dir := filepath.Join(r.places.State, p.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.Disk = filepath.Join(dir, "disk.ext4")
	if err := r.pool.Create(context.Background(), p.Disk, 0); err != nil {
		t.Fatal(err)
	}
	p.Layers = []stratum.LayerFile{{Digest: "sha256:b05b0c", Path: r.layer}}
	p.Log = stratum.LogPlan{Dir: filepath.Join(dir, "log"), Size: 1 << 20, Files: 2}
	return p
}

func newFixture(t *testing.T) drivertest.Fixture {
	r := newRoot(t)
	r.layer = drivertest.Layer(t)
	// Mounted before the host is looked at: layers stay.
	tree, err := r.layers.Get(context.Background(), "sha256:b05b0c", r.layer)
	if err != nil {
		t.Fatal(err)
	}
	tree.Close()
	return drivertest.Fixture{
		Driver:   r.driver,
		Again:    func(t *testing.T) stratum.Driver { return r.newDriver(t) },
		Plan:     func(t *testing.T) stratum.Plan { return r.plan(t) },
		Host:     r.host,
		NoGrowth: disk.CanGrowMounted(),
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

// host lists mounts, loop devices, groups and run files of this root.
func (r *root) host(t *testing.T) string {
	t.Helper()
	var all []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, r.places.Root) {
			all = append(all, "mount "+strings.TrimSpace(line))
		}
	}
	loops, err := loop.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		if strings.HasPrefix(l.Image, r.places.State) {
			all = append(all, "loop "+l.Image)
		}
	}
	ids, err := r.groups.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		all = append(all, "group "+id)
	}
	filepath.WalkDir(filepath.Join(r.places.Run, "env"), func(path string, _ fs.DirEntry, _ error) error {
		all = append(all, "file "+path)
		return nil
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestContract(t *testing.T) { drivertest.Run(t, newFixture) }
