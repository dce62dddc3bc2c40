package files

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinked bounds how many files with several names are remembered; the names
// of further ones become files of their own.
const maxLinked = 1 << 20

// xattrPrefix is how tar names an extended attribute.
// Source: star(5), SCHILY.xattr.
const xattrPrefix = "SCHILY.xattr."

type inode struct{ dev, ino uint64 }

// writer writes a tree as a tar stream.
type writer struct {
	*tar.Writer
	linked map[inode]string
	buf    []byte
}

// Create writes the file or folder at name to out. What the kernel tells of itself is no
// file that could be copied: below name its folders are empty, and at name it is a fault.
// The root's /dev is empty as well, which no two systems share.
func Create(out io.Writer, name string) error {
	if told(name) {
		return unableError(name + " is in a file system of the kernel's own, whose files have no content to copy: have it read inside (exec)")
	}
	top := path.Base(name)
	if top == "/" {
		top = "."
	}
	w := &writer{Writer: tar.NewWriter(out), linked: map[inode]string{}, buf: make([]byte, 64<<10)}
	if err := w.add(unix.AT_FDCWD, name, top); err != nil {
		return err
	}
	return w.Close()
}

// add writes the entry base in the folder dir, and what is below it, as name.
// Folders are gone through by descriptor, so that depth and renames do not matter.
func (w *writer) add(dir int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "copy", Path: name, Err: err}
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: unixTime(st.Mtim), Format: tar.FormatPAX}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return w.file(dir, base, h, &st)
	case unix.S_IFDIR:
		return w.folder(dir, base, h)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, buf)
		if err != nil {
			return &fs.PathError{Op: "copy", Path: name, Err: err}
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(buf[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil // a socket means nothing elsewhere
	}
	return w.WriteHeader(h)
}

func (w *writer) file(dir int, base string, h *tar.Header, st *unix.Stat_t) error {
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if st.Nlink > 1 {
		at := inode{uint64(st.Dev), st.Ino}
		if first, ok := w.linked[at]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return w.WriteHeader(h)
		}
		if len(w.linked) < maxLinked {
			w.linked[at] = h.Name
		}
	}
	// It may have become a pipe meanwhile: never wait for its other side.
	f, err := open(dir, base, h.Name, unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	h.PAXRecords = xattrs(int(f.Fd()))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(f, h.Size), w.buf)
	if err != nil {
		return err
	}
	return w.fill(h.Size - n) // a file that shrank meanwhile
}

// onlyWriter hides ReadFrom, which would not use the buffer.
type onlyWriter struct{ io.Writer }

func (w *writer) fill(n int64) error {
	zeros := make([]byte, min(n, int64(len(w.buf))))
	for n > 0 {
		part := zeros[:min(n, int64(len(zeros)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}

func (w *writer) folder(dir int, base string, h *tar.Header) error {
	f, err := open(dir, base, h.Name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	below := strings.TrimSuffix(h.Name, "/")
	h.Typeflag, h.Name, h.PAXRecords = tar.TypeDir, below+"/", xattrs(int(f.Fd()))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if isTold(int(f.Fd())) || h.Name == "./dev/" {
		return nil
	}
	for {
		names, err := f.Readdirnames(1024)
		for _, one := range names {
			if err := w.add(int(f.Fd()), one, below+"/"+one); err != nil {
				if os.IsNotExist(err) {
					continue // gone meanwhile
				}
				return err
			}
		}
		if err == io.EOF || len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tellers are the file systems whose files are the kernel's words, and end where nobody knows.
var tellers = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
	unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC,
}

// isTold tells whether an open file or folder is on one of them.
func isTold(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && slices.Contains(tellers, int64(st.Type))
}

// told is isTold of a path, whose link is not followed; one that cannot be looked at is not.
func told(name string) bool {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return isTold(fd)
}

func open(dir int, base, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// xattrs are those that mean something elsewhere.
func xattrs(fd int) map[string]string {
	list := make([]byte, 64<<10) // linux/limits.h, XATTR_LIST_MAX
	n, err := unix.Flistxattr(fd, list)
	if err != nil || n <= 0 {
		return nil
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !kept(name) {
			continue
		}
		value := make([]byte, 64<<10) // linux/limits.h, XATTR_SIZE_MAX
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			found[xattrPrefix+name] = string(value[:n])
		}
	}
	return found
}

func kept(xattr string) bool {
	if strings.Contains(xattr, "=") { // which ends a name in a tar
		return false
	}
	return strings.HasPrefix(xattr, "user.") || strings.HasPrefix(xattr, "system.posix_acl_") || xattr == "security.capability"
}
