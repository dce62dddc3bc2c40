package gauge

import (
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Shape of what disk writes. Unit: bytes.
const (
	largest = 128 << 20
	each    = 64 << 10 // a millisecond of the budget: what was only written to the cache is to be written through as well
	block   = 1 << 20
	page    = 4096
)

// disk measures a file of its own that has no name any more once it is open, so
// that none is left however this ends.
func (j *job) disk() (err error) {
	name := j.folder + "/.strata-gauge-" + strconv.Itoa(os.Getpid())
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	direct, derr := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err := os.Remove(name); err != nil {
		return err
	}
	buf, err := unix.Mmap(-1, 0, block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	for i, x := 0, seed; i < len(buf); i += 4 { // nothing that a disk below could make smaller
		x = next(x)
		put(buf[i:], uint32(x))
	}
	most := min(largest, max(2*block, int(j.budget.Milliseconds())*each))
	j.budget /= 4
	size, err := j.write(f, buf, most)
	if err != nil {
		return err
	}
	if err := j.read(f, buf, size); err != nil {
		return err
	}
	if derr == nil { // a file system may know no direct access: then this is not measured
		defer direct.Close()
		if err := j.random(direct, buf[:page], size); err != nil {
			return err
		}
	}
	return j.sync(f, buf[:page])
}

// write writes in order until the time or the size is reached, and through.
func (j *job) write(f *os.File, buf []byte, most int) (size int, err error) {
	begin := time.Now()
	for size < most && (size == 0 || time.Since(begin) < j.budget) {
		n, err := f.Write(buf)
		size += n
		if err != nil {
			return size, err
		}
	}
	if err := f.Sync(); err != nil {
		return size, err
	}
	j.rate("disk-write", size, time.Since(begin))
	return size, nil
}

// read reads in order what is not in this kernel's page cache.
func (j *job) read(f *os.File, buf []byte, size int) error {
	if err := unix.Fadvise(int(f.Fd()), 0, int64(size), unix.FADV_DONTNEED); err != nil {
		return os.NewSyscallError("fadvise", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	n := 0
	begin := time.Now()
	for n < size && (n == 0 || time.Since(begin) < j.budget) {
		got, err := f.Read(buf)
		if err != nil {
			return err
		}
		n += got
	}
	j.rate("disk-read", n, time.Since(begin))
	return nil
}

// random reads pages here and there, past the page cache.
func (j *job) random(f *os.File, buf []byte, size int) error {
	x, n := seed, 0
	begin := time.Now()
	for n == 0 || time.Since(begin) < j.budget {
		x = next(x)
		_, err := f.ReadAt(buf, int64(x%uint64(size/page))*page)
		if n == 0 && err != nil {
			return nil // direct access is refused here: not measured
		}
		if err != nil {
			return err
		}
		n++
	}
	j.rate("disk-random", n, time.Since(begin))
	return nil
}

// sync appends a page at a time, each written through before the next.
func (j *job) sync(f *os.File, buf []byte) error {
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	n := 0
	begin := time.Now()
	for n == 0 || time.Since(begin) < j.budget {
		if _, err := f.Write(buf); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		n++
	}
	j.each("disk-fsync", n, time.Since(begin))
	return nil
}
