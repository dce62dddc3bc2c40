package mount_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/mount"
)

// capNetRaw is a version 2 file capability, cap_net_raw=ep.
// Source: linux/capability.h, struct vfs_cap_data.
var capNetRaw = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func fillBase(t testing.TB, root string) {
	write := func(name, text string, mode os.FileMode, uid int) {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
		must(t, os.Chown(path, uid, uid))
		must(t, os.Chmod(path, mode))
	}
	write("etc/name", "base", 0o644, 0)
	write("etc/only-base", "base", 0o644, 0)
	write("bin/su", "#!", 0o755|os.ModeSetuid, 0)
	write("home/user/file", "mine", 0o600, 1000)
	must(t, os.Chown(filepath.Join(root, "home/user"), 1000, 1000))
	write("lib/a/b/c", "deep", 0o644, 0)
	write("doomed", "x", 0o644, 0)
	write("bin/ping", "#!", 0o755, 0)
	must(t, unix.Setxattr(filepath.Join(root, "bin/ping"), "security.capability", capNetRaw, 0))
	must(t, os.MkdirAll(filepath.Join(root, "dev"), 0o755))
	must(t, unix.Mknod(filepath.Join(root, "dev/zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
}

func fillTop(t testing.TB, root string) {
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/name"), []byte("top"), 0o644))
	must(t, os.MkdirAll(filepath.Join(root, "mnt"), 0o755))
	must(t, os.Chmod(root, 0o711))
}

// inside is what processes that enter starts do; each is in the namespaces and
// has the tree at descriptor 3.
var inside = map[string]func() error{
	"use the overlay":          useOverlay,
	"read the overlay":         readOverlay,
	"use the volume":           useVolume,
	"read the volume":          readVolume,
	"use the volume of a file": useFileVolume,
	"lift the protection":      liftProtection,
	"fill the disk":            fillDisk,
	"run out of files":         runOut,
}

// all joins the faults of checks.
type checks []error

func (c *checks) that(ok bool, format string, args ...any) {
	if !ok {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

func (c *checks) no(err error, doing string) {
	if err != nil {
		*c = append(*c, fmt.Errorf("%s: %w", doing, err))
	}
}

func (c *checks) owner(path string, uid uint32) {
	var st unix.Stat_t
	c.no(unix.Lstat(path, &st), "stat "+path)
	c.that(st.Uid == uid && st.Gid == uid, "%s is %d:%d's, not %d's", path, st.Uid, st.Gid, uid)
}

func (c *checks) content(path, want string) {
	got, err := os.ReadFile(path)
	c.no(err, "read "+path)
	c.that(err != nil || string(got) == want, "%s holds %q, not %q", path, got, want)
}

func useOverlay() error {
	if err := becomeRooted(); err != nil {
		return err
	}
	var c checks
	c.content("/etc/name", "top")
	c.content("/etc/only-base", "base")
	c.owner("/", 0)
	root, err := os.Stat("/")
	c.that(err == nil && root.Mode().Perm() == 0o711, "the root folder is not the template's: %v, %v", root, err)
	c.owner("/home/user/file", 1000)
	info, err := os.Stat("/bin/su")
	c.no(err, "stat /bin/su")
	c.that(err != nil || info.Mode()&os.ModeSetuid != 0, "/bin/su lost its set-user-id")
	useFiles(&c)
	useTricks(&c)
	return errors.Join(c...)
}

func useFiles(c *checks) {
	c.no(os.WriteFile("/by-root", []byte("r"), 0o644), "write as root")
	c.owner("/by-root", 0)
	c.no(os.WriteFile("/by-user", []byte("u"), 0o644), "write for a user")
	c.no(os.Chown("/by-user", 1000, 1000), "chown")
	c.no(os.Chmod("/by-user", 0o755|os.ModeSetuid), "chmod u+s")
	c.owner("/by-user", 1000)
	c.no(os.WriteFile("/home/user/file", []byte("changed"), 0o600), "copy up a user's file")
	c.owner("/home/user/file", 1000)
	c.no(os.Remove("/doomed"), "remove a layer's file")
	_, err := os.Lstat("/doomed")
	c.that(errors.Is(err, os.ErrNotExist), "a removed file is there: %v", err)
	c.no(os.Rename("/lib", "/lib2"), "rename a layer's folder")
	c.content("/lib2/a/b/c", "deep")
	c.no(os.Link("/etc/only-base", "/etc/linked"), "link a layer's file")
	c.content("/etc/linked", "base")
	c.no(os.Symlink("/etc/name", "/link"), "symlink")
	c.no(unix.Mkfifo("/fifo", 0o600), "mkfifo")
	c.no(os.RemoveAll("/home"), "remove a layer's folder")
	c.no(os.MkdirAll("/home/new", 0o755), "make it again")
	names, err := os.ReadDir("/home")
	c.that(err == nil && len(names) == 1, "the folder made again holds %v (%v)", names, err)
}

func useTricks(c *checks) {
	c.no(unix.Setxattr("/by-root", "user.mine", []byte("v"), 0), "set an xattr")
	c.no(unix.Setxattr("/by-root", "security.capability", capNetRaw, 0), "set a file capability")
	buf := make([]byte, 64)
	n, err := unix.Getxattr("/bin/ping", "security.capability", buf)
	c.that(err == nil && n == 20 && bytes.Equal(buf[:n], capNetRaw), "a layer's file capability reads %x (%v)", buf[:max(n, 0)], err)
	c.no(os.Chmod("/bin/ping", 0o700), "copy up a file with a capability")
	n, err = unix.Getxattr("/bin/ping", "security.capability", buf)
	c.that(err == nil && n >= 20, "a copied-up file capability is gone: %v", err)
	_, err = os.OpenFile("/dev/zero", os.O_RDWR, 0)
	c.that(errors.Is(err, unix.EACCES), "a layer's device can be opened: %v", err)
	err = unix.Mknod("/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	c.that(errors.Is(err, unix.EPERM), "a device can be made: %v", err)
	err = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	c.that(errors.Is(err, unix.EPERM), "nodev was taken off from inside: %v", err)
	f, err := os.OpenFile("/etc/name", os.O_RDWR, 0)
	c.no(err, "open for mmap")
	if err == nil {
		m, err := unix.Mmap(int(f.Fd()), 0, 3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.no(err, "mmap")
		if err == nil {
			copy(m, "MAP")
			c.no(unix.Munmap(m), "munmap")
			c.content("/etc/name", "MAP")
		}
		f.Close()
	}
}

func readOverlay() error {
	if err := becomeRooted(); err != nil {
		return err
	}
	var c checks
	c.content("/etc/only-base", "base")
	err := os.WriteFile("/by-root", []byte("no"), 0o644)
	c.that(errors.Is(err, unix.EROFS), "a read-only environment wrote: %v", err)
	err = unix.Mount("", "/", "", unix.MS_REMOUNT, "")
	c.that(err != nil, "a read-only overlay was remounted")
	return errors.Join(c...)
}

func fillDisk() error {
	if err := becomeRooted(); err != nil {
		return err
	}
	f, err := os.Create("/big")
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for range 1 << 10 {
		if _, err = f.Write(buf); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("a full disk says %v", err)
	}
	return nil
}

// onDisk looks at the disk as the host sees it, with no ids mapped.
func (r *rig) onDisk(t *testing.T, look func(dir string)) {
	t.Helper()
	tree := r.mountDisk(t)
	defer tree.Close()
	look(fmt.Sprintf("/proc/self/fd/%d/%s", tree.File().Fd(), mount.Upper))
}

func TestOverlay(t *testing.T) {
	for name, byName := range map[string]bool{"layers by descriptor": false, "layers by name, as older kernels want them": true} {
		t.Run(name, func(t *testing.T) {
			mount.ForceByName(t, byName)
			r := newRig(t)
			before := mounts(t)
			tree := r.overlay(t, true, false)
			enter(t, "use the overlay", tree)
			must(t, tree.Close())
			if after := mounts(t); after != before {
				t.Errorf("%d mounts became %d", before, after)
			}
			r.onDisk(t, func(dir string) {
				var c checks
				c.owner(dir, 0)
				c.owner(dir+"/by-root", 0)
				c.owner(dir+"/by-user", 1000)
				c.owner(dir+"/home", 0)
				info, err := os.Stat(dir + "/by-user")
				c.that(err == nil && info.Mode()&os.ModeSetuid != 0, "set-user-id is not stored: %v", err)
				buf := make([]byte, 64)
				n, err := unix.Getxattr(dir+"/by-root", "security.capability", buf)
				c.that(err == nil && n == 20, "the file capability is stored as %x (%v), not the host's own form", buf[:max(n, 0)], err)
				must(t, errors.Join(c...))
			})
			enter(t, "read the overlay", r.overlay(t, true, true))
			enter(t, "read the overlay", r.overlayFresh(t))
		})
	}
}

// overlayFresh is an overlay without a disk.
func (r *rig) overlayFresh(t *testing.T) *mount.Tree { return r.overlay(t, false, false) }

func mounts(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(text), "\n") - strings.Count(string(text), "/layers/sha256:")
}

func TestFullDiskIsNoSpaceInside(t *testing.T) {
	r := newRig(t)
	enter(t, "fill the disk", r.overlay(t, true, false))
}
