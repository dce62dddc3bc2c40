// Package jail builds a root that holds next to nothing, for programs of the host
// that hostile input reaches (QEMU, virtiofsd, e2fsck, mkfs.erofs). It works in the calling process,
// which must be in a mount namespace of its own, and is compiled into strata-agent,
// so it imports next to nothing.
package jail

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// libraries are what a program of the host may load; those that are there.
var libraries = []string{"/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib", "/etc/ld.so.cache", "/nix/store", "/gnu/store"}

// Enter makes an empty root, has fill put into it what is to be there (the working
// folder is the new root, and names of the host are still found), and enters it. It
// is read-only then, but for what fill attached, and the host's tree is gone.
func Enter(fill func() error) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return Failed("make mounts private", err)
	}
	root, err := Tmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// Over the root, which every host has; all names below go by the working folder.
	if err := errors.Join(Attach(root, "/"), unix.Fchdir(root)); err != nil {
		return err
	}
	if err := errors.Join(fill(), ReadOnly(root)); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return Failed("change root", err)
	}
	// Stacked over the new root, the old one is what "." finds now: pivot_root(2).
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}

// Libraries shows what programs of the host load.
func Libraries() error {
	for _, path := range libraries {
		if err := showSame(path); err != nil {
			return err
		}
	}
	return nil
}

// Proc mounts proc, of the process namespace that the caller is in. It is read-only: who
// stays root of the host by its number, without any capability, could set the host's
// kernel by it otherwise. What its links lead to is written as before.
func Proc() error {
	if err := unix.Mkdir("proc", 0o555); err != nil {
		return err
	}
	return Failed("mount proc", unix.Mount("proc", "proc", "proc", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}

// Device shows a device of the host at the same path.
func Device(path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return Failed("clone "+path, err)
	}
	defer unix.Close(tree)
	return Place(tree, path[1:])
}

// showSame has a path of the host at the same path, read-only; one that is missing is
// left out, and a link stays a link.
func showSame(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return Failed("look at "+path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return Show(path, path[1:])
	}
	to, err := os.Readlink(path)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path[1:]), 0o755), unix.Symlink(to, path[1:]))
}

// Show has a file or folder of the host at a path of the root that is being built,
// read-only.
func Show(path, at string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return Failed("clone "+path, err)
	}
	defer unix.Close(tree)
	if err := ReadOnly(tree); err != nil {
		return err
	}
	return Place(tree, at)
}

// Place attaches a mount of a file or folder to a path of the root that is being built, which it makes.
func Place(tree int, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return Failed("look at what is to be at "+at, err)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.MkdirAll(at, 0o755)
	} else {
		err = unix.Mknod(at, unix.S_IFREG|0o444, 0)
	}
	if err != nil {
		return Failed("make a place at "+at, err)
	}
	return Attach(tree, at)
}

// Tmpfs returns an empty file system for a few names.
func Tmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, Failed("open tmpfs", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"source", "strata"}, {"mode", "0755"}, {"size", "64k"}, {"nr_inodes", "128"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, Failed("tmpfs option "+o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, Failed("make tmpfs", err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
}

// Attach attaches a mount.
func Attach(tree int, at string) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return Failed("attach a mount at "+at, err)
	}
	return nil
}

// ReadOnly lets nobody write to a mount any more, nor use devices or set-user-id
// files on it.
func ReadOnly(tree int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return Failed("protect a mount", err)
	}
	return nil
}

// NoKeys leaves the keys of whoever started the daemon behind: a session's keyring stays
// through every change of user. Where the kernel has no keys, or a filter of the host's keeps
// this from them, there is nothing to leave.
func NoKeys() error {
	// Without a name it is a new one. Source: keyctl(2).
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno == 0 || errno == unix.ENOSYS || errno == unix.EPERM {
		return nil
	}
	return Failed("leave the session's keys", errno)
}

// NoCapabilities takes every capability but those kept out of reach of what is executed
// next, as root too, and of all that it executes.
func NoCapabilities(kept ...uintptr) error {
	for capability := range uintptr(64) { // the bits of a set; no kernel has as many
		if slices.Contains(kept, capability) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel has no more
		}
		if err != nil {
			return Failed("drop capability "+strconv.Itoa(int(capability)), err)
		}
	}
	// What would be inherited by a file with capabilities of its own.
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return Failed("read capabilities", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return Failed("drop what is inherited", unix.Capset(&head, &data[0]))
}

// Failed says what failed, nil where nothing did. Formatting would make strata-agent larger.
func Failed(what string, err error) error { return os.NewSyscallError(what, err) }
