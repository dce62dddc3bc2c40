package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/thread"
)

// MaxLowers is how many layers one overlay takes.
// Source: fs/overlayfs/params.h, OVL_MAX_STACK.
const MaxLowers = 500

// The folders of a private disk that an overlay uses.
const (
	Upper = "upper" // what the environment has changed
	Work  = "work"  // the overlay's own
)

// OverlaySpec says what an environment's root is put together from.
type OverlaySpec struct {
	Lowers   []*Tree  // layers, the base first and the topmost last, as an image lists them
	Disk     *Tree    // an ext4 whose root holds Upper and Work; nil: nothing can be written
	Map      IDMap    // the environment's user range
	Users    *os.File // a user namespace of that range, from IDMaps.Get
	ReadOnly bool     // show what the disk holds, but write nothing
}

func (s OverlaySpec) check() error {
	var errs []error
	if len(s.Lowers) == 0 || len(s.Lowers) > MaxLowers {
		errs = append(errs, fault.Invalidf("an overlay of %d layers is not possible", len(s.Lowers)).Help("use 1 to %d layers", MaxLowers))
	}
	if s.Users == nil {
		errs = append(errs, fault.Invalidf("an overlay needs the user namespace of its range"))
	}
	return fault.Join(append(errs, s.Map.check())...)
}

// byName is set once this kernel has refused layers by file descriptor and
// taken them by name, so that it is not asked again for every environment.
var byName atomic.Bool

// Overlay puts the root of an environment together, attached nowhere. The trees
// of spec are idmapped in place and so spent: use each for one overlay, and
// close them whatever Overlay returns. The overlay holds what it needs itself.
// Kinds: Invalid, Unable.
func Overlay(ctx context.Context, spec OverlaySpec) (*Tree, error) {
	tree, err := assemble(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := seal(tree); err != nil {
		tree.Close()
		return nil, fault.Wrap(err, "protect an overlay")
	}
	return tree, nil
}

func assemble(ctx context.Context, spec OverlaySpec) (_ *Tree, err error) {
	if err := spec.check(); err != nil {
		return nil, fault.Wrap(err, "put an overlay together")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if spec.Lowers, err = distinct(spec.Lowers); err != nil {
		return nil, err
	}
	for i, lower := range spec.Lowers {
		if err := idmap(lower, spec.Users, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, false); err != nil {
			return nil, fault.Wrap(err, "idmap layer %d", i)
		}
	}
	if spec.Disk != nil {
		if err := idmap(spec.Disk, spec.Users, unix.MOUNT_ATTR_NODEV, false); err != nil {
			return nil, fault.Wrap(err, "idmap the private disk")
		}
	} else if len(spec.Lowers) == 1 {
		// The kernel wants two layers or a disk; one layer is its own overlay.
		root := &Tree{}
		root.replace(spec.Lowers[0])
		return root, nil
	}
	if !byName.Load() {
		tree, err := overlayAsRoot(spec)
		if err == nil || !errors.Is(err, errNoFDs) {
			return tree, err
		}
	}
	var tree *Tree
	err = thread.Spare(func() (err error) {
		tree, err = overlayByName(spec)
		return err
	})
	if err == nil {
		byName.Store(true)
	}
	return tree, err
}

// distinct leaves out layers that are there again further up: an image may list
// a layer twice, which the kernel refuses (ELOOP). All that the lower one holds
// is in the upper one, so nothing is lost.
func distinct(lowers []*Tree) ([]*Tree, error) {
	seen := make(map[uint64]bool, len(lowers))
	var kept []*Tree
	for i := len(lowers) - 1; i >= 0; i-- {
		fd, err := lowers[i].fd()
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, fmt.Errorf("look at layer %d: %w", i, err)
		}
		if dev := uint64(st.Dev); !seen[dev] {
			seen[dev] = true
			kept = append(kept, lowers[i])
		}
	}
	slices.Reverse(kept)
	return kept, nil
}

// overlayAsRoot mounts with the credentials of the range's root. The overlay
// keeps its maker's credentials for all it does to its layers: over an idmapped
// disk the host's root has no id, so that the work folder could not be made
// (EOVERFLOW) and the kernel would quietly fall back to read-only.
func overlayAsRoot(s OverlaySpec) (tree *Tree, err error) {
	err = asRoot(s.Map, func() error {
		tree, err = overlayByFD(s)
		return err
	})
	return tree, err
}

// options are those of every overlay of strata. redirect_dir lets a folder of a
// layer be renamed. index would tie the disk to the very layers it was first
// used with (it is used over one merged layer at deeper strata), and metacopy
// would let a hostile disk show the content of files its users may not read.
func (s OverlaySpec) options() []Option {
	return []Option{
		{Key: "redirect_dir", Value: "on"}, {Key: "metacopy", Value: "off"},
		{Key: "index", Value: "off"}, {Key: "xino", Value: "auto"},
	}
}

func (s OverlaySpec) fileSystem(dirs []Option) FileSystem {
	return FileSystem{Type: "overlay", Source: "strata", Options: append(dirs, s.options()...),
		ReadOnly: s.ReadOnly || s.Disk == nil, Attr: unix.MOUNT_ATTR_NODEV}
}

// errNoFDs says that this kernel wants overlay layers by name.
var errNoFDs = errors.New("this kernel takes no overlay layers by file descriptor")

// overlayByFD hands the kernel descriptors of trees that are attached nowhere.
func overlayByFD(s OverlaySpec) (*Tree, error) {
	var dirs []Option
	for i := len(s.Lowers) - 1; i >= 0; i-- { // the kernel wants the topmost first
		dirs = append(dirs, Option{Key: "lowerdir+", Of: s.Lowers[i].File()})
	}
	if s.Disk != nil {
		upper, work, err := s.openDisk()
		if err != nil {
			return nil, err
		}
		defer upper.Close()
		defer work.Close()
		dirs = append(dirs, Option{Key: "upperdir", Of: upper}, Option{Key: "workdir", Of: work})
	}
	tree, err := s.fileSystem(dirs).Mount()
	// Before 6.5 overlay's options are strings for all that fsconfig(2) may say.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("%w: %w", errNoFDs, err)
	}
	return checkWritable(s, tree, err)
}

