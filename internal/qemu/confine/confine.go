// Package confine is the last stage before QEMU: strata-agent's command "confine".
// It is started by the keeper as root, in namespaces of its own (mounts, processes,
// network, IPC, host name), builds a root that holds QEMU, its libraries and data,
// and what Spec names, gives up every capability and root itself, and becomes QEMU.
//
// So a guest that takes QEMU over is a user that owns nothing, without any network
// but its tap, that sees the host's libraries, its own kernel, and the descriptors of
// its own disks; and which the kernel's filter keeps from most else (-sandbox).
//
// The host's folders of libraries are shown whole, read-only and without devices or
// set-user-id: what QEMU loads, and what that loads in turn, differs between hosts and
// releases, and none of it is a secret. There is no /etc but the loader's cache, no
// proc and no sys, and of /dev there is null and what Spec names.
//
// A failure goes to standard error, which the keeper reads as QEMU's own last words.
//
// It is compiled into strata-agent, so it imports next to nothing.
package confine

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/jail"
)

// Command is the argument that asks for this stage; those of Spec.Args follow.
const Command = "confine"

// Namespaces are the clone flags that Command has to be started with.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// Spec is what becomes of the process.
type Spec struct {
	Program     string   // QEMU on the host
	Args        []string // its arguments after its name
	User        uint32   // user and group
	Groups      []uint32 // further groups, such as that of /dev/kvm
	First, Last int      // descriptors that it gets
	Devices     []string // of the host, at the same paths
	Show        []Shown
	Files       bool // QEMU finds its own descriptors below FilesPlace, for what it only opens by name
	Tied        bool // it ends with the thread that started it
	Image       int  // a descriptor: a copy of Program that goes on (package checkpoint); 0: Program itself is executed. It takes Files
}

// FilesPlace is a folder with the program's descriptors by number.
const FilesPlace = "/fd"

// Shown is a file or folder that QEMU finds, read-only.
type Shown struct{ Path, At string }

// shared is what QEMU's program needs of the host besides its libraries; those that are
// there. Source: Debian's qemu-system-data and seabios.
var shared = []string{"/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu"}

// Encode returns the stage's whole argument list.
func (s Spec) Encode() []string {
	n := func(v int) string { return strconv.Itoa(v) }
	a := []string{"strata-agent", Command, s.Program, n(int(s.User)), n(s.First), n(s.Last)}
	a = append(a, n(len(s.Groups)))
	for _, g := range s.Groups {
		a = append(a, n(int(g)))
	}
	a = append(append(a, n(len(s.Devices))), s.Devices...)
	a = append(a, n(len(s.Show)))
	for _, f := range s.Show {
		a = append(a, f.Path, f.At)
	}
	choices := 0
	if s.Files {
		choices |= withFiles
	}
	if s.Tied {
		choices |= tied
	}
	return append(append(a, n(choices), n(s.Image)), s.Args...)
}

// What may be chosen, as one number.
const (
	withFiles = 1 << iota
	tied
)

// reader takes arguments off the front.
type reader struct {
	args []string
	bad  bool
}

func (r *reader) text() (s string) {
	if len(r.args) == 0 {
		r.bad = true
		return ""
	}
	s, r.args = r.args[0], r.args[1:]
	return s
}

func (r *reader) number() int {
	n, err := strconv.ParseUint(r.text(), 10, 32) // as ids are
	r.bad = r.bad || err != nil
	return int(n)
}

