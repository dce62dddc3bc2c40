package disk

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/tool"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/unit"
)

// Sizes that a private disk can have. Below the floor the journal and the
// inode tables leave no room worth having; the ceiling is half of what one file
// can be on an ext4 host with 4 KiB blocks (16 TiB).
const (
	FloorSize   unit.Size = 32 * unit.MiB
	CeilingSize unit.Size = 8 * unit.TiB
)

func checkSize(size unit.Size) error {
	if size < FloorSize || size > CeilingSize {
		return fault.Invalidf("a private disk of %s is not possible", size).At("disk").Help("ask for %s to %s", FloorSize, CeilingSize)
	}
	return nil
}

// roundUp makes a size a whole number of MiB, so that it suits every block size.
func roundUp(size unit.Size) unit.Size {
	if size > CeilingSize {
		return size // refused by checkSize; kept from overflowing here
	}
	return (size + unit.MiB - 1) / unit.MiB * unit.MiB
}

// Create makes an empty private disk of the given size (0: the pool's) as the
// image file path. Once the folder of path is synced, so is the disk.
// Kinds: Invalid (size), Conflict (path exists), Busy (host too full).
func (p *Pool) Create(ctx context.Context, path string, size unit.Size) error {
	if size == 0 {
		size = p.o.Size
	}
	size = roundUp(size)
	if err := checkSize(size); err != nil {
		return err
	}
	if err := p.checkRoom(filepath.Dir(path), "another disk"); err != nil {
		return err
	}
	if size == p.o.Size {
		if ok, err := p.takeReady(path); ok || err != nil {
			return err
		}
	}
	return fault.Wrap(p.makeImage(ctx, path, size), "make disk %s", path)
}

// checkRoom refuses what while the file system of dir has less free than the reserve.
func (p *Pool) checkRoom(dir, what string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nameFault(dir, err)
	}
	free := unit.Size(st.Bavail) * unit.Size(st.Bsize)
	total := unit.Size(st.Blocks) * unit.Size(st.Bsize)
	reserve := p.o.Reserve
	if reserve == 0 {
		reserve = min(max(total/50, 256*unit.MiB), 8*unit.GiB)
	}
	if free < reserve {
		return fault.Busyf("the host's file system at %s is too full for %s: %s of %s free, %s are kept in reserve", dir, what, free, total, reserve).
			Help("remove environments or templates that are not needed, or make room otherwise")
	}
	return nil
}

// makeImage makes an empty disk at path, beside it first.
func (p *Pool) makeImage(ctx context.Context, path string, size unit.Size) (err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	part := filepath.Join(filepath.Dir(path), ".part-"+randomName()+suffix)
	back.Push("remove the half-made disk", func(context.Context) error {
		if err := os.Remove(part); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	if size == p.o.Size {
		err = p.copyGolden(ctx, part)
	} else {
		err = format(ctx, part, size)
	}
	if err != nil {
		return err
	}
	if err := syncFile(part); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system without it
		if err = os.Link(part, path); err == nil {
			err = os.Remove(part)
		}
	}
	if err != nil {
		return nameFault(path, err)
	}
	return nil
}

func (p *Pool) copyGolden(ctx context.Context, to string) error {
	golden := p.golden()
	if err := p.haveGolden(ctx, golden); err != nil {
		return err
	}
	if err := copySparse(ctx, golden, to); err != nil {
		return err
	}
	return stampUUID(to)
}

func (p *Pool) haveGolden(ctx context.Context, golden string) error {
	p.making.Lock()
	defer p.making.Unlock()
	if _, err := os.Lstat(golden); err == nil {
		return nil
	}
	part := filepath.Join(p.dir, ".part-"+randomName()+suffix)
	// With the overlay's folders in it, so that no copy has to be given them.
	folders := filepath.Join(p.dir, "folders")
	for _, name := range []string{mount.Upper, mount.Work} {
		if err := os.MkdirAll(filepath.Join(folders, name), 0o755); err != nil {
			return fmt.Errorf("make the golden disk's folders: %w", err)
		}
	}
	defer os.RemoveAll(folders)
	err := format(ctx, part, p.o.Size, "-d", folders)
	if err == nil {
		err = syncFile(part)
	}
	if err == nil {
		err = os.Rename(part, golden)
	}
	if err != nil {
		_ = os.Remove(part) // tolerated: the next OpenPool removes it
		return fault.Wrap(err, "make the golden disk")
	}
	return nil
}

// features are those of the file system. All can be read by Linux 4.4 and
// e2fsprogs 1.43 on, so by any guest. Left out on purpose: orphan_file (needs
// 5.15). What resize_inode sets aside is said to mkfs.ext4, which would write 4 MiB to
// every image.
const features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file," +
	"huge_file,dir_nlink,extra_isize,metadata_csum,metadata_csum_seed"

// blockSize is that of the file system, and of its device. Unit: bytes.
const blockSize = 4096

// formatOptions are the arguments of mkfs.ext4 for an image of the given size.
func formatOptions(path string, size unit.Size) []string {
	// Each journal block costs a host block once it has been used, and the first
	// round through the journal is slow for that: it is kept small.
	journal, perInode := 8, 16384 // MiB, bytes
	switch {
	case size < 256*unit.MiB:
		journal, perInode = 4, 4096 // 4 MiB is the least of mkfs.ext4 for 4 KiB blocks
	case size < 4*unit.GiB:
		perInode = 8192
	}
	return []string{"-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-I", "256", "-m", "0", "-e", "remount-ro",
		"-i", strconv.Itoa(perInode), "-J", "size=" + strconv.Itoa(journal), "-O", features,
		// The image is all holes, which read as zeros: nothing needs to be cleared or discarded.
		"-E", "assume_storage_prezeroed=1,nodiscard,lazy_journal_init=1,root_owner=0:0,resize=" + strconv.FormatInt(int64(liveReserve(size)/blockSize), 10),
		path}
}

// e2fsprogs is one of the tools of that name.
func e2fsprogs(name string) tool.Tool { return tool.Tool{Name: name, Package: "e2fsprogs"} }

// format makes a file system of the given size in the new file path; it is empty
// but for what further options of mkfs.ext4 ask for.
func format(ctx context.Context, path string, size unit.Size, further ...string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nameFault(path, err)
	}
	err = f.Truncate(int64(size))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make a file of %s: %w", size, err)
	}
	_, err = e2fsprogs("mkfs.ext4").Run(ctx, append(further, formatOptions(path, size)...)...)
	return err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nameFault(path, err)
	}
	return errors.Join(f.Sync(), f.Close())
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: see its documentation
	return hex.EncodeToString(b[:])
}
