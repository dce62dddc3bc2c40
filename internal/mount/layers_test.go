package mount_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/require"
)

var ctx = context.Background()

const digest = "sha256:0123456789abcdef"

// in reads a name in a tree that is attached nowhere.
func in(t *testing.T, tree *mount.Tree, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(tree.File().Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	buf := make([]byte, 64)
	n, err := f.Read(buf)
	must(t, err)
	return string(buf[:n])
}

func count(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(text), dir)
}

func TestLayerIsMountedOnceAndFoundAgain(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "layers")
	must(t, os.MkdirAll(dir+"/sha256:stale", 0o700))
	layers, err := mount.OpenLayers(dir)
	must(t, err)
	if _, err := os.Stat(dir + "/sha256:stale"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of no mount is there: %v", err)
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			tree, err := layers.Get(ctx, digest, r.base)
			if err != nil {
				t.Error(err)
			}
			tree.Close()
		})
	}
	wait.Wait()
	if n := count(t, dir); n != 1 {
		t.Errorf("%d mounts", n)
	}
	again, err := mount.OpenLayers(dir) // as the next daemon does
	must(t, err)
	if got := again.Mounted(); !slices.Equal(got, []string{digest}) {
		t.Errorf("found %v", got)
	}
	tree, err := again.Get(ctx, digest, "/nowhere")
	must(t, err)
	defer tree.Close()
	if n := count(t, dir); n != 1 {
		t.Errorf("%d mounts", n)
	}
	must(t, again.Drop(digest)) // in use: lazily
	must(t, again.Drop(digest))
	if n := count(t, dir); n != 0 {
		t.Errorf("%d mounts after all", n)
	}
	if got := in(t, tree, "etc/name"); got != "base" {
		t.Errorf("a layer in use reads %q after Drop", got)
	}
}

func TestLayerWhoseMountWasTakenAway(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(t.TempDir(), "layers")
	layers, err := mount.OpenLayers(dir)
	must(t, err)
	tree, err := layers.Get(ctx, digest, r.base)
	must(t, err)
	must(t, tree.Close())
	must(t, unix.Unmount(dir+"/"+digest, 0))
	tree, err = layers.Get(ctx, digest, r.base)
	must(t, err)
	defer tree.Close()
	if got := in(t, tree, "etc/name"); got != "base" {
		t.Errorf("it reads %q", got)
	}
	must(t, layers.UnmountAll(ctx))
}

func TestLayersThatAreRefused(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	whole, err := os.ReadFile(r.base)
	must(t, err)
	zeros, cut := filepath.Join(dir, "zeros"), filepath.Join(dir, "cut")
	must(t, os.WriteFile(zeros, make([]byte, 8192), 0o600))
	must(t, os.WriteFile(cut, whole[:1000], 0o600))
	for name, c := range map[string]struct {
		digest, file string
		kind         fault.Kind
	}{
		"a digest that climbs":  {"../x", r.base, fault.Invalid},
		"a digest with a slash": {"sha256:a/b", r.base, fault.Invalid},
		"no digest":             {"", r.base, fault.Invalid},
		"no file":               {"sha256:a", dir + "/none", fault.Missing},
		"not EROFS":             {"sha256:a", zeros, fault.Unable},
		"cut short":             {"sha256:a", cut, fault.Unable},
		"a device":              {"sha256:a", "/dev/null", fault.Unable},
		"a folder":              {"sha256:a", dir, fault.Unable},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := r.layers.Get(ctx, c.digest, c.file)
			if err == nil || fault.KindOf(err) != c.kind {
				tree.Close()
				t.Errorf("kind %v: %v", fault.KindOf(err), err)
			}
			t.Log(err)
		})
	}
}

func TestLayerOnALoopDevice(t *testing.T) {
	r := newRig(t)
	tree, err := mount.MountLooped(r.base)
	must(t, err)
	defer tree.Close()
	if got := in(t, tree, "etc/name"); got != "base" {
		t.Errorf("it reads %q", got)
	}
}

