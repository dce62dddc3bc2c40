package host

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/thread"
)

// tinyImage is an EROFS image with one file, "strata". Made by
// `mkfs.erofs -T0 -U 00000000-0000-0000-0000-000000000000 tiny.erofs DIR` of erofs-utils 1.5.
//
//go:embed tiny.erofs
var tinyImage []byte

// option is one fsconfig string.
type option struct{ key, value string }

// detached makes a mount that is in no namespace: closing it is the end of it.
func detached(kind string, attrs int, options ...option) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(ctx)
	for _, o := range options {
		if err := unix.FsconfigSetString(ctx, o.key, o.value); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", o.key, err)
		}
	}
	if attrs&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := unix.FsconfigSetFlag(ctx, "ro"); err != nil {
			return -1, fmt.Errorf("fsconfig ro: %w", err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("make %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w", kind, err)
	}
	return fd, nil
}

func fdPath(fd int, rest ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/self/fd/%d", fd)}, rest...)...)
}

func mountAPI(context.Context) (string, error) {
	fd, err := detached("tmpfs", 0, option{"size", "64k"})
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		// Cloning a detached mount is 6.15's; cloning an attached one is what is needed.
		clone, err = unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	if err != nil {
		return "", fmt.Errorf("open_tree: %w", err)
	}
	return "", unix.Close(clone)
}

// inUserNamespace calls use with a namespace that maps one range of ids, while a
// process holds it. The process is this program, stopped before its first
// instruction, so that nothing of it runs.
func inUserNamespace(use func(ns int) error) error {
	return thread.Spare(func() error {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: unix.SIGKILL}
		child, err := os.StartProcess("/proc/self/exe", []string{"strata-check"}, &os.ProcAttr{Sys: attr})
		if err != nil {
			return fmt.Errorf("clone into a user namespace: %w", err)
		}
		defer func() { _ = child.Kill(); _, _ = child.Wait() }()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", child.Pid))
		if err != nil {
			return err
		}
		defer ns.Close()
		return use(int(ns.Fd()))
	})
}

func userNamespace(context.Context) (string, error) {
	return "", inUserNamespace(func(int) error { return nil })
}

// idmapped tries a tmpfs (6.3), an erofs (5.19), and what state may lie on.
func idmapped(context.Context) (detail string, err error) {
	err = inUserNamespace(func(ns int) error {
		var failed error
		for _, on := range []struct {
			what string
			open func() (int, error)
		}{
			{"tmpfs", func() (int, error) { return detached("tmpfs", 0) }},
			{"erofs", func() (int, error) { fd, _, err := tiny(); return fd, err }},
			{"/var/lib", cloned("/var/lib")}, {"/var/tmp", cloned("/var/tmp")}, {"/", cloned("/")},
		} {
			fd, err := on.open()
			if err == nil {
				err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
				unix.Close(fd)
			}
			if err == nil {
				detail = "on " + on.what
				return nil
			}
			failed = fmt.Errorf("on %s: %w", on.what, err)
		}
		return failed
	})
	return detail, err
}

func cloned(dir string) func() (int, error) {
	return func() (int, error) {
		return unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
}

// overlay tries layers that are attached nowhere, which newer kernels take, and
// then attached ones.
func overlay(context.Context) (string, error) {
	base, err := detached("tmpfs", 0, option{"size", "1m"})
	if err != nil {
		return "", err
	}
	defer unix.Close(base)
	for _, dir := range []string{"lower", "upper", "work"} {
		if err := unix.Mkdirat(base, dir, 0o755); err != nil {
			return "", err
		}
	}
	if overlayOn(base) == nil {
		return "over detached mounts", nil
	}
	return "over attached mounts only", thread.Spare(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the mounts: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make the mounts private: %w", err)
		}
		// On this thread's own view of /proc, which every host has.
		if err := unix.MoveMount(base, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("attach a tmpfs: %w", err)
		}
		return overlayAt("/proc", func(fd int) error {
			file, err := unix.Openat(fd, "file", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
			if err == nil {
				unix.Close(file)
			}
			return err
		})
	})
}

func overlayOn(base int) error {
	return overlayAt(fdPath(base), func(fd int) error { return os.WriteFile(fdPath(fd, "file"), []byte("x"), 0o600) })
}

func overlayAt(dir string, try func(fd int) error) error {
	fd, err := detached("overlay", 0, option{"lowerdir", dir + "/lower"}, option{"upperdir", dir + "/upper"}, option{"workdir", dir + "/work"})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := try(fd); err != nil {
		return fmt.Errorf("write to the overlay: %w", err)
	}
	return nil
}

// tiny mounts the image, detached, and says how.
func tiny() (fd int, how string, err error) {
	dir, err := scratch()
	if err != nil {
		return -1, "", err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "tiny.erofs")
	if err := os.WriteFile(image, tinyImage, 0o600); err != nil {
		return -1, "", err
	}
	fd, err = detached("erofs", unix.MOUNT_ATTR_RDONLY, option{"source", image})
	if err == nil {
		return fd, "straight from the file", nil
	}
	// Before 6.12, and for a file on a file system that cannot do it.
	loop, failed := attach(image)
	if failed != nil {
		return -1, "", fmt.Errorf("%w; and a loop device: %w", err, failed)
	}
	defer loop.Close() // the mount keeps it
	fd, err = detached("erofs", unix.MOUNT_ATTR_RDONLY, option{"source", loop.Name()})
	return fd, "through a loop device", err
}

func erofs(context.Context) (string, error) {
	fd, how, err := tiny()
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if text, err := os.ReadFile(fdPath(fd, "strata")); err != nil || string(text) != "strata\n" {
		return "", fmt.Errorf("the file in the image reads %q: %v", text, err)
	}
	return how, nil
}

func loopDevice(context.Context) (string, error) {
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		return "", err
	}
	loop, err := attach(image)
	if err != nil {
		return "", err
	}
	return loop.Name(), loop.Close()
}

// attach puts a file on a free loop device that lets go of it when closed. Of two
// that take the same free device one is told EBUSY and asks again.
func attach(image string) (*os.File, error) {
	back, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(back.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_READ_ONLY
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		runtime.KeepAlive(back)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("configure loop device: %w", err)
		}
	}
	return nil, fmt.Errorf("every loop device was taken in between: %w", unix.EBUSY)
}
