package template

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/unpack"
)

type inode struct{ dev, ino uint64 }

// difference is what makes the tree at base the tree at root, as the tar of a layer.
type difference struct {
	base, root string
	without    map[string]bool // names that stay as they are in base, and what is below
	tar        *tar.Writer
	names      map[inode][]string // of files of root that have several, sorted
	kept       map[inode]bool     // of those that were looked at, whether they are in base
	first      map[inode]string   // of those that were written, the name they have in the tar
	folders    []string           // from the root to where we are; "" where it is written
	real       map[string]bool    // whether a name is a folder in base, which no link is on the way to
	entries    int                // that were written
}

// writeDifference writes the tar to out and returns how many entries it has. without are
// paths in both trees. Names in it are sorted, so the same trees make the same tar.
func writeDifference(ctx context.Context, base, root string, without []string, out io.Writer) (int, error) {
	d := &difference{base: base, root: root, without: map[string]bool{}, tar: tar.NewWriter(out),
		names: map[inode][]string{}, kept: map[inode]bool{}, first: map[inode]string{}, real: map[string]bool{".": true}}
	for _, p := range without {
		d.without[strings.Trim(path.Clean(p), "/")] = true
	}
	err := filepath.WalkDir(root, func(at string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		if d.without[name] {
			if isFolder(at) {
				return fs.SkipDir
			}
			return nil
		}
		st, err := lstat(at)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink > 1 {
			d.names[inode{st.Dev, st.Ino}] = append(d.names[inode{st.Dev, st.Ino}], name)
		}
		return err
	})
	if err == nil {
		err = d.folder(ctx, ".")
	}
	if err == nil {
		err = d.tar.Close()
	}
	return d.entries, err
}

func lstat(at string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: at, Err: err}
	}
	return &st, nil
}

// folder writes what differs in the folder name of root.
func (d *difference) folder(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.folders = append(d.folders, name)
	defer func() { d.folders = d.folders[:len(d.folders)-1] }()
	alike, err := d.alike(name)
	if err != nil {
		return err
	}
	if !alike {
		if err := d.way(); err != nil {
			return err
		}
	}
	mine, err := list(filepath.Join(d.root, name))
	if err != nil {
		return err
	}
	all := maps.Clone(mine)
	if d.inBase(name) {
		theirs, err := list(filepath.Join(d.base, name))
		if err != nil {
			return err
		}
		maps.Copy(all, theirs)
	}
	for _, one := range slices.Sorted(maps.Keys(all)) {
		below := path.Join(name, one)
		if d.without[below] {
			continue
		}
		if err := d.entry(ctx, below, mine[one]); err != nil {
			return err
		}
	}
	return nil
}

// inBase tells whether name is a folder in base. A link in the place of a folder there leads
// somewhere in the host.
func (d *difference) inBase(name string) bool {
	is, known := d.real[name]
	if !known {
		is = d.inBase(path.Dir(name)) && isFolder(filepath.Join(d.base, name))
		d.real[name] = is
	}
	return is
}

func isFolder(at string) bool {
	info, err := os.Lstat(at)
	return err == nil && info.IsDir()
}

// list returns the names in a folder.
func list(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	return names, err
}

