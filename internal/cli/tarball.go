package cli

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// maxXattr bounds one extended attribute. Source: linux/limits.h, XATTR_SIZE_MAX.
const maxXattr = 64 << 10

// inode tells files apart, so that hard links stay links.
type inode struct{ dev, ino uint64 }

// packer writes files into a tar as they are: owners, modes, times, extended
// attributes, hard links and devices. Sockets are left out; nothing else is.
type packer struct {
	tar  *tar.Writer
	seen map[inode]string
}

func newPacker(w io.Writer) *packer {
	return &packer{tar: tar.NewWriter(w), seen: map[inode]string{}}
}

func (p *packer) close() error { return p.tar.Close() }

// pack writes what is at path under name, with all below it. A link at path
// itself is followed only with follow.
func (p *packer) pack(path, name string, follow bool) error {
	if follow {
		resolved, err := filepath.EvalSymlinks(path)
		if err != nil {
			return err
		}
		path = resolved
	}
	return filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(path, at)
		if err != nil {
			return err
		}
		return p.one(at, filepath.Join(name, below))
	})
}

func (p *packer) one(path, name string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone since it was listed
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	head, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fault.Wrap(err, "describe %s", path)
	}
	head.Name = name
	head.Uname, head.Gname = "", "" // the numbers count
	head.AccessTime, head.ChangeTime = time.Time{}, time.Time{}
	head.Format = tar.FormatPAX
	if info.IsDir() {
		head.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if st.Nlink > 1 && !info.IsDir() {
			id := inode{uint64(st.Dev), st.Ino}
			if first, again := p.seen[id]; again {
				head.Typeflag, head.Linkname, head.Size = tar.TypeLink, first, 0
				return p.tar.WriteHeader(head)
			}
			p.seen[id] = name
		}
	}
	if err := addXattrs(head, path); err != nil {
		return fault.Wrap(err, "read the attributes of %s", path)
	}
	if !info.Mode().IsRegular() {
		return p.tar.WriteHeader(head)
	}
	return p.file(head, path)
}

// file writes a regular file. One that shrinks meanwhile is filled up with
// zeros, one that grows is cut: the header is written already.
func (p *packer) file(head *tar.Header, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.tar.WriteHeader(head); err != nil {
		return err
	}
	n, err := io.Copy(p.tar, io.LimitReader(f, head.Size))
	if err != nil {
		return fault.Wrap(err, "read %s", path)
	}
	_, err = io.CopyN(p.tar, zeros{}, head.Size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func addXattrs(head *tar.Header, path string) error {
	size, err := unix.Llistxattr(path, nil)
	if err != nil || size == 0 {
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			return nil
		}
		return err
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return err
	}
	value := make([]byte, maxXattr)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) {
			continue
		}
		if err != nil {
			return err
		}
		if head.PAXRecords == nil {
			head.PAXRecords = map[string]string{}
		}
		head.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return nil
}

// unpack puts the entries of a tar below dir, which is trusted while the tar is
// not: every path is resolved beneath dir by the kernel, so no entry and no link
// in it leads out. rename gives an entry's name below dir, "" to skip it.
func unpack(r io.Reader, dir string, rename func(string) string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root, own: os.Geteuid() == 0}
	for in := tar.NewReader(r); ; u.entries++ {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return fault.Busyf("the tar broke off: %w", err)
		}
		if u.entries >= maxEntries {
			return fault.Invalidf("the tar has more than %d entries", maxEntries).Help("copy to - for a tar of everything")
		}
		name := rename(strings.Trim(filepath.Clean("/"+head.Name), "/"))
		if name == "" {
			continue
		}
		if head.Typeflag == tar.TypeLink {
			head.Linkname = rename(strings.Trim(filepath.Clean("/"+head.Linkname), "/"))
		}
		if err := u.one(in, head, name); err != nil {
			return fault.Wrap(err, "write %s", filepath.Join(dir, name))
		}
	}
}

