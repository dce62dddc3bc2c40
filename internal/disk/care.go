package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/tool"
	"github.com/strata-project/strata/internal/unit"
)

// Usage returns what the image at path really takes on the host, and the size
// limit that it is. Unit: bytes. Kinds: Missing.
func Usage(path string) (used, size int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, nameFault(path, err)
	}
	return st.Blocks * 512, st.Size, nil // stat(2): st_blocks counts 512 bytes, whatever the file system
}

// Grow makes the disk at path larger, which nobody has in use. Once it has begun it goes on
// to its end, whatever becomes of ctx. Kinds: Invalid (smaller than it is, or above the
// ceiling), Missing, Conflict (it is attached), Unable (damaged), Busy (the host's
// file system is too full).
func (p *Pool) Grow(ctx context.Context, path string, size unit.Size) error {
	size = roundUp(size)
	if err := checkSize(size); err != nil {
		return err
	}
	if err := p.release(path); err != nil {
		return err
	}
	image, err := holdSoon(ctx, path)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := growable(image, size); err != nil {
		return err
	}
	// What resize2fs moves and cannot write is lost. It was seen to write 140 MiB at most, to 8 TiB.
	if err := p.checkRoom(filepath.Dir(path), "a larger disk"); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), growPatience)
	defer cancel()
	if err := p.check(ctx, image, "-f"); err != nil { // which resize2fs wants
		return err
	}
	if err := image.Truncate(int64(size)); err != nil {
		return fmt.Errorf("make the image %s: %w", size, err)
	}
	// If this fails the file stays long: the file system in it is whole, at its
	// old size, and growing again goes on from there.
	if _, err := p.treat(ctx, image, "resize2fs", "-f", path); err != nil {
		return fmt.Errorf("grow disk %s: %w", path, err)
	}
	return image.Sync()
}

// growPatience bounds how long a disk grows: there are all inodes to read, and a large
// disk's many groups to write. That cut short would leave the file system damaged, so it
// does not matter who waits.
const growPatience = time.Hour

// mendPatience bounds a check at a start, which who waits may end as well: it is begun anew at the next.
const mendPatience = 5 * time.Minute

// treat runs a tool on a held image, which it holds, too, in case it outlives this
// process. What a guest wrote there is hostile, so the tool is confined.
func (p *Pool) treat(ctx context.Context, image *os.File, name string, args ...string) (int, error) {
	return e2fsprogs(name).Confined(ctx, tool.Job{Agent: p.o.Agent, Image: image, Args: args, Env: environment})
}

// environment is the tools'. Who has the image is told by its lock, so none looks who has
// mounted it; and every kernel that mounts it clears its new tables by itself, of which
// resize2fs asks the host's /sys: it would write them out, and gigabytes of them.
var environment = []string{"EXT2FS_NO_MTAB_OK=1", "RESIZE2FS_FORCE_LAZY_ITABLE_INIT=1"}

// check has e2fsck mend a held image as far as that needs no questions. Kinds: Unable
// (damaged), Busy (there was no time for it).
func (p *Pool) check(ctx context.Context, image *os.File, options ...string) error {
	// Exit status 1: errors were mended. Source: e2fsck(8), EXIT CODE.
	status, err := p.treat(ctx, image, "e2fsck", append(options, "-p", image.Name())...)
	if status > 1 {
		return fault.Unablef("the disk %s is damaged: %w", image.Name(), err).Help("run e2fsck on the image by hand")
	}
	if status == 1 {
		return nil
	}
	return err
}

// mend checks a held image whose file system says that it needs it: resize2fs writes that
// down until it is done, and the kernel when it has met an error. Not so one that is
// mounted as far as it knows: the system that has it so may be suspended, and would go on
// with what it remembers of it.
func (p *Pool) mend(ctx context.Context, image *os.File) error {
	super := make([]byte, superSize)
	if n, err := image.ReadAt(super, superAt); n < len(super) {
		if errors.Is(err, io.EOF) {
			return nil // no file system, which who mounts it tells
		}
		return fmt.Errorf("read the superblock of %s: %w", image.Name(), err)
	}
	le := binary.LittleEndian
	if le.Uint16(super[stateAt:])&stateErrors == 0 || le.Uint32(super[incompatAt:])&incompatRecover != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, mendPatience)
	defer cancel()
	return fault.Wrap(p.check(ctx, image), "check the disk %s, which tells of errors", image.Name())
}

// Clone copies the disk at src, which nobody may have attached, to the new file
// dst. The copy keeps the file system's UUID. Kinds: Missing, Conflict, Busy.
func (p *Pool) Clone(ctx context.Context, src, dst string) error {
	if err := p.checkRoom(filepath.Dir(dst), "another disk"); err != nil {
		return err
	}
	if err := p.release(src); err != nil {
		return err
	}
	image, err := holdSoon(ctx, src)
	if err != nil {
		return err
	}
	defer image.Close()
	part := filepath.Join(filepath.Dir(dst), ".part-"+randomName()+suffix)
	err = copySparse(ctx, src, part)
	if err == nil {
		err = syncFile(part)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, dst, unix.RENAME_NOREPLACE)
		if err != nil {
			err = nameFault(dst, err)
		}
	}
	if err != nil {
		if gone := os.Remove(part); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return fault.Wrap(err, "copy disk %s", src)
	}
	return nil
}

// Remove deletes the disk at path. One that is not there is not an error.
func (p *Pool) Remove(path string) error {
	err := p.release(path)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Trim gives the host back what the file system at path no longer uses, whether
// it is attached or not, and returns by how many bytes the image shrank on the
// host. Kinds: Missing, Unable (the host's file system cannot punch holes).
func (p *Pool) Trim(ctx context.Context, path string) (freed int64, err error) {
	before, _, err := Usage(path)
	if err != nil {
		return 0, err
	}
	tree, err := p.again(ctx, path)
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := trim(tree); err != nil {
		return 0, fault.Wrap(err, "trim disk %s", path)
	}
	after, _, err := Usage(path)
	return max(before-after, 0), err
}

// again returns a mount of the image at path, one more where it is attached:
// the kernel mounts a device's one file system as often as it is asked.
func (p *Pool) again(ctx context.Context, path string) (*mount.Tree, error) {
	dev, err := attachedTo(path)
	if err != nil {
		return nil, err
	}
	if dev == nil {
		return p.Mount(ctx, path)
	}
	defer dev.Close()
	return mountDevice(dev.Name())
}

// trim tells the file system of tree to discard all that is free.
func trim(tree *mount.Tree) error {
	dir, err := openRoot(tree)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// What was deleted is free only once the journal says so.
	if err := unix.Syncfs(dir); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	span := struct{ start, length, least uint64 }{length: ^uint64(0)} // linux/fs.h, struct fstrim_range
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), fitrim, uintptr(unsafe.Pointer(&span)))
	if errno == unix.EOPNOTSUPP {
		return fault.Unablef("the host's file system cannot give space of a file back: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("discard: %w", errno)
	}
	return nil
}

// openRoot opens a tree's root for what is asked of its file system: the tree's own descriptor
// only names it.
func openRoot(tree *mount.Tree) (int, error) {
	return unix.Openat(int(tree.File().Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// fitrim is FITRIM, _IOWR('X', 121, struct fstrim_range). Source: linux/fs.h.
const fitrim = 0xc0185879
