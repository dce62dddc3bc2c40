package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/tool/treat"
	"github.com/strata-project/strata/internal/unit"
)

var ctx = context.Background()

// poolVariable names the pool that a process started by a test opens, to be killed.
const poolVariable = "STRATA_DISK_TEST_POOL"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == treat.Command {
		os.Exit(treat.Run(os.Args))
	}
	if dir := os.Getenv(poolVariable); dir != "" {
		if _, err := disk.OpenPool(ctx, dir, disk.Options{Ready: 2}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		time.Sleep(time.Hour) // not for ever: that the runtime would take for a deadlock
		return
	}
	scratch, err := os.MkdirTemp("", "strata-disk-")
	if err != nil {
		panic(err)
	}
	os.Setenv("TMPDIR", scratch) // so that leaks can be told from others' devices
	status := m.Run()
	loops, _ := loop.List()
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for _, one := range loops {
		if strings.HasPrefix(one.Image, scratch) {
			fmt.Fprintln(os.Stderr, "left behind:", one)
			status = 1
		}
	}
	if strings.Contains(string(text), scratch) {
		fmt.Fprintln(os.Stderr, "left behind: a mount")
		status = 1
	}
	os.RemoveAll(scratch)
	os.Exit(status)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newPool(t testing.TB, dir string, o disk.Options) *disk.Pool {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.ext4")
	o.Agent = "/proc/self/exe" // TestMain does what strata-agent would
	p, err := disk.OpenPool(ctx, filepath.Join(dir, "pool"), o)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// fsck is the judge of an image that is not attached.
func fsck(t testing.TB, path string) {
	t.Helper()
	out, err := exec.Command("e2fsck", "-f", "-n", path).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// inTree is the path of a name in a tree that is attached nowhere.
func inTree(tree *mount.Tree, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", tree.File().Fd(), name)
}

func TestCreateMountAndUse(t *testing.T) {
	for name, c := range map[string]struct {
		size  unit.Size
		ready int
		limit unit.Size
	}{
		"of the default size, cold": {0, 0, 10 * unit.GiB},
		"of the default size, warm": {0, 1, 10 * unit.GiB},
		"of the least size":         {disk.FloorSize, 0, disk.FloorSize},
		"of a middle size":          {300 * unit.MiB, 0, 300 * unit.MiB},
		"not of whole blocks":       {64*unit.MiB + 1, 0, 65 * unit.MiB},
		"of the largest size":       {disk.CeilingSize, 0, disk.CeilingSize},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := newPool(t, dir, disk.Options{Ready: c.ready})
			waitReady(t, dir, c.ready)
			path := filepath.Join(dir, "disk.ext4")
			must(t, p.Create(ctx, path, c.size))
			_, size, err := disk.Usage(path)
			must(t, err)
			if size != int64(c.limit) {
				t.Errorf("the image has %d bytes, not %d", size, c.limit)
			}
			tree, err := p.Mount(ctx, path)
			must(t, err)
			for _, name := range []string{mount.Upper, mount.Work} {
				var st unix.Stat_t
				must(t, unix.Stat(inTree(tree, name), &st))
				if st.Uid != 0 || st.Mode != unix.S_IFDIR|0o755 {
					t.Errorf("%s has mode %o and owner %d", name, st.Mode, st.Uid)
				}
			}
			if _, err := p.Mount(ctx, path); !fault.Is(err, fault.Conflict) {
				t.Errorf("mounted twice: %v", err)
			}
			if err := p.Grow(ctx, path, disk.CeilingSize); !fault.Is(err, fault.Conflict) {
				t.Errorf("grown while mounted: %v", err)
			}
			if err := p.Create(ctx, path, c.size); !fault.Is(err, fault.Conflict) {
				t.Errorf("created over a disk: %v", err)
			}
			must(t, os.WriteFile(inTree(tree, "upper/file"), []byte("kept"), 0o600))
			must(t, tree.Close())
			tree, err = p.Mount(ctx, path)
			must(t, err)
			text, err := os.ReadFile(inTree(tree, "upper/file"))
			if err != nil || string(text) != "kept" {
				t.Errorf("read back: %q, %v", text, err)
			}
			must(t, tree.Close())
			if c.limit < unit.TiB {
				fsck(t, path)
			}
		})
	}
}

// waitReady waits until the pool below dir has n ready disks.
func waitReady(t testing.TB, dir string, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		all, err := disk.Attached(filepath.Join(dir, "pool"))
		must(t, err)
		if len(all) >= n {
			time.Sleep(20 * time.Millisecond) // attached is a moment before mounted
			return
		}
	}
	t.Fatalf("the pool never had %d ready disks", n)
}

func TestSizesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{})
	for name, size := range map[string]unit.Size{"too small": disk.FloorSize - unit.MiB, "too large": disk.CeilingSize + 1, "negative": -1} {
		err := p.Create(ctx, filepath.Join(dir, "x"), size)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	full := newPool(t, t.TempDir(), disk.Options{Reserve: unit.PiB})
	err := full.Create(ctx, filepath.Join(dir, "x"), 0)
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "free") {
		t.Errorf("a full host: %v", err)
	}
	t.Log(err)
	if names, _ := filepath.Glob(dir + "/*.ext4"); len(names) > 0 {
		t.Errorf("refused, and left %v", names)
	}
}

func TestFiftyAtOnce(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{Ready: 4})
	var wait sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wait.Go(func() {
			path := filepath.Join(dir, fmt.Sprint(i, ".ext4"))
			if errs[i] = p.Create(ctx, path, 0); errs[i] != nil {
				return
			}
			tree, err := p.Mount(ctx, path)
			if err != nil {
				errs[i] = err
				return
			}
			errs[i] = errors.Join(os.WriteFile(inTree(tree, "upper/x"), []byte("x"), 0o600), tree.Close())
		})
	}
	wait.Wait()
	must(t, errors.Join(errs...))
	seen := map[string]bool{}
	for i := range errs {
		path := filepath.Join(dir, fmt.Sprint(i, ".ext4"))
		fsck(t, path)
		super := make([]byte, 16)
		f, err := os.Open(path)
		must(t, err)
		_, err = f.ReadAt(super, 1024+0x68)
		must(t, errors.Join(err, f.Close()))
		if seen[string(super)] {
			t.Errorf("disk %d has the UUID of another", i)
		}
		seen[string(super)] = true
	}
}
