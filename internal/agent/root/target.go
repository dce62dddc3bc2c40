package root

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Two ways of resolving a path below a root that may be hostile.
const (
	// InRoot follows links, and never leaves the root: for what users name.
	InRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	// NoLinks follows none: for the places of strata's own.
	NoLinks = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS
)

// OpenIn opens path below root, AT_FDCWD being the root of the process. A path
// without length is the root itself.
func OpenIn(root int, path string, flags, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o644
	}
	err = Again(func() (err error) {
		fd, err = unix.Openat2(root, relative(root, path), &how)
		return err
	})
	if err == unix.EAGAIN { // a rename raced with the look-up of "..", and nobody renames yet
		fd, err = unix.Openat2(root, relative(root, path), &how)
	}
	return fd, err
}

// Target returns a descriptor (O_PATH) of path below root, and makes what is
// missing: folders, and at the end a folder or an empty file.
func Target(root int, path string, dir bool, resolve uint64) (int, error) {
	fd, err := OpenIn(root, path, unix.O_PATH, resolve)
	if err != unix.ENOENT {
		return fd, err
	}
	parts := clean(path)
	parent, err := OpenIn(root, "", unix.O_PATH, resolve)
	if err != nil {
		return -1, err
	}
	for i, name := range parts {
		last := i == len(parts)-1
		// Always from the root, so that a link on the way means what it means inside.
		fd, err = OpenIn(root, strings.Join(parts[:i+1], "/"), unix.O_PATH, resolve)
		if err == unix.ENOENT {
			if err = create(parent, name, dir || !last); err == nil {
				fd, err = OpenIn(root, strings.Join(parts[:i+1], "/"), unix.O_PATH, resolve)
			}
		}
		unix.Close(parent)
		if err != nil {
			return -1, err
		}
		parent = fd
	}
	return parent, nil
}

func create(parent int, name string, dir bool) error {
	if dir {
		return unix.Mkdirat(parent, name, 0o755)
	}
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// clean splits an absolute path into its parts. ".." goes up by the text of the
// path, and never above the root.
func clean(path string) (parts []string) {
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, part)
		}
	}
	return parts
}

// split returns the folder and the name of a path.
func split(path string) (dir, name string) {
	parts := clean(path)
	if len(parts) == 0 {
		return "", ""
	}
	return strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
}

// Tree makes a mount of a file system, attached nowhere. An option is "key" or "key=value".
func Tree(kind string, attr int, options ...string) (int, error) {
	return TreeOf(kind, kind, attr, options...)
}

// TreeOf is Tree for a file system that has a source.
func TreeOf(kind, source string, attr int, options ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, Wrap(err, "open file system "+kind)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil && err != unix.EINVAL {
		return -1, Wrap(err, kind+": source")
	}
	for _, option := range options {
		key, value, ok := strings.Cut(option, "=")
		if ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return -1, Wrap(err, kind+": option "+option)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, Wrap(err, "make file system "+kind)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	return fd, Wrap(err, "make mount of "+kind)
}

// Clone returns a copy of the mount that path below base is on, from path on.
func Clone(base int, path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_SYMLINK_NOFOLLOW)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(base, path, flags)
}

// Attach puts the mount at the place that the descriptor is of.
func Attach(mount, place int) error {
	return unix.MoveMount(mount, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// AttachIn puts a mount of strata's own at path below root, which is made where it is missing.
func AttachIn(mount, root int, path string, dir bool) error {
	place, err := Target(root, path, dir, NoLinks)
	if err != nil {
		if err == unix.ELOOP {
			return Fail(Unable, "template", "the template's "+path+" is a link, and must be a folder")
		}
		return Wrap(err, "make "+path)
	}
	defer unix.Close(place)
	return Wrap(Attach(mount, place), "mount at "+path)
}

// folder tells whether the descriptor is of a folder.
func folder(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Protect makes the mount read-only.
func Protect(mount int) error {
	return unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// relative drops leading slashes, which openat2 would take for another root.
func relative(root int, path string) string {
	path = strings.TrimLeft(path, "/")
	if root == unix.AT_FDCWD {
		return "/" + path
	}
	if path == "" {
		return "."
	}
	return path
}
