package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Options say how an image is going to be executed.
type Options struct {
	Given map[int]FileID // descriptors besides the standard streams, and what the process was given
	Own   int            // that of the image itself, beyond those
}

// FileID tells open files apart.
type FileID struct{ Device, Inode uint64 }

// Identify returns the FileID of f.
func Identify(f *os.File) (id FileID, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return id, err
	}
	var st unix.Stat_t
	if cerr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); cerr != nil {
		return id, cerr
	}
	return FileID{uint64(st.Dev), st.Ino}, err
}

// Image is a process that can go on.
type Image struct {
	File  *os.File // to be executed; sealed
	needs []needed
}

// needed is a file of the host that copies map.
type needed struct {
	path string
	is   version
}

// version tells a file from what was there before or comes after.
type version struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

func versionOf(path string) (v version, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return v, err
	}
	return version{uint64(st.Dev), st.Ino, st.Size, st.Ctim}, nil
}

// Current tells whether the host's files still are those that the process had mapped.
func (i *Image) Current() bool {
	for _, n := range i.needs {
		if now, err := versionOf(n.path); err != nil || now != n.is {
			return false
		}
	}
	return true
}

// Again returns another hold of the same image.
func (i *Image) Again() (*Image, error) {
	fd, err := unix.FcntlInt(i.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fault.Internalf("duplicate a descriptor: %w", err)
	}
	return &Image{os.NewFile(uintptr(fd), i.File.Name()), i.needs}, nil
}

// Bytes is the memory that the image takes.
func (i *Image) Bytes() int64 {
	var st unix.Stat_t
	if unix.Fstat(int(i.File.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// Close lets go of the image; copies keep what they have of it.
func (i *Image) Close() { i.File.Close() }
