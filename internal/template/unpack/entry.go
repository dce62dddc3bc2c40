package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Names of whiteouts. Source: OCI image-spec 1.1, layer.md, "Whiteouts".
const (
	WhiteoutPrefix = ".wh."     // before the name of what a layer removes
	whiteoutMeta   = ".wh..wh." // aufs' own files
	whiteoutOpaque = ".wh..wh..opq"
)

// entry makes what one header says.
func (u *unpacker) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if h.Uid < 0 || h.Uid > MaxID || h.Gid < 0 || h.Gid > MaxID {
		return fault.Invalidf("its owner %d:%d is above %d", h.Uid, h.Gid, MaxID).Help("an environment has %d user and group ids; make the layer with smaller ones", MaxID+1)
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fault.Invalidf("it would take the place of the root folder")
		}
		return u.attributes(place{u.root, ".", "."}, h)
	}
	name := parts[len(parts)-1]
	hides := func(part string) bool { return strings.HasPrefix(part, WhiteoutPrefix) }
	if u.limits.Whole && (slices.ContainsFunc(parts, hides) || h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0) {
		return fault.Unablef("no layer can hold it: there it would say that another file is gone").Help("remove it, or give it another name")
	}
	if hides(name) {
		return u.whiteout(parts, name)
	}
	if h.Typeflag == tar.TypeGNUSparse { // its holes come as zeros
		h.Typeflag = tar.TypeReg
	}
	if err := u.checkSize(h); err != nil {
		return err
	}
	p, err := u.parent(parts, true)
	if err != nil {
		return err
	}
	opaque, err := u.clear(p, parts, h)
	if err != nil {
		return err
	}
	if p, err = u.parent(parts, true); err != nil { // clear may have closed it
		return err
	}
	if err := u.create(p, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil // its attributes are those of what it links to
	}
	if err := u.attributes(p, h); err != nil {
		return err
	}
	if opaque && h.Typeflag == tar.TypeDir {
		return u.opaque(p.full())
	}
	return nil
}

func (u *unpacker) checkSize(h *tar.Header) error {
	if h.Size < 0 || h.Size > u.limits.Bytes-u.stats.Bytes {
		return fault.Invalidf("the layer is larger than the %s that are accepted", unit.Size(u.limits.Bytes))
	}
	if h.Typeflag == tar.TypeReg {
		u.stats.Bytes += h.Size
	}
	return nil
}

// clear makes room for h: a folder stays where h is one, all else goes. It tells
// whether a whiteout was there.
func (u *unpacker) clear(p place, parts []string, h *tar.Header) (opaque bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if h.Typeflag == tar.TypeDir && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil
	}
	if h.Typeflag == tar.TypeLink {
		// A name linked to itself must not vanish first.
		_, target, err := u.linkTarget(h)
		if err != nil || (target.Dev == st.Dev && target.Ino == st.Ino) {
			return false, err
		}
		if p, err = u.parent(parts, true); err != nil { // looking for the target closed it
			return false, err
		}
	}
	return isWhiteout(&st), u.remove(p, &st)
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// create makes the node itself; its owner, mode and times come later.
func (u *unpacker) create(p place, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(p.dir, p.name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	case tar.TypeReg:
		return u.file(p, h)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > MaxTarget || strings.IndexByte(h.Linkname, 0) >= 0 {
			return fault.Invalidf("its link target has %d bytes; 1 to %d are accepted, none of them zero", len(h.Linkname), MaxTarget)
		}
		return unix.Symlinkat(h.Linkname, p.dir, p.name)
	case tar.TypeLink:
		return u.link(p.full(), h)
	case tar.TypeFifo:
		return unix.Mknodat(p.dir, p.name, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar, tar.TypeBlock:
		// 12 bits of major and 20 of minor. Source: linux/kdev_t.h.
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fault.Invalidf("there is no device %d:%d", h.Devmajor, h.Devminor)
		}
		mode := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			mode = unix.S_IFBLK
		}
		return unix.Mknodat(p.dir, p.name, mode|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	}
	return fault.Invalidf("its type %q is unknown", h.Typeflag)
}

// linkTarget finds what a hard link is to.
func (u *unpacker) linkTarget(h *tar.Header) (place, *unix.Stat_t, error) {
	parts, err := split(h.Linkname)
	if err != nil {
		return place{}, nil, err
	}
	if len(parts) == 0 {
		return place{}, nil, fault.Invalidf("it is a hard link to the root folder")
	}
	missing := func() error {
		return fault.Invalidf("it is a hard link to %s, which is not in this layer before it", shorten(h.Linkname))
	}
	p, err := u.parent(parts, false)
	if fault.Is(err, fault.Missing) {
		return place{}, nil, missing()
	}
	if err != nil {
		return place{}, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
		return place{}, nil, missing()
	} else if err != nil {
		return place{}, nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(&st) {
		return place{}, nil, fault.Invalidf("it is a hard link to %s, which is no file", shorten(h.Linkname))
	}
	return p, &st, nil
}

// link makes a hard link. Finding the target closes the folder of the place, so
// the place comes as a path.
func (u *unpacker) link(clean string, h *tar.Header) error {
	from, _, err := u.linkTarget(h)
	if err != nil {
		return err
	}
	dir, name := path.Split(clean)
	fd, err := u.open(path.Clean("./"+dir), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Linkat(from.dir, from.name, fd, name, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil // clear left it: it is the target already
	}
	return err
}

// file writes a regular file, holes where the data has long runs of zeros.
func (u *unpacker) file(p place, h *tar.Header) error {
	fd, err := unix.Openat(p.dir, p.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var size int64
	for {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(u.tar, u.buf)
		if n > 0 {
			if werr := u.write(fd, u.buf[:n], size); werr != nil {
				return werr
			}
			size += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && size == h.Size {
			break
		}
		if err != nil {
			return err
		}
	}
	return unix.Ftruncate(fd, size)
}

// Room fails with ENOSPC where the disk of an open file has less than Spare left.
func Room(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if free := int64(min(fs.Bavail, math.MaxInt64/uint64(fs.Bsize))) * fs.Bsize; free < Spare {
		return fmt.Errorf("%s are left: %w", unit.Size(free), unix.ENOSPC)
	}
	return nil
}

func (u *unpacker) write(fd int, data []byte, at int64) error {
	if allZero(data) {
		return nil
	}
	if u.written -= int64(len(data)); u.written < 0 {
		u.written = SpareEvery
		if err := Room(fd); err != nil {
			return err
		}
	}
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data, at = data[n:], at+int64(n)
	}
	return nil
}

func allZero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// whiteout handles the names that start with ".wh.".
func (u *unpacker) whiteout(parts []string, name string) error {
	if name == whiteoutOpaque {
		if len(parts) == 1 {
			return u.opaque(".")
		}
		p, err := u.parent(parts, true)
		if err != nil {
			return err
		}
		return u.opaque(p.path)
	}
	if strings.HasPrefix(name, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(name, WhiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fault.Invalidf("it hides nothing that has a name")
	}
	p, err := u.parent(parts, true)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstatat(p.dir, hidden, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return u.opaque(path.Join(p.path, hidden))
	case err == nil:
		return nil
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	if err := unix.Mknodat(p.dir, hidden, unix.S_IFCHR, 0); err != nil {
		return err
	}
	return setTime(p.dir, hidden, 0, 0)
}

// opaque hides what the layers below have in the folder at a resolved path.
func (u *unpacker) opaque(clean string) error {
	fd, err := u.open(clean, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsetxattr(fd, opaqueAttribute, []byte("y"), 0)
}
