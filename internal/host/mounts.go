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
	return onSpareThread(func() error {
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

// idmapped tries a tmpfs (6.3) and then the file systems that state may be on.
func idmapped(context.Context) (detail string, err error) {
	err = inUserNamespace(func(ns int) error {
		set := func(fd int) error {
			defer unix.Close(fd)
			return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
		}
		var failed error
		if fd, err := detached("tmpfs", 0); err == nil {
			if failed = set(fd); failed == nil {
				detail = "on tmpfs"
				return nil
			}
		}
		for _, dir := range []string{"/var/lib", "/var/tmp", "/"} {
			fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return fmt.Errorf("open_tree %s: %w", dir, err)
			}
			if failed = set(fd); failed == nil {
				detail = "on " + dir
				return nil
			}
		}
		return fmt.Errorf("mount_setattr: %w", failed)
	})
	return detail, err
}

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
	fd, err := detached("overlay", 0, option{"lowerdir", fdPath(base, "lower")}, option{"upperdir", fdPath(base, "upper")}, option{"workdir", fdPath(base, "work")})
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := os.WriteFile(fdPath(fd, "file"), []byte("x"), 0o600); err != nil {
		return "", fmt.Errorf("write to the overlay: %w", err)
	}
	return "", nil
}

func erofs(context.Context) (string, error) {
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "tiny.erofs")
	if err := os.WriteFile(image, tinyImage, 0o600); err != nil {
		return "", err
	}
	how := "straight from the file"
	fd, err := detached("erofs", unix.MOUNT_ATTR_RDONLY, option{"source", image})
	if err != nil {
		// Before 6.12, and for a file on a file system that cannot do it.
		how = "through a loop device"
		loop, failed := attach(image)
		if failed != nil {
			return "", fmt.Errorf("%w; and a loop device: %w", err, failed)
		}
		defer loop.Close()
		if fd, err = detached("erofs", unix.MOUNT_ATTR_RDONLY, option{"source", loop.Name()}); err != nil {
			return "", err
		}
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