// openDisk opens the disk's two folders. At a disk's first use its upper folder
// is given the owner and mode of the topmost layer's root, for it is the upper
// folder's that the environment sees as its own root's.
func (s OverlaySpec) openDisk() (upper, work *os.File, err error) {
	if upper, err = openFolder(s.Disk, Upper); err != nil {
		return nil, nil, err
	}
	if work, err = openFolder(s.Disk, Work); err != nil {
		upper.Close()
		return nil, nil, err
	}
	var st unix.Stat_t
	// The kernel makes a folder "work" in the work folder, and keeps it.
	if unix.Fstatat(int(work.Fd()), "work", &st, unix.AT_SYMLINK_NOFOLLOW) == nil || s.ReadOnly {
		return upper, work, nil
	}
	top, err := s.Lowers[len(s.Lowers)-1].fd()
	if err == nil {
		err = unix.Fstat(top, &st)
	}
	if err == nil {
		err = upper.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = unix.Fchmod(int(upper.Fd()), st.Mode&0o7777)
	}
	if err != nil {
		upper.Close()
		work.Close()
		return nil, nil, fmt.Errorf("give the disk the root folder's owner: %w", err)
	}
	return upper, work, nil
}

// openFolder opens a folder of a disk's root. The disk may be hostile, so
// nothing but a real folder of that very file system will do.
func openFolder(disk *Tree, name string) (*os.File, error) {
	fd, err := disk.fd()
	if err != nil {
		return nil, err
	}
	dir, err := unix.Openat2(fd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, fault.Unablef("the private disk has no folder %s that can be used: %w", name, err)
	}
	return os.NewFile(uintptr(dir), name), nil
}

// checkWritable refuses an overlay that the kernel turned read-only by itself.
func checkWritable(s OverlaySpec, tree *Tree, err error) (*Tree, error) {
	if err != nil || s.ReadOnly || s.Disk == nil {
		return tree, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(tree.File().Fd()), &st); err != nil {
		tree.Close()
		return nil, fmt.Errorf("ask whether the overlay can be written: %w", err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		tree.Close()
		return nil, fault.Unablef("the kernel made the overlay read-only").Help("the private disk is damaged or full: see the kernel's log")
	}
	return tree, nil
}

// idmap shows tree through a user range and sets mount attributes on it.
func idmap(tree *Tree, users *os.File, set uint64, recursive bool) error {
	return tree.setattr(unix.MountAttr{
		Attr_set:    set | unix.MOUNT_ATTR_IDMAP,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(users.Fd()),
	}, recursive)
}
