// Package treat is the last stage before e2fsck, resize2fs and mkfs.erofs: strata-agent's
// command "treat". It is started by the daemon as root, process 1 of namespaces of its own
// (mounts, processes, IPC), builds a root that holds the image, the folder that it is made
// of, the tool and the libraries it needs and nothing else, gives up every capability,
// loads a filter of system calls, and becomes the tool.
//
// So whoever takes the tool over, by what a guest wrote to its disk or by what a layer
// holds, has that image, which is theirs anyway: it can read nothing else of the host's
// but libraries, write nowhere else, open no socket (so there is no namespace for them,
// which would take as long as the rest), start no process and see none, and make an image
// no longer that is not made anew.
//
// The tool opens the image by its name, so it is run as its owner. That is root as a
// rule, but by the number only: without capabilities and outside of everything that it
// owns, that is a user like others. One that reads a folder keeps two (see reading).
//
// It is compiled into strata-agent, so it imports next to nothing.
package treat

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/jail"
)

// Command is the argument that asks for this stage; those of Spec.Args follow.
const Command = "treat"

// Namespaces are the clone flags that Command has to be started with.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC

// Descriptors that Command has to be started with.
const (
	held   = 3 // the image, which the tool keeps
	tree   = 4 // the image's mount, attached nowhere
	folder = 5 // that of the folder, where there is one
)

// reading are the capabilities of a tool that reads a folder, whose files are of all owners
// and modes, and have attributes of an overlay's, which others are not shown. Nothing else
// that they are good for is left by the filter.
var reading = []uintptr{unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_ADMIN}

// Failed is the exit status where the tool was not executed. It is none of the tools';
// env(1) and timeout(1) use it so.
const Failed = 125

// Spec is what becomes of the process. Its environment becomes the tool's.
type Spec struct {
	Program string   // the tool on the host
	Args    []string // its arguments after its name
	Image   string   // where it finds the image
	Folder  string   // and the folder that the image is made of; "": there is none
	Filter  []byte   // of system calls: struct sock_filter, one after another
}

// Encode returns the stage's whole argument list.
func (s Spec) Encode() []string {
	return append([]string{"strata-agent", Command, s.Program, s.Image, s.Folder, hex.EncodeToString(s.Filter)}, s.Args...)
}

// decode is Encode's inverse.
func decode(args []string) (s Spec, err error) {
	if len(args) < 6 || args[1] != Command {
		return s, errors.New("it is run by strata only")
	}
	s = Spec{Program: args[2], Image: args[3], Folder: args[4], Args: args[6:]}
	s.Filter, err = hex.DecodeString(args[5])
	if err != nil || len(s.Filter) == 0 || len(s.Filter)%instruction != 0 || !filepath.IsAbs(s.Program) || !filepath.IsAbs(s.Image) ||
		s.Folder != "" && !filepath.IsAbs(s.Folder) {
		return s, errors.New("its arguments are not those of a tool")
	}
	return s, nil
}

// Run is the stage. It returns only where it fails, with the exit status.
func Run(args []string) int {
	runtime.LockOSThread() // user, capabilities and filter are the thread's that executes
	s, err := decode(args)
	if err == nil {
		err = s.run()
	}
	_, _ = unix.Write(2, []byte("strata-agent "+Command+": "+err.Error()+"\n"))
	return Failed
}

func (s Spec) run() error {
	var image unix.Stat_t
	if err := unix.Fstat(held, &image); err != nil {
		return jail.Failed("look at the image", err)
	}
	// The daemon is spared where memory is short; what reads a hostile disk is not.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0) // tolerated: it only makes another process the one that is chosen
	if err := jail.Enter(s.fill); err != nil {
		return jail.Failed("build a root", err)
	}
	if err := unix.CloseRange(tree, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return jail.Failed("close descriptors", err)
	}
	if err := s.drop(image); err != nil {
		return err
	}
	return jail.Failed("execute "+s.Program, syscall.Exec(s.Program, append([]string{s.Program}, s.Args...), os.Environ()))
}

// fill puts into the root what the tool finds there.
func (s Spec) fill() error {
	if err := jail.Libraries(); err != nil {
		return err
	}
	if _, err := os.Lstat(s.Program[1:]); err != nil { // it may lie among the libraries
		if err := jail.Show(s.Program, s.Program[1:]); err != nil {
			return err
		}
	}
	if err := jail.Device("/dev/null"); err != nil { // e2fsck wants it
		return err
	}
	if s.Folder != "" {
		if err := place(folder, s.Folder, unix.MOUNT_ATTR_RDONLY); err != nil {
			return jail.Failed("place the folder", err)
		}
	}
	return jail.Failed("place the image", place(tree, s.Image, 0))
}

// place shows a mount at the path that it has on the host, with attributes besides those
// that all have.
func place(tree int, path string, attributes uint64) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | attributes}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return err
	}
	return jail.Place(tree, path[1:])
}

// drop gives up what the tool does not need, all of it for this thread only.
func (s Spec) drop(image unix.Stat_t) error {
	kept, length := []uintptr(nil), uint64(image.Size)
	if s.Folder != "" {
		kept, length = reading, unix.RLIM_INFINITY // what it makes of that is not known before
	}
	if err := errors.Join(jail.NoKeys(), jail.NoCapabilities(kept...)); err != nil {
		return err
	}
	for what, most := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: length} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return jail.Failed("set a limit", err)
		}
	}
	uid, gid := uintptr(image.Uid), uintptr(image.Gid)
	for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, gid, gid, gid}, {unix.SYS_SETRESUID, uid, uid, uid}} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return jail.Failed("become the image's owner", errno)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return jail.Failed("give up privileges", err)
	}
	return s.filter()
}

// instruction is the size of one of the filter's. Source: linux/filter.h, struct sock_filter.
const instruction = 8

// filter loads the filter, which does not keep the tool from being executed.
func (s Spec) filter() error {
	program := unix.SockFprog{Len: uint16(len(s.Filter) / instruction), Filter: (*unix.SockFilter)(unsafe.Pointer(&s.Filter[0]))}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(s.Filter)
	if errno != 0 {
		return jail.Failed("load the filter of system calls", errno)
	}
	return nil
}
