package mount_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/require"
)

// insideVariable names, in a process that a test has started in a user
// namespace, what it is to do there.
const insideVariable = "STRATA_MOUNT_TEST_INSIDE"

func TestMain(m *testing.M) {
	if what := os.Getenv(insideVariable); what != "" {
		if err := inside[what](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	scratch, err := os.MkdirTemp("", "strata-mount-")
	if err != nil {
		panic(err)
	}
	os.Setenv("TMPDIR", scratch) // so that leaks can be told from others' mounts
	status := m.Run()
	if left := leaked(scratch); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		status = 1
	}
	os.RemoveAll(scratch)
	os.Exit(status)
}

// leaked lists mounts and loop devices below dir.
func leaked(dir string) []string {
	var left []string
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, dir) {
			left = append(left, line)
		}
	}
	loops, _ := loop.List()
	for _, one := range loops {
		if strings.HasPrefix(one.Image, dir) {
			left = append(left, one.Path+" "+one.Image)
		}
	}
	return left
}

var testMap = mount.IDMap{Base: 7 * mount.IDs}

// rig is what the tests put trees together from.
type rig struct {
	maps   mount.IDMaps
	layers *mount.Layers
	base   string // EROFS images
	top    string
	disk   string // an ext4 image
}

func newRig(t testing.TB) *rig {
	require.Root(t)
	mkfs := require.Tool(t, "mkfs.erofs")
	require.Tool(t, "mkfs.ext4")
	dir := t.TempDir()
	r := &rig{base: filepath.Join(dir, "base.erofs"), top: filepath.Join(dir, "top.erofs"), disk: filepath.Join(dir, "disk.ext4")}
	for image, fill := range map[string]func(testing.TB, string){r.base: fillBase, r.top: fillTop} {
		root := filepath.Join(t.TempDir(), "root")
		must(t, os.Mkdir(root, 0o755))
		fill(t, root)
		out, err := exec.Command(mkfs, "-zlz4", image, root).CombinedOutput()
		if err != nil {
			t.Fatalf("mkfs.erofs: %v: %s", err, out)
		}
	}
	r.newDisk(t, r.disk)
	var err error
	r.layers, err = mount.OpenLayers(filepath.Join(dir, "layers"))
	must(t, err)
	t.Cleanup(func() {
		must(t, r.layers.UnmountAll(context.Background()))
		must(t, r.maps.Close())
	})
	return r
}

func (r *rig) newDisk(t testing.TB, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 256<<20))
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,root_owner=0:0", path).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

// mountDisk mounts the rig's disk with the folders of an overlay.
func (r *rig) mountDisk(t testing.TB) *mount.Tree {
	t.Helper()
	f, err := os.OpenFile(r.disk, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	dev, err := loop.Attach(f, loop.Options{})
	must(t, err)
	defer dev.Close()
	tree, err := mount.FileSystem{Type: "ext4", Source: dev.Path}.Mount()
	must(t, err)
	for _, name := range []string{mount.Upper, mount.Work} {
		if err := unix.Mkdirat(int(tree.File().Fd()), name, 0o755); err != nil && err != unix.EEXIST {
			t.Fatal(err)
		}
	}
	return tree
}

// overlay puts the rig's two layers and its disk together.
func (r *rig) overlay(t testing.TB, disk, readOnly bool) *mount.Tree {
	t.Helper()
	tree, err := r.tryOverlay(t, disk, readOnly)
	must(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

func (r *rig) tryOverlay(t testing.TB, disk, readOnly bool) (*mount.Tree, error) {
	t.Helper()
	ctx := context.Background()
	spec := mount.OverlaySpec{Map: testMap, ReadOnly: readOnly, Users: r.users(t)}
	defer spec.Users.Close()
	for digest, image := range map[string]string{"sha256:1base": r.base, "sha256:2top": r.top} {
		tree, err := r.layers.Get(ctx, digest, image)
		must(t, err)
		defer tree.Close()
		spec.Lowers = append(spec.Lowers, tree)
	}
	slices.SortFunc(spec.Lowers, func(a, b *mount.Tree) int { return strings.Compare(a.File().Name(), b.File().Name()) })
	if disk {
		spec.Disk = r.mountDisk(t)
		defer spec.Disk.Close()
	}
	return mount.Overlay(ctx, spec)
}

func (r *rig) users(t testing.TB) *os.File {
	t.Helper()
	users, err := r.maps.Get(context.Background(), testMap)
	must(t, err)
	return users
}

// enter runs inside[what] in a user namespace of testMap with tree attached as
// its root folder, in the working folder "/".
func enter(t testing.TB, what string, tree *mount.Tree) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{insideVariable + "=" + what}
	cmd.ExtraFiles = []*os.File{tree.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: testMap.Mappings(), GidMappings: testMap.Mappings(), GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("inside %s: %v\n%s", what, err, out)
	}
}

// becomeRooted attaches the tree at descriptor 3 and makes it the root.
func becomeRooted() error {
	if err := unix.MoveMount(3, "", unix.AT_FDCWD, "/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := os.Chdir("/mnt"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
