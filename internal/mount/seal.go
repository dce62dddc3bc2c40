package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/thread"
)

// A tree that a user namespace attaches itself could be remounted by it without
// the tree's read-only and nodev: the kernel locks these flags only when a
// mount crosses from one user namespace's mounts to another's. So every tree
// for an environment crosses once before it is handed out.
//
// The crossing is a pair of mount namespaces, empty but for one small tmpfs:
// ours belongs to the host's user namespace, theirs to a user namespace with no
// ids. What is attached in ours propagates to theirs, locked; a clone taken
// there keeps the locks. Source: fs/namespace.c, lock_mnt_tree.
type crossing struct {
	ours, theirs *os.File
	work         chan func() // done by one thread that lives between the two
}

// kept is the crossing, made at first use and kept for good: two descriptors and a
// thread. What kept it from being made may pass: the next use tries again.
var kept struct {
	sync.Mutex
	crossing *crossing
}

func theCrossing() (*crossing, error) {
	kept.Lock()
	defer kept.Unlock()
	if kept.crossing == nil {
		c, err := newCrossing()
		if err != nil {
			return nil, err
		}
		kept.crossing = c
	}
	return kept.crossing, nil
}

// newCrossing makes the pair. No process stays in it.
func newCrossing() (_ *crossing, err error) {
	c := &crossing{work: make(chan func())}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	err = thread.Spare(func() error {
		proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(proc)
		if err := enterEmpty(); err != nil {
			return err
		}
		if err := errors.Join(unix.Mkdir(folderPlace, 0o700), unix.Mknod(filePlace, unix.S_IFREG|0o600, 0)); err != nil {
			return err
		}
		if c.ours, err = openNamespace(proc, fmt.Sprintf("%d/task/%d", os.Getpid(), unix.Gettid())); err != nil {
			return err
		}
		pid, err := forkPaused(os.Getpid(), unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
		if err != nil {
			return namespaceFault(err)
		}
		c.theirs, err = openNamespace(proc, strconv.Itoa(pid))
		return errors.Join(err, reap(pid))
	})
	if err != nil {
		return nil, fmt.Errorf("make the place where mounts are locked: %w", err)
	}
	ready := make(chan error)
	// A thread of its own for each tree would cost more than all the rest.
	go func() {
		_ = thread.Spare(func() error {
			err := unix.Unshare(unix.CLONE_FS) // setns wants it
			ready <- err
			for err == nil {
				(<-c.work)()
			}
			return err
		})
	}()
	return c, <-ready
}

// close gives back what a half-made crossing has.
func (c *crossing) close() {
	for _, side := range []*os.File{c.ours, c.theirs} {
		if side != nil {
			side.Close()
		}
	}
}

func openNamespace(proc int, task string) (*os.File, error) {
	fd, err := unix.Openat(proc, task+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mount namespace of %s: %w", task, err)
	}
	return os.NewFile(uintptr(fd), "mount namespace"), nil
}

// enterEmpty puts the calling thread into a mount namespace with one shared
// tmpfs and nothing else: kept for long, it must not pin what the host unmounts.
func enterEmpty() error {
	scratch, err := enterScratch()
	if err != nil {
		return err
	}
	defer scratch.Close()
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change to the scratch folder: %w", err)
	}
	// Stacked over the new root, the old one is what "." finds now: pivot_root(2).
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's mounts: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_SHARED, "")
}

// enterScratch puts the calling thread into a private mount namespace, with a
// new tmpfs over the root as its working folder.
func enterScratch() (*Tree, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make the mount namespace private: %w", err)
	}
	scratch, err := FileSystem{Type: "tmpfs", Source: "strata", Options: []Option{{Key: "mode", Value: "0755"}}}.Mount()
	if err != nil {
		return nil, err
	}
	// Over the root, which every host has; all below goes by the working folder.
	err = scratch.Attach("/")
	if err == nil {
		err = unix.Fchdir(int(scratch.File().Fd()))
	}
	if err != nil {
		scratch.Close()
		return nil, fmt.Errorf("enter the scratch folder: %w", err)
	}
	return scratch, nil
}

// seal replaces tree's mount, and those below it, by clones whose read-only and
// nodev nobody in a user namespace can take off, and whose lower mounts nobody
// there can take away.
func seal(tree *Tree) error {
	c, err := theCrossing()
	if err != nil {
		return err
	}
	fd, err := tree.fd()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at the mount to lock: %w", err)
	}
	var locked int
	done := make(chan error, 1)
	c.work <- func() {
		var err error
		locked, err = c.cross(tree, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		done <- err
	}
	if err := <-done; err != nil {
		return fmt.Errorf("lock the flags of a mount: %w", err)
	}
	sealed := NewTree(locked, tree.File().Name())
	if err := sealed.setattr(unix.MountAttr{Propagation: unix.MS_PRIVATE}, true); err != nil {
		sealed.Close()
		return fmt.Errorf("make a locked mount private: %w", err)
	}
	tree.replace(sealed)
	return nil
}

// The crossing's only places to attach something at.
const (
	folderPlace = "folder"
	filePlace   = "file"
)

// cross takes tree over the crossing and returns the clone from the other side.
// It runs on the crossing's thread.
func (c *crossing) cross(tree *Tree, folder bool) (fd int, err error) {
	place := filePlace
	if folder {
		place = folderPlace
	}
	if err := c.enter(c.ours); err != nil {
		return -1, err
	}
	if err := tree.Attach(place); err != nil {
		return -1, err
	}
	defer func() {
		back := c.enter(c.ours)
		if back == nil {
			back = unix.Unmount(place, unix.MNT_DETACH)
		}
		if back != nil && err == nil {
			unix.Close(fd)
			fd, err = -1, fmt.Errorf("leave the crossing: %w", back)
		}
	}()
	if err := c.enter(c.theirs); err != nil {
		return -1, err
	}
	return unix.OpenTree(unix.AT_FDCWD, place, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
}

// enter moves the calling thread, its root and its working folder.
func (c *crossing) enter(side *os.File) error {
	err := unix.Setns(int(side.Fd()), unix.CLONE_NEWNS)
	runtime.KeepAlive(side)
	return err
}
