package files

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds on what a stream may hold.
const (
	maxEntries = 10_000_000
	maxDepth   = 4096 // parts of one name
)

func unixTime(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }

// reader unpacks a tar stream below root. os.Root follows links inside, and
// refuses those that lead out.
type reader struct {
	root    *os.Root
	folders []folder // whose times are set last, as their content changes them
}

type folder struct {
	name string
	time time.Time
}

// Extract unpacks in into the folder dir.
func Extract(dir string, in io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	r := &reader{root: root}
	t := tar.NewReader(in)
	for range maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			for i := len(r.folders) - 1; i >= 0; i-- {
				_ = root.Chtimes(r.folders[i].name, time.Time{}, r.folders[i].time) // tolerated: only a date
			}
			_, err := io.Copy(io.Discard, in) // what pads the stream
			return err
		}
		if err != nil {
			return malformedError{err}
		}
		if err := r.entry(h, t); err != nil {
			return err
		}
	}
	return malformedError{errors.New("the stream has too many entries")}
}

// entry makes one entry, in place of what has its name; a folder stays.
func (r *reader) entry(h *tar.Header, content io.Reader) error {
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") || strings.Count(name, "/") > maxDepth || strings.ContainsRune(name, 0) {
		return malformedError{errors.New("the entry " + h.Name + " leaves the folder")}
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if name == "." {
		return nil // the folder itself, which is there and keeps its owner
	}
	if err := r.parents(path.Dir(name)); err != nil {
		return err
	}
	there, err := r.replaces(name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse {
		return r.file(name, h, content)
	}
	if there && h.Typeflag != tar.TypeDir {
		if err := r.root.Remove(name); err != nil {
			return err
		}
	}
	if err := r.create(name, h); err != nil {
		return err
	}
	return r.finish(name, h)
}

func (r *reader) parents(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := r.root.Stat(dir); err == nil {
		return nil
	}
	return r.root.MkdirAll(dir, 0o755)
}

// replaces tells whether there is something in the place of an entry. A folder is never
// replaced by a file, nor the other way round: docker's cp refuses both.
func (r *reader) replaces(name string, wantDir bool) (there bool, err error) {
	info, err := r.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if wantDir && info.Mode()&fs.ModeSymlink != 0 {
		if to, err := r.root.Stat(name); err == nil && to.IsDir() {
			return true, nil // a link to a folder will do
		}
	}
	switch {
	case info.IsDir() && !wantDir:
		return true, &fs.PathError{Op: "replace", Path: name, Err: unix.EISDIR}
	case wantDir && !info.IsDir():
		return true, &fs.PathError{Op: "replace", Path: name, Err: unix.ENOTDIR}
	}
	return true, nil
}

// create makes what is no file.
func (r *reader) create(name string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := r.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		r.folders = append(r.folders, folder{name, h.ModTime})
		return nil
	case tar.TypeSymlink:
		return r.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return r.root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	case tar.TypeFifo:
		dir, err := r.root.Open(path.Dir(name))
		if err != nil {
			return err
		}
		defer dir.Close()
		return unix.Mknodat(int(dir.Fd()), path.Base(name), unix.S_IFIFO|0o600, 0)
	case tar.TypeChar, tar.TypeBlock:
		return unableError("device nodes such as " + name + " cannot be made inside")
	}
	return malformedError{errors.New("the entry " + name + " is of an unknown type")}
}

// file writes a file beside name, and puts it there once it is whole: what was there stays
// until then.
func (r *reader) file(name string, h *tar.Header, content io.Reader) error {
	part := path.Join(path.Dir(name), ".strata-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	f, err := r.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return called(err, name)
	}
	_, err = io.Copy(f, content)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		err = malformedError{err}
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = r.finish(part, h)
	}
	if err == nil {
		err = r.root.Rename(part, name)
	}
	if err != nil {
		_ = r.root.Remove(part)
		return called(err, name)
	}
	return nil
}

// called is an error that names what the file is to be called.
func called(err error, name string) error {
	var one *fs.PathError
	var two *os.LinkError
	switch {
	case errors.As(err, &one):
		one.Path = name
	case errors.As(err, &two):
		return &fs.PathError{Op: two.Op, Path: name, Err: two.Err}
	}
	return err
}

// finish sets owner, then mode and attributes, which a change of owner takes away.
func (r *reader) finish(name string, h *tar.Header) error {
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	if err := r.root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := r.root.Chmod(name, h.FileInfo().Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	if err := r.attributes(name, h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		_ = r.root.Chtimes(name, time.Time{}, h.ModTime) // tolerated: only a date
	}
	return nil
}

func (r *reader) attributes(name string, h *tar.Header) error {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return nil
	}
	var f *os.File
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !kept(attr) {
			continue
		}
		if f == nil {
			var err error
			if f, err = r.root.Open(name); err != nil {
				return err
			}
			defer f.Close()
		}
		err := unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0)
		if err != nil && err != unix.ENOTSUP && err != unix.EPERM { // tolerated: tmpfs and the like
			return &fs.PathError{Op: "set " + attr, Path: name, Err: err}
		}
	}
	return nil
}
