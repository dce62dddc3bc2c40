package warm

import (
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// seals keep a memfd as it is: nobody may write to it, not even its maker.
// Source: fcntl(2), F_ADD_SEALS.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL

// allocate makes an anonymous file.
func allocate(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("strata-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fault.Unablef("make anonymous memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	// QEMU, as a user that owns nothing, opens it by its descriptor's name.
	if err := errors.Join(unix.Fchmod(fd, 0o666), f.Truncate(size)); err != nil {
		f.Close()
		return nil, fault.Unablef("make anonymous memory: %w", err)
	}
	return f, nil
}

// seal is called when who wrote to f has ended; the kernel may be a little behind.
func seal(f *os.File) error {
	for attempt := 0; ; attempt++ {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || attempt == 100 {
			return fault.Unablef("protect a saved system: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reopen returns another, read-only, descriptor of f with a position of its own.
func reopen(f *os.File) (*os.File, error) {
	g, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return nil, fault.Internalf("open a saved system: %w", err)
	}
	return g, nil
}

// chunk is how much is copied at once. It is a multiple of every page size.
const chunk = 1 << 20

var page = int64(os.Getpagesize())

// copySparse copies what from holds to another file of the same size, which must be
// all holes, and returns a checksum of it. Pages of zeros stay holes. Where trim is
// set they become holes of from, too.
func copySparse(to, from *os.File, trim bool) (sum uint32, err error) {
	size, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	c := copier{to: to, from: from, trim: trim, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli)), buf: make([]byte, chunk)}
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return 0, err
		}
		hole, err := unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return 0, err
		}
		// Whole pages, so that the checksum does not depend on where a file system has holes.
		data -= data % page
		hole = min((hole+page-1)/page*page, size)
		for data < hole {
			n := min(chunk, hole-data)
			if err := c.copy(data, n); err != nil {
				return 0, err
			}
			data += n
		}
		at = hole
	}
	return c.sum.Sum32(), nil
}

type copier struct {
	to, from *os.File
	trim     bool
	sum      hash.Hash32
	buf      []byte
}

// copy copies n bytes at the offset at, page by page.
func (c *copier) copy(at, n int64) error {
	b := c.buf[:n]
	if _, err := c.from.ReadAt(b, at); err != nil {
		return err
	}
	for i := int64(0); i < n; {
		end, zero := i, isZero(b[i:min(i+page, n)])
		for end < n && isZero(b[end:min(end+page, n)]) == zero {
			end = min(end+page, n)
		}
		part := b[i:end]
		if zero {
			if err := c.zero(at+i, end-i); err != nil {
				return err
			}
		} else {
			for p := i; p < end; p += page {
				var where [8]byte
				binary.LittleEndian.PutUint64(where[:], uint64(at+p))
				c.sum.Write(where[:])
				c.sum.Write(b[p:min(p+page, end)])
			}
			if _, err := c.to.WriteAt(part, at+i); err != nil {
				return err
			}
		}
		i = end
	}
	return nil
}

func (c *copier) zero(at, n int64) error {
	if !c.trim {
		return nil
	}
	return unix.Fallocate(int(c.from.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
