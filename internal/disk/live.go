package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/unit"
)

// A file system grows while it is mounted as far as room was set aside for the
// descriptors of its groups when it was made. Beyond that the kernel changes its layout
// (meta_bg), which was seen to lose what was written where a system ended in the midst of
// it; resize2fs does that while nobody has it mounted.

// liveFactor is how many times as large a new disk may become while it is in use, liveLeast
// how large in any case, and liveMost by how much at most. Each 8 GiB take a block of 4 KiB,
// and the kernel has all of these in one transaction, for which it takes a quarter of the
// journal: 512 blocks of 8 MiB. Source: fs/ext4/resize.c, ext4_flex_group_add.
const (
	liveFactor           = 16
	liveLeast  unit.Size = 64 * unit.GiB
	liveMost   unit.Size = 3 * unit.TiB
)

// liveReserve is what room is set aside for in a new disk of the given size. It is always
// more than that, which mkfs.ext4 wants.
func liveReserve(size unit.Size) unit.Size {
	return min(max(size*liveFactor, liveLeast), size+liveMost, CeilingSize+unit.GiB)
}

// LiveCeiling returns how large the disk at path can become while it is in use.
// Kinds: Missing, Unable (it has no file system of ours).
func LiveCeiling(path string) (unit.Size, error) {
	image, err := openImage(path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer image.Close()
	return liveCeiling(image)
}

func liveCeiling(image *os.File) (unit.Size, error) {
	super := make([]byte, superSize)
	if n, err := image.ReadAt(super, superAt); err != nil && !(err == io.EOF && n == len(super)) {
		return 0, fault.Unablef("read the superblock of %s: %w", image.Name(), err)
	}
	le := binary.LittleEndian
	u32 := func(at int) uint64 { return uint64(le.Uint32(super[at:])) }
	incompat, shift, perGroup := u32(incompatAt), u32(blockSizeAt), u32(perGroupAt)
	if le.Uint16(super[magicAt:]) != superMagic || shift > 6 || perGroup == 0 {
		return 0, fault.Unablef("%s has no file system of strata's", image.Name())
	}
	block, descriptor := uint64(1024)<<shift, uint64(32)
	blocks := u32(blocksAt)
	if incompat&incompat64 != 0 {
		blocks |= u32(blocksHighAt) << 32
		if n := uint64(le.Uint16(super[descriptorAt:])); n >= 32 && n <= block {
			descriptor = n
		}
	}
	blocks = min(blocks, uint64(CeilingSize)/block) // what a hostile one says must not overflow
	if u32(compatAt)&compatResize == 0 || incompat&incompatMetaGroups != 0 {
		return unit.Size(blocks * block), nil // the kernel would change its layout for any larger one
	}
	table := (blocks + perGroup - 1) / perGroup * descriptor
	tableBlocks := (table+block-1)/block + uint64(le.Uint16(super[reservedAt:]))
	groups := tableBlocks * (block / descriptor)
	if perGroup > uint64(CeilingSize)/block || groups > uint64(CeilingSize)/block/perGroup {
		return CeilingSize, nil
	}
	return unit.Size(groups * perGroup * block), nil
}

// Where things are in an ext4 superblock, further than copy.go's.
// Source: fs/ext4/ext4.h, struct ext4_super_block.
const (
	blocksAt           = 0x4
	blockSizeAt        = 0x18
	perGroupAt         = 0x20
	compatAt           = 0x5C
	reservedAt         = 0xCE
	descriptorAt       = 0xFE
	blocksHighAt       = 0x150
	compatResize       = 0x10 // EXT4_FEATURE_COMPAT_RESIZE_INODE
	incompatMetaGroups = 0x10 // EXT4_FEATURE_INCOMPAT_META_BG
	incompat64         = 0x80 // EXT4_FEATURE_INCOMPAT_64BIT
)

// Lengthen makes room in the image at path for a file system that is in use to become as
// large as size, which who has it mounted is to see to. If that comes to nothing the image
// stays long, and the file system in it whole, at its size. It returns the image's length.
// Kinds: Invalid (smaller than it is, or above the ceiling), Missing, Conflict (more than it
// was made for, while it is in use), Busy (the host's file system is too full).
func (p *Pool) Lengthen(path string, size unit.Size) (unit.Size, error) {
	size = roundUp(size)
	if err := checkSize(size); err != nil {
		return 0, err
	}
	image, err := openImage(path, os.O_RDWR)
	if err != nil {
		return 0, err
	}
	defer image.Close()
	if err := growable(image, size); err != nil {
		return 0, err
	}
	ceiling, err := liveCeiling(image)
	if err != nil {
		return 0, err
	}
	if size > ceiling {
		return 0, fault.Conflictf("while it is in use the disk can become as large as %s at most, for which it was made", ceiling).At("disk").
			Help("stop it first, for %s", size)
	}
	if err := p.checkRoom(filepath.Dir(path), "a larger disk"); err != nil {
		return 0, err
	}
	if err := image.Truncate(int64(size)); err != nil {
		return 0, fmt.Errorf("make the image %s: %w", size, err)
	}
	// The file system is not to be longer than its image after the host has lost its power.
	return size, image.Sync()
}

// growable refuses what would make an image shorter.
func growable(image *os.File, size unit.Size) error {
	info, err := image.Stat()
	if err != nil {
		return err
	}
	if have := unit.Size(info.Size()); size < have {
		return fault.Invalidf("the disk has %s and cannot become smaller", have).At("disk").Help("ask for %s or more", have)
	}
	return nil
}

// GrowMounted makes the disk at path larger, which is mounted on this host, while it is in
// use. Kinds: as Lengthen's; Conflict (it is not mounted), Unable (the kernel does not let
// this process), Busy (it is growing already).
func (p *Pool) GrowMounted(path string, size unit.Size) error {
	if err := CanGrowMounted(); err != nil {
		return err
	}
	dev, err := attachedTo(path)
	if err != nil {
		return err
	}
	if dev == nil {
		return fault.Conflictf("the disk %s is not in use", path).Help("ask again")
	}
	defer dev.Close()
	if size, err = p.Lengthen(path, size); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("have %s be as long as its image: %w", dev.Name(), err)
	}
	tree, err := mountDevice(dev.Name())
	if err != nil {
		return fault.Wrap(err, "grow disk %s", path)
	}
	defer tree.Close()
	return fault.Wrap(resize(tree, size), "grow disk %s", path)
}

