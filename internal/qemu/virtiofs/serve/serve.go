// Package serve is the last stage before virtiofsd: strata-agent's command
// "share". It is started by the keeper as root, process 1 of namespaces of its
// own (mounts, processes, network, IPC, host name), builds a root that holds the
// volume, virtiofsd and the libraries it needs and nothing else, gives up all
// capabilities that serving files does not take, and becomes virtiofsd.
//
// So whoever takes virtiofsd over, by what a guest sends it, has the files of one
// volume, as the guest has them anyway.
//
// It is compiled into strata-agent, so it imports next to nothing.
package serve

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is the argument that asks for this stage; those of Spec.Args follow.
const Command = "share"

// Spec is what is served, and by what.
type Spec struct {
	Program string   // virtiofsd on the host
	Args    []string // its arguments after its name; the volume is at Place
	Tree    int      // descriptor of the volume's mount, attached nowhere
	File    string   // the volume is one file: it is put into a folder, by this name; "": it is a folder
	Keep    int      // descriptor that the server gets
}

// Encode returns the stage's whole argument list.
func (s Spec) Encode() []string {
	return append([]string{"strata-agent", Command, s.Program, strconv.Itoa(s.Tree), s.File, strconv.Itoa(s.Keep)}, s.Args...)
}

// decode is Encode's inverse.
func decode(args []string) (s Spec, err error) {
	if len(args) < 6 || args[1] != Command {
		return s, errors.New("it is run by strata only")
	}
	s = Spec{Program: args[2], File: args[4], Args: args[6:]}
	var bad error
	s.Tree, err = strconv.Atoi(args[3])
	s.Keep, bad = strconv.Atoi(args[5])
	return s, errors.Join(err, bad)
}

// Place is where virtiofsd finds the volume.
const Place = "/volume"

// program is where virtiofsd is in the root that is built.
const program = "/virtiofsd"

// libraries are what a program of the host may load; those that are there.
var libraries = []string{"/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib", "/etc/ld.so.cache", "/nix/store", "/gnu/store"}

// keepFiles is how many files virtiofsd may have open: one for each that the
// guest has in its cache. What the host allows at most is taken where it is less.
const keepFiles = 1 << 20

// kept are the capabilities that stay within reach: for the owners and modes of
// files, and to change the root once more and to drop the rest. MKNOD is not
// among them: a zone's volume makes no devices either. Nor is DAC_READ_SEARCH, by
// which files beside the volume could be opened by their handles.
// Source: linux/capability.h.
var kept = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_SETFCAP, unix.CAP_SYS_CHROOT,
}

// Run is the stage. It returns only where it fails, with the exit status.
func Run(args []string) int {
	runtime.LockOSThread() // capabilities are the thread's that executes
	s, err := decode(args)
	if err == nil {
		err = s.run()
	}
	_, _ = unix.Write(2, []byte("strata-agent "+Command+": "+err.Error()+"\n"))
	return 1
}

func (s Spec) run() error {
	if err := s.build(); err != nil {
		return failed("build a root", err)
	}
	limit := &unix.Rlimit{Cur: keepFiles, Max: keepFiles}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, limit) != nil && unix.Getrlimit(unix.RLIMIT_NOFILE, limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, limit) // tolerated: fewer files, then
	}
	if err := confine(); err != nil {
		return err
	}
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return failed("close descriptors", err)
	}
	if _, err := unix.FcntlInt(uintptr(s.Keep), unix.F_SETFD, 0); err != nil {
		return failed("keep a descriptor", err)
	}
	return failed("execute "+s.Program, syscall.Exec(program, append([]string{"virtiofsd"}, s.Args...), []string{"LC_ALL=C"}))
}

// confine gives up what virtiofsd does not need.
func confine() error {
	for capability := range uintptr(unix.CAP_LAST_CAP + 1) {
		if slices.Contains(kept, capability) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // that: a kernel that has fewer
			return failed("drop capability "+strconv.Itoa(int(capability)), err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// build makes the root and enters it.
func (s Spec) build() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return failed("make mounts private", err)
	}
	root, err := tmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// Over the root, which every host has; all names below go by the working folder.
	if err := errors.Join(attach(root, "/"), unix.Fchdir(root)); err != nil {
		return err
	}
	for _, path := range libraries {
		if err := show(path); err != nil {
			return err
		}
	}
	if err := showAt(s.Program, program[1:]); err != nil {
		return err
	}
	if err := unix.Mkdir("proc", 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return failed("mount proc", err)
	}
	if err := s.place(); err != nil {
		return failed("place the volume", err)
	}
	if err := readOnly(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return failed("change root", err)
	}
	// Stacked over the new root, the old one is what "." finds now: pivot_root(2).
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
}

// place attaches the volume. One that is a file gets a folder around it that
// holds nothing else and cannot be written to.
func (s Spec) place() error {
	at := Place[1:]
	if err := unix.Mkdir(at, 0o755); err != nil {
		return err
	}
	if s.File == "" {
		return attach(s.Tree, at)
	}
	if strings.Contains(s.File, "/") || s.File == "." || s.File == ".." {
		return errors.New(strconv.Quote(s.File) + " is not a file's name")
	}
	folder, err := tmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	if err := attach(folder, at); err != nil {
		return err
	}
	file := filepath.Join(at, s.File)
	if err := unix.Mknod(file, unix.S_IFREG|0o444, 0); err != nil {
		return err
	}
	return errors.Join(attach(s.Tree, file), readOnly(folder))
}

// show has a path of the host at the same path, read-only; one that is missing is
// left out, and a link stays a link.
func show(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return failed("look at "+path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return showAt(path, path[1:])
	}
	to, err := os.Readlink(path)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path[1:]), 0o755), unix.Symlink(to, path[1:]))
}

func showAt(path, at string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return failed("clone "+path, err)
	}
	defer unix.Close(tree)
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return failed("look at "+path, err)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.MkdirAll(at, 0o755)
	} else {
		err = unix.Mknod(at, unix.S_IFREG|0o444, 0)
	}
	if err != nil {
		return failed("make a place for "+path, err)
	}
	if err := readOnly(tree); err != nil {
		return err
	}
	return attach(tree, at)
}

// tmpfs returns an empty file system for a few names.
func tmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, failed("open tmpfs", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"source", "strata"}, {"mode", "0755"}, {"size", "64k"}, {"nr_inodes", "128"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, failed("tmpfs option "+o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, failed("make tmpfs", err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
}

func attach(tree int, at string) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return failed("attach a mount at "+at, err)
	}
	return nil
}

func readOnly(tree int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return failed("protect a mount", err)
	}
	return nil
}

// failed says what failed, nil where nothing did. Formatting would make strata-agent larger.
func failed(what string, err error) error { return os.NewSyscallError(what, err) }
