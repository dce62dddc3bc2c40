package disk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"golang.org/x/sys/unix"
)

// copySparse copies the file from to the new file to: as a reflink where the
// file system has them, else only what is not a hole.
func copySparse(ctx context.Context, from, to string) (err error) {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nameFault(from, err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nameFault(to, err)
	}
	defer func() {
		err = errors.Join(err, dst.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return fmt.Errorf("make a file of %d bytes: %w", info.Size(), err)
	}
	return copyData(ctx, src, dst, info.Size())
}

// copyData copies the parts of src that hold data to the same places of dst.
func copyData(ctx context.Context, src, dst *os.File, size int64) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return fmt.Errorf("find data in %s: %w", src.Name(), err)
		}
		hole, err := unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find a hole in %s: %w", src.Name(), err)
		}
		if err := copyRange(ctx, src, dst, data, hole); err != nil {
			return fmt.Errorf("copy %s: %w", src.Name(), err)
		}
		at = hole
	}
	return nil
}

// chunk bounds one copy, so that a cancelled context is seen soon. Unit: bytes.
const chunk = 64 << 20

func copyRange(ctx context.Context, src, dst *os.File, from, to int64) error {
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, out := from, from
		n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(to-from, chunk)), 0)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			n, err = copyThrough(src, dst, from, min(to-from, chunk))
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%s became shorter", src.Name())
		}
		from += int64(n)
	}
	return nil
}

// copyThrough copies through this process, where the kernel cannot do it alone.
func copyThrough(src, dst *os.File, at, length int64) (int, error) {
	buf := make([]byte, min(length, 1<<20))
	n, err := src.ReadAt(buf, at)
	if n == 0 {
		return 0, err
	}
	return dst.WriteAt(buf[:n], at)
}

// Where things are in an ext4 superblock.
// Source: fs/ext4/ext4.h, struct ext4_super_block.
const (
	superAt         = 1024
	superSize       = 1024
	superMagic      = 0xEF53
	magicAt         = 0x38
	stateAt         = 0x3A
	stateErrors     = 2 // EXT4_ERROR_FS
	incompatAt      = 0x60
	uuidAt          = 0x68
	superSumAt      = 0x3FC
	incompatRecover = 0x4    // EXT4_FEATURE_INCOMPAT_RECOVER
	incompatSeed    = 0x2000 // EXT4_FEATURE_INCOMPAT_CSUM_SEED
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stampUUID gives the file system in an image that is not attached a UUID of
// its own. It may, because the checksums of all else start from a seed that is
// kept in the superblock (metadata_csum_seed) and not from the UUID. The spare
// superblocks keep the old one, which e2fsck mends by itself.
func stampUUID(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nameFault(path, err)
	}
	defer f.Close()
	super := make([]byte, superSize)
	if _, err := f.ReadAt(super, superAt); err != nil {
		return fmt.Errorf("read the superblock of %s: %w", path, err)
	}
	le := binary.LittleEndian
	if le.Uint16(super[magicAt:]) != superMagic || le.Uint32(super[incompatAt:])&incompatSeed == 0 {
		return fmt.Errorf("%s is no ext4 of ours", path)
	}
	id := super[uuidAt : uuidAt+16]
	rand.Read(id)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // RFC 9562, section 5.4: version 4
	le.PutUint32(super[superSumAt:], superSum(super))
	if _, err := f.WriteAt(super, superAt); err != nil {
		return fmt.Errorf("write the superblock of %s: %w", path, err)
	}
	return nil
}

// superSum is the superblock's checksum: CRC-32C from all ones, not inverted at the end.
func superSum(super []byte) uint32 { return ^crc32.Checksum(super[:superSumAt], castagnoli) }