func (r *reader) count() int {
	n := r.number()
	if n > len(r.args) {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	return n
}

// decode is Encode's inverse.
func decode(args []string) (s Spec, err error) {
	r := &reader{args: args}
	if r.text(); r.text() != Command {
		return s, errors.New("it is run by strata only")
	}
	s.Program, s.User, s.First, s.Last = r.text(), uint32(r.number()), r.number(), r.number()
	for range r.count() {
		s.Groups = append(s.Groups, uint32(r.number()))
	}
	for range r.count() {
		s.Devices = append(s.Devices, r.text())
	}
	for range r.count() {
		s.Show = append(s.Show, Shown{r.text(), r.text()})
	}
	choices := r.number()
	s.Files, s.Tied = choices&withFiles != 0, choices&tied != 0
	s.Image = r.number()
	s.Args = r.args
	if r.bad || !filepath.IsAbs(s.Program) || s.User == 0 || s.First < 3 || s.Last < s.First || s.Image != 0 && (s.Image < s.First || s.Image > s.Last || !s.Files) {
		return s, errors.New("its arguments are not those of a machine")
	}
	return s, nil
}

// Run is the stage. It returns only where it fails, with the exit status.
func Run(args []string) int {
	runtime.LockOSThread() // user and capabilities are the thread's that executes
	s, err := decode(args)
	if err == nil {
		err = s.run()
	}
	_, _ = unix.Write(2, []byte("strata-agent "+Command+": "+err.Error()+"\n"))
	return 1
}

func (s Spec) run() error {
	if err := jail.Enter(s.fill); err != nil {
		return jail.Failed("build a root", err)
	}
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return jail.Failed("close descriptors", err)
	}
	for fd := s.First; fd <= s.Last; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return jail.Failed("keep a descriptor", err)
		}
	}
	if err := s.drop(); err != nil {
		return err
	}
	program := s.Program
	if s.Image != 0 {
		program = FilesPlace + "/" + strconv.Itoa(s.Image)
	}
	// QEMU finds its data from where it is itself.
	return jail.Failed("execute "+program, syscall.Exec(program, append([]string{s.Program}, s.Args...), []string{"LC_ALL=C"}))
}

// fill puts into the root what QEMU finds there.
//
// There is no proc: QEMU does without, and it tells much of the host.
func (s Spec) fill() error {
	if err := jail.Libraries(); err != nil {
		return err
	}
	if _, err := os.Stat(s.Program[1:]); err != nil { // it may lie among the libraries
		if err := jail.Show(s.Program, s.Program[1:]); err != nil {
			return err
		}
	}
	for _, path := range shared {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := jail.Show(path, path[1:]); err != nil {
			return err
		}
	}
	// QEMU tries on /dev/null whether the kernel has locks that belong to a file's
	// description, and takes lesser ones without it.
	for _, path := range append([]string{"/dev/null"}, s.Devices...) {
		if err := jail.Device(path); err != nil {
			return err
		}
	}
	if s.Files {
		if err := files(); err != nil {
			return err
		}
	}
	for _, f := range s.Show {
		if err := jail.Show(f.Path, strings.TrimPrefix(f.At, "/")); err != nil {
			return err
		}
	}
	return nil
}

// files shows the folder of descriptors, and nothing else of proc. The process is
// number 1 of its namespace, and stays so as QEMU.
func files() error {
	if err := jail.Proc(); err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, "proc/1/fd", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return jail.Failed("clone the folder of descriptors", err)
	}
	defer unix.Close(tree)
	if err := errors.Join(unix.Mkdir(FilesPlace[1:], 0o555), jail.Attach(tree, FilesPlace[1:])); err != nil {
		return err
	}
	return jail.Failed("take proc away", unix.Unmount("proc", unix.MNT_DETACH))
}

// drop gives up root, and every way back to it.
func (s Spec) drop() error {
	if err := jail.NoKeys(); err != nil {
		return err
	}
	if err := jail.NoCapabilities(); err != nil {
		return err
	}
	groups := make([]int, len(s.Groups))
	for i, g := range s.Groups {
		groups[i] = int(g)
	}
	none := unix.Rlimit{}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &none) // lowering it cannot fail
	if err := syscall.Setgroups(groups); err != nil {
		return jail.Failed("set groups", err)
	}
	id := int(s.User)
	if err := errors.Join(syscall.Setresgid(id, id, id), syscall.Setresuid(id, id, id)); err != nil {
		return jail.Failed("become the machine's user", err)
	}
	if s.Tied { // the kernel forgets it where the user changes
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return jail.Failed("tie it to its parent", err)
		}
	}
	// Nobody looks into it from here on; QEMU is another user's than anybody else's.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return jail.Failed("close it to others", err)
	}
	return jail.Failed("give up privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
