// Package serve is the last stage before a volume's server, virtiofsd or strata's own:
// strata-agent's command "share". It is started by the keeper as root, process 1 of
// namespaces of its own (mounts, processes, network, IPC, host name), builds a root that
// holds the volume, the server and the libraries it needs and nothing else, gives up all
// capabilities that serving files does not take, and becomes the server.
//
// So whoever takes the server over, by what a guest sends it, has the files of one
// volume, as the guest has them anyway.
//
// It is compiled into strata-agent, so it imports next to nothing.
package serve

import (
	"errors"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/jail"
)

// Command is the argument that asks for this stage; those of Spec.Args follow.
const Command = "share"

// Spec is what is served, and by what.
type Spec struct {
	Program string   // the server on the host
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

// Own is strata's program for hosts without virtiofsd. Its one argument is the number of Keep.
const Own = "strata-volume"

// Place is where the server finds the volume.
const Place = "/volume"

// program is where the server is in the root that is built.
const program = "/server"

// keepFiles is how many files the server may have open: one for each that the
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
		return jail.Failed("build a root", err)
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
		return jail.Failed("close descriptors", err)
	}
	if _, err := unix.FcntlInt(uintptr(s.Keep), unix.F_SETFD, 0); err != nil {
		return jail.Failed("keep a descriptor", err)
	}
	return jail.Failed("execute "+s.Program, syscall.Exec(program, append([]string{s.Program}, s.Args...), []string{"LC_ALL=C"}))
}

// confine gives up what no server of a volume needs.
func confine() error {
	if err := jail.NoKeys(); err != nil {
		return err
	}
	if err := jail.NoCapabilities(kept...); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// build makes the root and enters it.
func (s Spec) build() error {
	return jail.Enter(func() error {
		if err := errors.Join(jail.Libraries(), jail.Show(s.Program, program[1:]), jail.Proc()); err != nil {
			return err
		}
		return jail.Failed("place the volume", s.place())
	})
}

// place attaches the volume. One that is a file gets a folder around it that
// holds nothing else and cannot be written to.
func (s Spec) place() error {
	at := Place[1:]
	if err := unix.Mkdir(at, 0o755); err != nil {
		return err
	}
	if s.File == "" {
		return jail.Attach(s.Tree, at)
	}
	if strings.Contains(s.File, "/") || s.File == "." || s.File == ".." {
		return errors.New(strconv.Quote(s.File) + " is not a file's name")
	}
	folder, err := jail.Tmpfs()
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	if err := jail.Attach(folder, at); err != nil {
		return err
	}
	file := filepath.Join(at, s.File)
	if err := unix.Mknod(file, unix.S_IFREG|0o444, 0); err != nil {
		return err
	}
	return errors.Join(jail.Attach(s.Tree, file), jail.ReadOnly(folder))
}