// resize has the kernel make a mounted file system as large as size. It is whole at every
// moment meanwhile.
func resize(tree *mount.Tree, size unit.Size) error {
	dir, err := openRoot(tree)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return err
	}
	blocks := uint64(size) / uint64(st.Bsize)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), resizeFS, uintptr(unsafe.Pointer(&blocks)))
	switch errno {
	case 0:
		return nil
	case unix.EBUSY:
		return fault.Busyf("it is growing already").Help("ask again when it has grown")
	case unix.EPERM, unix.EROFS, unix.ENOSPC, unix.EUCLEAN, unix.EIO, unix.EINVAL: // it has met an error; what is set aside cannot be had
		return fault.Unablef("the kernel does not let its file system grow: %w", errno).At("disk").Help("stop it first: it is checked then, and grown otherwise")
	}
	return fmt.Errorf("have the file system grow: %w", errno)
}

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64). Source: linux/ext4.h.
const resizeFS = 0x40086610

// CanGrowMounted tells what keeps this process from GrowMounted. Kinds: Unable.
func CanGrowMounted() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("look at the capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		return fault.Unablef("a disk in use grows by CAP_SYS_RESOURCE only, which the daemon has not").At("disk").Help("stop it first, or give the daemon that capability")
	}
	return nil
}

// attachedTo returns the loop device that has the image at path, held open; nil: none has.
func attachedTo(path string) (*os.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, nameFault(path, err)
	}
	all, err := Attached(filepath.Dir(abs))
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		if one.Image != abs || one.Gone {
			continue
		}
		dev, err := os.OpenFile(one.Path, os.O_RDWR, 0) // held, the device keeps its image
		if err != nil {
			return nil, err
		}
		if image, _, err := loop.Image(one.Path); err == nil && image == abs {
			return dev, nil
		}
		dev.Close()
	}
	return nil, nil
}
