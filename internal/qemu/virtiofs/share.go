package virtiofs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
)

// Volume is what is to be shared.
type Volume struct {
	Tag      string // of the device, at most 36 bytes (virtio 1.2, 5.11.4)
	Source   string // absolute path of a folder or file on the host
	ReadOnly bool
}

// Share is a volume that is ready to be served. Its files are handed on to two
// processes and closed then.
type Share struct {
	Tag      string
	File     string   // the volume is a file: its name in the device's root folder; "": the volume is that folder
	Tree     *os.File // for Command: the volume's mount
	Listener *os.File // for Command: where the server awaits QEMU
	QEMU     *os.File // for the device: connected to Listener

	program Program
}

// MaxVolumes is how many volumes a guest can have: QEMU's microvm has room for 24
// devices, and each guest has 6 others. Source: measured with QEMU 7.2, acpi=on.
const MaxVolumes = 24 - 6

// maxTag is struct virtio_fs_config's tag. Source: linux/virtio_fs.h.
const maxTag = 36

// fileName is what a volume that is a file is called within its device.
const fileName = "file"

// Namespaces are the clone flags that Command has to be started with.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Open gets a volume ready. run is a folder that only root may enter; what is
// made there is gone when Open returns. Kinds: Invalid, Missing (the source), Unable.
func (p Program) Open(ctx context.Context, run string, v Volume) (_ *Share, err error) {
	if v.Tag == "" || len(v.Tag) > maxTag {
		return nil, fault.Internalf("the tag %q is not of 1 to %d bytes", v.Tag, maxTag)
	}
	tree, err := mount.Bind(ctx, v.Source, nil, v.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	s := &Share{Tag: v.Tag, program: p}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(int(tree.File().Fd()), &st); err != nil {
		return nil, fmt.Errorf("look at the volume's source %s: %w", v.Source, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG:
		s.File = fileName
	default:
		return nil, fault.Unablef("%s is neither a folder nor a file, and nothing else can be shared with another kernel", v.Source).At("volume").
			Help("publish a port instead of a socket, or use stratum zone")
	}
	fd, err := unix.FcntlInt(tree.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keep the volume's mount: %w", err)
	}
	s.Tree = os.NewFile(uintptr(fd), v.Source)
	if s.Listener, s.QEMU, err = meeting(run, v.Tag); err != nil {
		return nil, fault.Wrap(err, "make a socket for the volume %s", v.Source)
	}
	return s, nil
}

// Close closes the files that are still open.
func (s *Share) Close() {
	for _, f := range []*os.File{s.Tree, s.Listener, s.QEMU} {
		if f != nil {
			f.Close()
		}
	}
}

// Command is the program that serves, and its arguments with its name. agent is
// strata-agent; tree and listener are the numbers that the two files have there.
// Its standard error is for its log.
func (s *Share) Command(agent string, tree, listener int) (path string, args []string) {
	return agent, serve.Spec{Program: s.program.Path, Args: s.program.args(listener), Tree: tree, File: s.File, Keep: listener}.Encode()
}

// args are the server's. The folder that it serves is its root already but for
// proc and libraries, so that a chroot is all that is left for it to do.
func (p Program) args(listener int) []string {
	fd := "--fd=" + strconv.Itoa(listener)
	switch p.Kind {
	case Own:
		return []string{strconv.Itoa(listener)}
	case Rust:
		return []string{fd, "--shared-dir=" + serve.Place, "--sandbox=chroot", "--cache=auto", "--xattr", "--posix-acl",
			"--announce-submounts", "--modcaps=-mknod", "--rlimit-nofile=0", "--log-level=error"}
	}
	return []string{"-f", fd, "-o", "source=" + serve.Place, "-o", "sandbox=chroot", "-o", "cache=auto", "-o", "xattr", "-o", "posix_acl",
		"-o", "announce_submounts", "-o", "no_flock", "-o", "no_posix_lock", "-o", "modcaps=-mknod", "--rlimit-nofile=0", "-o", "log_level=err"}
}

// meeting makes a listening socket and a connection to it that waits to be
// accepted. Its name is in run for a moment only.
func meeting(run, tag string) (listener, client *os.File, err error) {
	dir, err := os.OpenFile(run, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	var fds []int
	defer func() {
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}()
	for range 2 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, nil, err
		}
		fds = append(fds, fd)
	}
	// By way of the descriptor, since a socket's whole path may be 107 bytes only.
	name := "volume-" + tag
	address := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)}
	if err := unix.Bind(fds[0], address); err != nil {
		return nil, nil, fmt.Errorf("bind %s: %w", filepath.Join(run, name), err)
	}
	defer unix.Unlinkat(int(dir.Fd()), name, 0)
	if err := unix.Listen(fds[0], 1); err != nil {
		return nil, nil, err
	}
	if err := unix.Connect(fds[1], address); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}
