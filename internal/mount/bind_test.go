package mount_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/require"
)

func attachVolume() error {
	return unix.MoveMount(3, "", unix.AT_FDCWD, "/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func useVolume() error {
	if err := attachVolume(); err != nil {
		return err
	}
	var c checks
	c.owner("/mnt", 1000)
	c.owner("/mnt/file", 1000)
	c.no(os.WriteFile("/mnt/by-root", nil, 0o644), "write")
	c.no(os.WriteFile("/mnt/by-user", nil, 0o644), "write")
	c.no(os.Chown("/mnt/by-user", 1000, 1000), "chown")
	c.content("/mnt/sub/deep", "below")
	_, err := os.OpenFile("/mnt/zero", os.O_RDWR, 0)
	c.that(errors.Is(err, unix.EACCES), "a device on a volume can be opened: %v", err)
	return errors.Join(c...)
}

func readVolume() error {
	if err := attachVolume(); err != nil {
		return err
	}
	var c checks
	for _, name := range []string{"/mnt/new", "/mnt/sub/new"} {
		err := os.WriteFile(name, nil, 0o644)
		c.that(errors.Is(err, unix.EROFS), "%s was written on a read-only volume: %v", name, err)
	}
	return errors.Join(c...)
}

// liftProtection is what the root of an environment with CAP_SYS_ADMIN over its
// own namespaces could try.
func liftProtection() error {
	if err := attachVolume(); err != nil {
		return err
	}
	err := unix.Mount("", "/mnt", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	var c checks
	c.that(errors.Is(err, unix.EPERM), "a read-only volume was made writable from inside: %v", err)
	err = unix.Unmount("/mnt/sub", unix.MNT_DETACH)
	c.that(errors.Is(err, unix.EINVAL), "what covers a folder of a volume was taken away: %v", err)
	return errors.Join(c...)
}

func useFileVolume() error {
	const place = "/etc/passwd" // any file will do
	if err := unix.MoveMount(3, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	var c checks
	c.content(place, "below")
	c.no(os.WriteFile(place, []byte("below"), 0o644), "write")
	return errors.Join(c...)
}

// runOut has a process meet its limit of open files at each step of its first volume.
func runOut() error {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "volume-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	var maps mount.IDMaps
	users, err := maps.Get(ctx, testMap)
	if err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	next, err := unix.Dup(2) // the first that is free
	if err != nil {
		return err
	}
	unix.Close(next)
	var c checks
	met := 0
	for room := uint64(0); room < 100; room++ {
		low := limit
		low.Cur = uint64(next) + room
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			return err
		}
		tree, err := mount.Bind(ctx, dir, users, false)
		if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); back != nil {
			return back
		}
		if err == nil {
			c.that(met > 1, "the crossing met the limit %d times only", met)
			c.that(tree.Close() == nil, "not closed")
			return errors.Join(c...)
		}
		if !errors.Is(err, unix.EMFILE) {
			return err
		}
		if strings.Contains(err.Error(), "where mounts are locked") {
			met++
		}
		free, err := unix.Dup(2)
		if err != nil {
			return err
		}
		unix.Close(free)
		c.that(free == next, "with room for %d files some are left open", room)
	}
	return errors.New("there was never room enough")
}

func TestAFailureThatPassesIsNotKept(t *testing.T) {
	require.Root(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{insideVariable + "=run out of files", "TMPDIR=" + t.TempDir()}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func newVolume(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "volume")
	must(t, os.MkdirAll(dir+"/sub", 0o755))
	must(t, os.Chown(dir, 1000, 1000))
	must(t, os.WriteFile(dir+"/file", nil, 0o644))
	must(t, os.Chown(dir+"/file", 1000, 1000))
	must(t, unix.Mknod(dir+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
	must(t, unix.Mount(t.TempDir(), dir+"/sub", "", unix.MS_BIND, "")) // not tmpfs: idmapped from 6.3 on only
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/sub", 0)) })
	must(t, os.WriteFile(dir+"/sub/deep", []byte("below"), 0o644))
	return dir
}

func TestBind(t *testing.T) {
	require.Root(t)
	ctx := context.Background()
	var maps mount.IDMaps
	defer maps.Close()
	users, err := maps.Get(ctx, testMap)
	must(t, err)
	defer users.Close()
	dir := newVolume(t)
	t.Run("owners are the host's", func(t *testing.T) {
		tree, err := mount.Bind(ctx, dir, users, false)
		must(t, err)
		defer tree.Close()
		enter(t, "use the volume", tree)
		var c checks
		c.owner(dir+"/by-root", 0)
		c.owner(dir+"/by-user", 1000)
		must(t, errors.Join(c...))
	})
	for what, job := range map[string]string{"read-only, with what is below": "read the volume", "read-only for good": "lift the protection"} {
		t.Run(what, func(t *testing.T) {
			tree, err := mount.Bind(ctx, dir, users, true)
			must(t, err)
			defer tree.Close()
			enter(t, job, tree)
		})
	}
	t.Run("a single file", func(t *testing.T) {
		tree, err := mount.Bind(ctx, dir+"/sub/deep", users, false)
		must(t, err)
		defer tree.Close()
		if text, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", tree.File().Fd())); err != nil || string(text) != "below" {
			t.Errorf("it reads %q, %v", text, err)
		}
		enter(t, "use the volume of a file", tree)
	})
	t.Run("a tmpfs, or a refusal that names it", func(t *testing.T) {
		source := filepath.Join(t.TempDir(), "tmpfs")
		must(t, os.Mkdir(source, 0o755))
		must(t, unix.Mount("strata", source, "tmpfs", 0, ""))
		defer unix.Unmount(source, 0)
		tree, err := mount.Bind(ctx, source, users, false)
		if err == nil {
			tree.Close()
		}
		if err != nil && (fault.KindOf(err) != fault.Unable || !strings.Contains(err.Error(), "(tmpfs)")) {
			t.Errorf("Bind: %v, kind %v", err, fault.KindOf(err))
		}
	})
	for what, bad := range map[string]struct {
		source string
		kind   fault.Kind
	}{
		"a relative path":                      {"etc", fault.Invalid},
		"nothing there":                        {dir + "/none", fault.Missing},
		"a file system that cannot be mapped":  {"/proc/self", fault.Unable},
		"one below the source that cannot be":  {"/", fault.Unable},
		"a device":                             {"/dev/null", fault.Unable},
		"a link of proc to what a process has": {"/proc/self/cwd/..", fault.Invalid},
	} {
		t.Run(what, func(t *testing.T) {
			tree, err := mount.Bind(ctx, bad.source, users, false)
			if err == nil || fault.KindOf(err) != bad.kind {
				tree.Close()
				t.Fatalf("Bind(%s): %v, kind %v", bad.source, err, fault.KindOf(err))
			}
			t.Log(err)
		})
	}
}