// Bounds on what an environment may do to the host by a tar.
const (
	// maxEntries bounds the memory that folders take, as package agent/files does.
	maxEntries = 10_000_000
	// largeFile is from where on it is asked whether there is room: a header of 1 KiB
	// may announce exbibytes of holes. Unit: bytes.
	largeFile = 64 * unit.MiB
)

// unpacker writes below one folder.
type unpacker struct {
	root    *os.Root
	entries int
	own     bool // owners and devices can be made
	folders []func() error
}

func (u *unpacker) one(in io.Reader, head *tar.Header, name string) error {
	if parent := filepath.Dir(name); parent != "." {
		if err := u.root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	mode := head.FileInfo().Mode()
	if head.Typeflag != tar.TypeDir && head.Typeflag != tar.TypeReg {
		if old, err := u.root.Lstat(name); err == nil && !old.IsDir() {
			if err := u.root.Remove(name); err != nil {
				return err
			}
		}
	}
	switch head.Typeflag {
	case tar.TypeDir:
		if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		u.folders = append(u.folders, func() error { return u.dress(head, name, mode) })
		return nil
	case tar.TypeReg:
		return u.file(in, head, name, mode)
	case tar.TypeSymlink:
		if err := u.root.Symlink(head.Linkname, name); err != nil {
			return err
		}
		if u.own {
			return u.root.Lchown(name, head.Uid, head.Gid)
		}
		return nil
	case tar.TypeLink:
		return u.root.Link(head.Linkname, name)
	}
	return fault.Unablef("a %s is not copied to the host", typeName(head.Typeflag)).Help("copy to - for a tar of everything")
}

// file writes a file beside name, and puts it there once it is whole: what was there stays
// until then.
func (u *unpacker) file(in io.Reader, head *tar.Header, name string, mode fs.FileMode) (err error) {
	if err := u.room(head.Size); err != nil {
		return err
	}
	if old, err := u.root.Lstat(name); err == nil && old.Mode().Type()&^fs.ModeSymlink != 0 {
		return fault.Conflictf("what is there is no file (%s)", old.Mode().Type()).Help("choose another name, or copy to - for a tar")
	}
	part := filepath.Join(filepath.Dir(name), ".strata-"+rand.Text())
	f, err := u.root.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = u.root.Remove(part)
		}
	}()
	_, err = io.Copy(f, in)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = u.dress(head, part, mode)
	}
	if err == nil {
		err = u.root.Rename(part, name)
	}
	return err
}

// room refuses a file that cannot fit before the disk is full of it.
func (u *unpacker) room(size int64) error {
	if size < int64(largeFile) {
		return nil
	}
	at, err := u.root.Open(".")
	if err != nil {
		return err
	}
	defer at.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(at.Fd()), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; size > free {
		return fault.Busyf("the file has %s, holes counted, and there is room for %s", unit.Size(size), unit.Size(free)).
			Help("free some space, or copy to - for a tar, in which holes stay holes")
	}
	return nil
}

// dress gives a file its owner, mode and time; the mode comes after the owner,
// because a change of owner takes set-user-id away.
func (u *unpacker) dress(head *tar.Header, name string, mode fs.FileMode) error {
	if u.own {
		if err := u.root.Lchown(name, head.Uid, head.Gid); err != nil {
			return err
		}
	}
	if !u.own {
		mode &^= fs.ModeSetuid | fs.ModeSetgid
	}
	if err := u.root.Chmod(name, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return u.root.Chtimes(name, head.ModTime, head.ModTime)
}

// finish dresses folders, innermost first: what is written into one changes its
// time, and its mode may forbid writing.
func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		if err := u.folders[i](); err != nil {
			return err
		}
	}
	return nil
}

func typeName(t byte) string {
	switch t {
	case tar.TypeChar, tar.TypeBlock:
		return "device"
	case tar.TypeFifo:
		return "fifo"
	}
	return "special file"
}