// entry writes one name if it differs. With there it is in root, else in base only.
func (d *difference) entry(ctx context.Context, name string, there bool) error {
	if !there {
		st, err := lstat(filepath.Join(d.base, name))
		if err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return nil // a whiteout that hides nothing, of which the kernel may list the name
		}
		if err := d.way(); err != nil {
			return err
		}
		dir, base := path.Split(name)
		return d.put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + unpack.WhiteoutPrefix + base, Format: tar.FormatPAX})
	}
	st, err := lstat(filepath.Join(d.root, name))
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return d.folder(ctx, name)
	}
	at := inode{st.Dev, st.Ino}
	if same, err := d.same(name, at); err != nil || same {
		return err
	}
	head, err := d.header(name)
	if err != nil {
		return err
	}
	if err := d.way(); err != nil {
		return err
	}
	if first, ok := d.first[at]; ok {
		head.Typeflag, head.Linkname, head.Size, head.PAXRecords = tar.TypeLink, first, 0, nil
		return d.put(head)
	}
	if len(d.names[at]) > 0 {
		d.first[at] = name
	}
	if err := d.put(head); err != nil || head.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(filepath.Join(d.root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(d.tar, f)
	return err
}

// way writes the folders on the way here that are not written yet: a layer that has
// something in a folder says whose that is.
func (d *difference) way() error {
	for i, name := range d.folders {
		if name == "" {
			continue
		}
		head, err := d.header(name)
		if err == nil {
			err = d.put(head)
		}
		if err != nil {
			return err
		}
		d.folders[i] = ""
	}
	return nil
}

func (d *difference) put(head *tar.Header) error {
	d.entries++
	return d.tar.WriteHeader(head)
}

// same tells whether a file that is no folder is in base as it is in root, and, if it has
// several names, whether they are names of one file there too: a layer cannot link to what is
// below it.
func (d *difference) same(name string, at inode) (bool, error) {
	group := d.names[at]
	if len(group) == 0 {
		return d.alike(name)
	}
	if same, known := d.kept[at]; known {
		return same, nil
	}
	same, err := d.alike(group[0])
	if err == nil && same {
		same = d.oneInBase(group)
	}
	d.kept[at] = same
	return same, err
}

// oneInBase tells whether all of these are names of one file in base.
func (d *difference) oneInBase(names []string) bool {
	var one inode
	for i, name := range names {
		if !d.inBase(path.Dir(name)) {
			return false
		}
		st, err := lstat(filepath.Join(d.base, name))
		if err != nil || i > 0 && one != (inode{st.Dev, st.Ino}) {
			return false
		}
		one = inode{st.Dev, st.Ino}
	}
	return true
}

// alike tells whether name is the same in both trees. The time of a folder does not count:
// it changes with every file in it.
func (d *difference) alike(name string) (bool, error) {
	here, there := filepath.Join(d.root, name), filepath.Join(d.base, name)
	if !d.inBase(path.Dir(name)) {
		return false, nil
	}
	a, err := lstat(here)
	if err != nil {
		return false, err
	}
	b, err := lstat(there)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return false, nil
	}
	kind := a.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && a.Mtim != b.Mtim {
		return false, nil
	}
	switch kind {
	case unix.S_IFLNK:
		mine, err := os.Readlink(here)
		if err != nil {
			return false, err
		}
		theirs, err := os.Readlink(there)
		return mine == theirs, err
	case unix.S_IFREG:
		if a.Size != b.Size {
			return false, nil
		}
	case unix.S_IFDIR:
	default:
		return true, nil
	}
	mine, err := attributesOf(here, kind)
	if err != nil {
		return false, err
	}
	theirs, err := attributesOf(there, kind)
	if err != nil || !maps.Equal(mine, theirs) {
		return false, err
	}
	if kind == unix.S_IFDIR {
		return true, nil
	}
	return sameContent(here, there)
}

// sameContent compares two files of one size.
func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	mine, theirs := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(f, mine)
		m, other := io.ReadFull(g, theirs)
		if n != m || !bytes.Equal(mine[:n], theirs[:m]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return true, nil
		}
		if err != nil || other != nil {
			return false, errors.Join(err, other)
		}
	}
}

// attributesOf are the extended attributes of a file or folder that a layer keeps.
func attributesOf(at string, kind uint32) (map[string]string, error) {
	typeflag := byte(tar.TypeReg)
	if kind == unix.S_IFDIR {
		typeflag = tar.TypeDir
	}
	list := make([]byte, 64<<10) // linux/limits.h, XATTR_LIST_MAX
	n, err := unix.Llistxattr(at, list)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: at, Err: err}
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if !unpack.Keeps(name, typeflag) {
			continue
		}
		value := make([]byte, unpack.MaxAttribute)
		n, err := unix.Lgetxattr(at, name, value)
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr", Path: at, Err: err}
		}
		found[name] = string(value[:n])
	}
	return found, nil
}

// header is the entry of a name of root.
func (d *difference) header(name string) (*tar.Header, error) {
	at := filepath.Join(d.root, name)
	st, err := lstat(at)
	if err != nil {
		return nil, err
	}
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = os.Readlink(at)
		return h, err
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
		return h, nil
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		return h, nil
	default:
		return nil, fault.Internalf("%s is of no kind that a layer has", name)
	}
	attributes, err := attributesOf(at, st.Mode&unix.S_IFMT)
	for name, value := range attributes {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[unpack.AttributeRecord+name] = value
	}
	return h, err
}