func TestIDMaps(t *testing.T) {
	require.Root(t)
	var maps mount.IDMaps
	defer maps.Close()
	for _, bad := range []uint32{0, 1000, mount.IDs - 1, 1<<32 - 1, 1<<32 - mount.IDs} {
		if _, err := maps.Get(ctx, mount.IDMap{Base: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("range from %d: %v", bad, err)
		}
	}
	inode := func(f *os.File) uint64 {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		return st.Ino
	}
	first, err := maps.Get(ctx, testMap)
	must(t, err)
	defer first.Close()
	var wait sync.WaitGroup
	for i := range 400 { // more ranges than are kept
		wait.Go(func() {
			f, err := maps.Get(ctx, mount.IDMap{Base: uint32(i%200+1) * mount.IDs})
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	wait.Wait()
	for range 2 {
		f, err := maps.Get(ctx, mount.IDMap{Base: 9 * mount.IDs})
		must(t, err)
		g, err := maps.Get(ctx, mount.IDMap{Base: 9 * mount.IDs})
		must(t, err)
		if inode(f) != inode(g) || inode(f) == inode(first) {
			t.Error("the namespace of a range is not kept")
		}
		f.Close()
		g.Close()
	}
	if kept := maps.Kept(); kept != 128 {
		t.Errorf("%d are kept", kept)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := maps.Get(gone, testMap); err == nil {
		t.Error("made for a caller who is gone")
	}
}

func FuzzParseMounts(f *testing.F) {
	own, _ := os.ReadFile("/proc/self/mountinfo")
	f.Add(string(own))
	f.Add(`36 35 98:0 /mnt1 /a\040b rw - ext4 /dev/root rw` + "\n")
	f.Add(`36 35 98:0 /mnt1 /a\04 rw shared:1 - erofs` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := mount.ParseMounts(strings.NewReader(text))
		if err == nil && len(all) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts of %d lines", len(all), strings.Count(text, "\n")+1)
		}
	})
}

func TestManyLayersByName(t *testing.T) {
	for name, byName := range map[string]bool{"by descriptor": false, "by name": true} {
		t.Run(name, func(t *testing.T) {
			mount.ForceByName(t, byName)
			r := newRig(t)
			users := r.users(t)
			defer users.Close()
			spec := mount.OverlaySpec{Map: testMap, Users: users, Disk: r.mountDisk(t)}
			defer spec.Disk.Close()
			for i := range mount.MaxLowers { // the last two are the same
				tree, err := r.layers.Get(ctx, fmt.Sprint("sha256:", min(i, mount.MaxLowers-2)), r.base)
				must(t, err)
				defer tree.Close()
				spec.Lowers = append(spec.Lowers, tree)
			}
			tree, err := mount.Overlay(ctx, spec)
			must(t, err)
			defer tree.Close()
			if got := in(t, tree, "etc/name"); got != "base" {
				t.Errorf("it reads %q", got)
			}
			spec.Lowers = nil
			if _, err := mount.Overlay(ctx, spec); !fault.Is(err, fault.Invalid) {
				t.Errorf("no layers: %v", err)
			}
		})
	}
}

func TestFiftyOverlaysAtOnce(t *testing.T) {
	r := newRig(t)
	var wait sync.WaitGroup
	for i := range 50 {
		wait.Go(func() {
			users, err := r.maps.Get(ctx, mount.IDMap{Base: uint32(i+10) * mount.IDs})
			if err != nil {
				t.Error(err)
				return
			}
			defer users.Close()
			base, err1 := r.layers.Get(ctx, "sha256:1base", r.base)
			top, err2 := r.layers.Get(ctx, "sha256:2top", r.top)
			defer base.Close()
			defer top.Close()
			if err := errors.Join(err1, err2); err != nil {
				t.Error(err)
				return
			}
			tree, err := mount.Overlay(ctx, mount.OverlaySpec{Lowers: []*mount.Tree{base, top}, Map: mount.IDMap{Base: uint32(i+10) * mount.IDs}, Users: users})
			if err != nil {
				t.Error(err)
				return
			}
			defer tree.Close()
			if got := in(t, tree, "etc/name"); got != "top" {
				t.Errorf("it reads %q", got)
			}
		})
	}
	wait.Wait()
}

func TestTreeTwiceClosed(t *testing.T) {
	var none *mount.Tree
	must(t, none.Close())
	r := newRig(t)
	tree, err := r.layers.Get(ctx, digest, r.base)
	must(t, err)
	must(t, tree.Close())
	must(t, tree.Close())
	if err := tree.Attach("/mnt"); err == nil {
		t.Error("a closed tree was attached")
	}
	users := r.users(t)
	defer users.Close()
	if _, err := mount.Overlay(ctx, mount.OverlaySpec{Lowers: []*mount.Tree{tree}, Map: testMap, Users: users}); err == nil {
		t.Error("a closed tree was used")
	}
}

func TestHostileDisk(t *testing.T) {
	for name, byName := range map[string]bool{"by descriptor": false, "by name": true} {
		t.Run(name, func(t *testing.T) {
			mount.ForceByName(t, byName)
			r := newRig(t)
			disk := r.mountDisk(t)
			root := int(disk.File().Fd())
			must(t, unix.Unlinkat(root, mount.Upper, unix.AT_REMOVEDIR))
			must(t, unix.Symlinkat("/etc", root, mount.Upper))
			must(t, disk.Close())
			tree, err := r.tryOverlay(t, true, false)
			if !fault.Is(err, fault.Unable) {
				tree.Close()
				t.Errorf("an upper folder that is a link to the host's: %v", err)
			}
		})
	}
}
