package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount/loop"
)

// Layers are the layer mounts of one strata root: one for each digest, at a
// folder of its name. They outlive the process; OpenLayers finds them again.
// It is safe for concurrent use by one process; two must not share a folder.
type Layers struct {
	dir string

	mu      sync.Mutex
	mounted map[string]bool
}

// digestForm is what a digest may look like; it becomes a file name.
var digestForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+._-]{0,31}[:-][a-zA-Z0-9=_-]{1,128}$`)

// OpenLayers takes the folder dir for layer mounts, makes it where it is
// missing, and takes over the mounts that are there.
func OpenLayers(dir string) (*Layers, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of layer mounts: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	l := &Layers{dir: dir, mounted: make(map[string]bool)}
	all, err := readMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if filepath.Dir(m.point) == dir && m.fstype == "erofs" {
			l.mounted[filepath.Base(m.point)] = true
		}
	}
	// Folders without a mount are left from an interrupted Get or Drop, or from
	// before a reboot. Only empty ones go.
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !l.mounted[name.Name()] {
			_ = unix.Rmdir(filepath.Join(dir, name.Name())) // tolerated: it is not ours, then
		}
	}
	return l, nil
}

// Mounted returns the digests that have a mount.
func (l *Layers) Mounted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for digest := range l.mounted {
		all = append(all, digest)
	}
	return all
}

// Get returns a read-only clone of the layer's one mount, and mounts file, an
// EROFS image, where the layer has none yet. Devices in it are not honoured,
// set-user-id is. Kinds: Invalid (digest), Missing (file), Unable (no EROFS).
func (l *Layers) Get(ctx context.Context, digest, file string) (*Tree, error) {
	if !digestForm.MatchString(digest) {
		return nil, fault.Invalidf("%q is not a digest", digest).Help("it looks like sha256:0123abcd…")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fd, err := l.open(digest, file)
	if err != nil {
		return nil, fault.Wrap(err, "mount layer %s", digest)
	}
	defer unix.Close(fd)
	tree, err := cloneOf(fd, digest, false)
	if err != nil {
		return nil, err
	}
	err = tree.setattr(unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}, false)
	if err != nil {
		tree.Close()
		return nil, fmt.Errorf("protect layer %s: %w", digest, err)
	}
	return tree, nil
}

// open returns a descriptor of the layer's mount, which it makes where there is
// none, or where somebody has unmounted it: the bare folder is never handed out.
func (l *Layers) open(digest, file string) (int, error) {
	point := filepath.Join(l.dir, digest)
	if l.mounted[digest] {
		fd, err := openErofs(point)
		if err == nil {
			return fd, nil
		}
		delete(l.mounted, digest)
	}
	if err := attachLayer(file, point); err != nil {
		return -1, err
	}
	l.mounted[digest] = true
	return openErofs(point)
}

func openErofs(point string) (int, error) {
	fd, err := unix.Open(point, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != erofsMagic {
		unix.Close(fd)
		return -1, errors.Join(err, fmt.Errorf("%s is not an EROFS mount", point))
	}
	return fd, nil
}

// erofsMagic is what statfs says of EROFS. Source: linux/magic.h, EROFS_SUPER_MAGIC_V1.
const erofsMagic = 0xe0f5e1e2

// attachLayer mounts the image file at point, a folder that it makes.
func attachLayer(file, point string) error {
	tree, err := mountImage(file)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := os.Mkdir(point, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the layer's folder: %w", err)
	}
	if err := tree.Attach(point); err != nil {
		_ = unix.Rmdir(point) // tolerated: OpenLayers removes it
		return err
	}
	return nil
}

// mountImage mounts an EROFS image: straight on the file, with direct I/O where
// that is possible so that compressed data is not cached as well, else on a loop device.
func mountImage(file string) (*Tree, error) {
	if info, err := os.Stat(file); err != nil {
		return nil, fault.Missingf("the layer's image is not there: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fault.Unablef("%s is no image but a %v", file, info.Mode().Type())
	}
	fs := FileSystem{Type: "erofs", Source: file, ReadOnly: true, Attr: unix.MOUNT_ATTR_NODEV}
	plain := fs
	fs.Options = []Option{{Key: "directio"}}
	tree, err := fs.Mount()
	if err == nil || fault.Is(err, fault.Unable) {
		return tree, err
	}
	if tree, err = plain.Mount(); err == nil {
		return tree, nil
	}
	if !errors.Is(err, unix.ENOTBLK) {
		return nil, imageFault(err)
	}
	return mountLooped(file)
}

// mountLooped is for kernels before 6.12, where EROFS wants a block device.
func mountLooped(file string) (*Tree, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	dev, err := loop.Attach(f, loop.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	tree, err := FileSystem{Type: "erofs", Source: dev.Path, ReadOnly: true, Attr: unix.MOUNT_ATTR_NODEV}.Mount()
	return tree, imageFault(err)
}

// imageFault gives words to what the kernel says of a bad image.
func imageFault(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADMSG) {
		return fault.Unablef("the layer's image is damaged or not EROFS: %w", err).Help("remove the template and pull or import it again")
	}
	return err
}

// Drop unmounts a layer. Environments that use it keep it until they end.
// A layer that is not mounted is not an error.
func (l *Layers) Drop(digest string) error {
	if !digestForm.MatchString(digest) {
		return fault.Invalidf("%q is not a digest", digest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drop(digest)
}

func (l *Layers) drop(digest string) error {
	point := filepath.Join(l.dir, digest)
	if l.mounted[digest] {
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // those: it is gone already
			return fmt.Errorf("unmount layer %s: %w", digest, err)
		}
		delete(l.mounted, digest)
	}
	if err := unix.Rmdir(point); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the folder of layer %s: %w", digest, err)
	}
	return nil
}

// UnmountAll drops every layer mount.
func (l *Layers) UnmountAll(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for digest := range l.mounted {
		if err := ctx.Err(); err != nil {
			return err
		}
		errs = append(errs, l.drop(digest))
	}
	return errors.Join(errs...)
}
