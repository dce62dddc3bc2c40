package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
)

// Hold opens the image at path and locks it against being attached elsewhere.
// The lock lasts as long as any copy of the returned file does, a loop device's
// or a child process's included. Kinds: Missing, Conflict (it is attached).
func Hold(path string) (*os.File, error) {
	f, err := openImage(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := hold(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openImage opens the image at path, whoever has it attached.
func openImage(path string, mode int) (*os.File, error) {
	f, err := os.OpenFile(path, mode|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nameFault(path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fault.Unablef("%s is no disk image but a %v", f.Name(), info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func hold(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fault.Conflictf("the disk %s is attached already", f.Name()).Help("stop the environment that uses it")
	}
	if err != nil {
		return fmt.Errorf("lock disk %s: %w", f.Name(), err)
	}
	return nil
}

// settle bounds the wait for a disk whose last user has just ended: the kernel
// unmounts it a moment after the environment's last process is gone.
var settle = time.Second // changed by tests only

// holdSoon is Hold with that wait. The kernel tells nobody when a loop device
// lets go of its file, so the lock is tried again.
func holdSoon(ctx context.Context, path string) (*os.File, error) {
	for end := time.Now().Add(settle); ; {
		f, err := Hold(path)
		if !fault.Is(err, fault.Conflict) || time.Now().After(end) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Mount attaches and mounts the image at path: an ext4 whose root holds
// mount.Upper and mount.Work, attached nowhere. When the tree and all it is
// used for are gone, the kernel unmounts it and frees the loop device.
// Kinds: Missing, Conflict (it is attached), Unable (damaged).
func (p *Pool) Mount(ctx context.Context, path string) (*mount.Tree, error) {
	tree, err := p.takeGiven(path)
	if tree != nil || err != nil {
		return tree, err
	}
	image, err := holdSoon(ctx, path)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	if err := p.mend(ctx, image); err != nil {
		return nil, err
	}
	return mountImage(image)
}

// Hold is the package's Hold for who attaches the image by other means than Mount, as
// a virtual machine does. Where the pool has it mounted, it is unmounted first: two
// kernels would spoil it. Kinds: Missing, Conflict (it is attached), Unable (damaged).
func (p *Pool) Hold(ctx context.Context, path string) (*os.File, error) {
	if err := p.release(path); err != nil {
		return nil, err
	}
	f, err := holdSoon(ctx, path)
	if err != nil {
		return nil, err
	}
	err = p.mend(ctx, f)
	if err == nil {
		// What is not to block is refused by io_uring where it would.
		err = fault.Wrap(unix.SetNonblock(int(f.Fd()), false), "open disk %s", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// mountImage attaches a held image and mounts it.
func mountImage(image *os.File) (*mount.Tree, error) {
	dev, err := loop.Attach(image, loopOptions)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	tree, err := mountDevice(dev.Path)
	if err != nil {
		return nil, fault.Wrap(err, "mount disk %s", image.Name())
	}
	if err := makeFolders(tree); err != nil {
		tree.Close()
		return nil, fmt.Errorf("prepare disk %s: %w", image.Name(), err)
	}
	return tree, nil
}

// loopOptions are those of every disk. Direct I/O keeps the host from caching
// what the disk's own file system caches, and is as quick as the host's file
// system below it (BenchmarkThroughput); through the host's cache first writes
// are three times slower.
var loopOptions = loop.Options{Direct: true, BlockSize: blockSize}

// mountDevice mounts a disk. What is deleted in it is given back to the host as
// soon as the journal has it: measured, discard costs nothing beside the noise.
func mountDevice(path string) (*mount.Tree, error) {
	tree, err := mount.FileSystem{
		Type: "ext4", Source: path, Attr: unix.MOUNT_ATTR_NODEV,
		Options: []mount.Option{{Key: "errors", Value: "remount-ro"}, {Key: "discard"}},
	}.Mount()
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EIO) {
		return nil, fault.Unablef("the file system is damaged or not ext4: %w", err).Help("run e2fsck on the image, or restore it")
	}
	return tree, err
}

// makeFolders makes the overlay's folders on a disk that has none yet.
func makeFolders(tree *mount.Tree) error {
	root := int(tree.File().Fd())
	for _, name := range []string{mount.Upper, mount.Work} {
		if err := unix.Mkdirat(root, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the folder %s: %w", name, err)
		}
	}
	return nil
}

// Attached returns the loop devices that have an image below the folder dir,
// whoever made them. After a crash of the daemon these are the disks of running
// environments: what the pool had mounted ahead went with the process.
func Attached(dir string) ([]loop.Attached, error) {
	all, err := loop.List()
	if err != nil {
		return nil, err
	}
	var ours []loop.Attached
	for _, one := range all {
		if strings.HasPrefix(one.Image, strings.TrimSuffix(dir, "/")+"/") {
			ours = append(ours, one)
		}
	}
	return ours, nil
}
