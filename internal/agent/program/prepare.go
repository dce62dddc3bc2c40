package program

import (
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// defaultPath is where programs are looked for if the environment has no PATH.
// Source: docker's default, which images rely on.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxFilter is the longest seccomp filter. Unit: instructions.
// Source: linux/bpf_common.h, BPF_MAXINSNS.
const maxFilter = 4096

// Prepare makes an image of p: it looks up the user, makes the working folder
// where that is asked for, and sets HOME and TERM. It runs inside the root.
func Prepare(p *wire.Process) (*Image, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, root.Fail(root.Invalid, "command", "no command was given")
	}
	who, err := lookUp(p.User)
	if err != nil {
		return nil, err
	}
	img := &Image{TTY: -1, report: -1, process: p, strict: p.NoNewPrivs, signals: allSignals,
		uid: uintptr(who.uid), gid: uintptr(who.gid), groups: who.groups}
	if p.MakeWorkDir && p.WorkDir != "" {
		if err := makeWorkDir(p.WorkDir); err != nil {
			return nil, root.Fail(root.Unable, "workdir", "make the working folder "+p.WorkDir+": "+root.Words(err))
		}
	}
	if img.dir, err = syscall.BytePtrFromString(or(p.WorkDir, "/")); err != nil {
		return nil, root.Fail(root.Invalid, "workdir", "the working folder holds a zero byte")
	}
	if err := img.command(p, environment(p, who.home)); err != nil {
		return nil, err
	}
	if err := img.limit(p, who.uid == 0); err != nil {
		return nil, err
	}
	return img, nil
}

func (img *Image) command(p *wire.Process, env []string) (err error) {
	if img.args, err = syscall.SlicePtrFromStrings(p.Args); err != nil {
		return root.Fail(root.Invalid, "command", "the command holds a zero byte")
	}
	if img.env, err = syscall.SlicePtrFromStrings(env); err != nil {
		return root.Fail(root.Invalid, "env", "the environment holds a zero byte")
	}
	var paths []string
	switch name := p.Args[0]; {
	case p.Agent:
		paths = []string{"/proc/self/exe"}
	case strings.Contains(name, "/"):
		paths = []string{name}
	default:
		for dir := range strings.SplitSeq(or(value(env, "PATH"), defaultPath), ":") {
			if strings.HasPrefix(dir, "/") { // a relative one would let the working folder decide
				paths = append(paths, dir+"/"+name)
			}
		}
	}
	for _, path := range paths {
		ptr, err := syscall.BytePtrFromString(path)
		if err != nil {
			return root.Fail(root.Invalid, "command", "the command holds a zero byte")
		}
		img.paths = append(img.paths, ptr)
	}
	return nil
}

// limit takes over capabilities (all says that the program keeps those that it
// may have), resource limits and the seccomp filter.
func (img *Image) limit(p *wire.Process, all bool) error {
	img.header.Version = unix.LINUX_CAPABILITY_VERSION_3
	var keep [2]uint32
	for _, c := range p.Capabilities {
		if c < 0 || c > 63 {
			return root.Fail(root.Invalid, "capabilities", "a capability is out of range")
		}
		keep[c/32] |= 1 << (c % 32)
	}
	for c := range lastCapability() + 1 {
		if keep[c/32]&(1<<(c%32)) == 0 {
			img.bounding = append(img.bounding, uintptr(c))
		}
	}
	if all {
		have, err := permitted()
		if err != nil {
			return root.Wrap(err, "read capabilities")
		}
		for i := range keep {
			img.caps[i] = unix.CapUserData{Effective: keep[i] & have[i], Permitted: keep[i] & have[i]}
		}
	}
	for _, l := range p.Rlimits {
		img.rlimits = append(img.rlimits, rlimit{uintptr(l.Type), unix.Rlimit{Cur: l.Soft, Max: l.Hard}})
	}
	var err error
	img.filter, err = Filter(p.Seccomp)
	return err
}

// Filter copies a seccomp filter (classic BPF, 8 bytes an instruction) to where it is aligned.
func Filter(b []byte) (unix.SockFprog, error) {
	if len(b) == 0 {
		return unix.SockFprog{}, nil
	}
	if len(b)%8 != 0 || len(b)/8 > maxFilter {
		return unix.SockFprog{}, root.Fail(root.Invalid, "seccomp", "the seccomp filter is malformed")
	}
	code := make([]unix.SockFilter, len(b)/8)
	for i := range code {
		in := b[i*8:]
		code[i] = unix.SockFilter{Code: binary.NativeEndian.Uint16(in), Jt: in[2], Jf: in[3], K: binary.NativeEndian.Uint32(in[4:])}
	}
	return unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}, nil
}

// lastCapability asks the kernel; /proc/sys may be out of reach.
var lastCapability = sync.OnceValue(func() int {
	for c := range 64 {
		if has, _, errno := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, uintptr(c), 0); errno != 0 || int(has) < 0 {
			return c - 1
		}
	}
	return 63
})

func permitted() (have [2]uint32, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err = unix.Capget(&header, &data[0])
	return [2]uint32{data[0].Permitted, data[1].Permitted}, err
}

// environment adds what a program expects and nobody has set.
func environment(p *wire.Process, home string) []string {
	env := p.Env
	if value(env, "HOME") == "" {
		kept := make([]string, 0, len(env)+2)
		for _, v := range env {
			if !strings.HasPrefix(v, "HOME=") {
				kept = append(kept, v)
			}
		}
		env = append(kept, "HOME="+or(home, "/"))
	}
	if p.TTY && value(env, "TERM") == "" {
		env = append(env, "TERM=xterm")
	}
	return env
}

// value returns the last value of name, as a C program's getenv after putenv has it.
func value(env []string, name string) (v string) {
	for _, e := range env {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			v = e[len(name)+1:]
		}
	}
	return v
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// makeWorkDir makes path and what is missing above it.
func makeWorkDir(path string) error {
	if err := unix.Access(path, unix.F_OK); err == nil {
		return nil
	}
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if err := unix.Mkdir(path[:i], 0o755); err != nil && err != unix.EEXIST {
				return err
			}
		}
	}
	return nil
}

// explain says in words why an image did not become its program.
func explain(p *wire.Process, stage, code uint32) error {
	errno := syscall.Errno(code)
	if stage >= stages {
		stage = 0
	}
	switch stage {
	case stageWorkDir:
		kind := root.Unable
		if errno == unix.ENOENT {
			kind = root.Missing
		}
		return root.Fail(kind, "workdir", "the working folder "+p.WorkDir+" cannot be entered: "+errno.Error())
	case stageExec:
		return explainExec(p.Args[0], errno)
	}
	return root.Fail(root.Internal, "", stageNames[stage]+": "+errno.Error())
}

// explainExec uses the words that docker's users know.
func explainExec(name string, errno syscall.Errno) error {
	bare := !strings.Contains(name, "/")
	quoted := `exec: "` + name + `": `
	switch {
	case (errno == unix.ENOENT || errno == unix.ENOTDIR) && bare:
		return root.Fail(root.Missing, "command", quoted+"executable file not found in $PATH")
	case errno == unix.ENOENT || errno == unix.ENOTDIR:
		if unix.Access(name, unix.F_OK) == nil {
			return root.Fail(root.Missing, "command", quoted+"no such file or directory: its interpreter is missing")
		}
		return root.Fail(root.Missing, "command", quoted+errno.Error())
	case errno == unix.EACCES && !bare:
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return root.Fail(root.Unable, "command", quoted+"is a directory")
		}
	case errno == unix.ENOEXEC:
		return root.Fail(root.Unable, "command", quoted+errno.Error()+": it is neither a program for "+runtime.GOARCH+" nor a script that begins with #!")
	}
	return root.Fail(root.Unable, "command", quoted+errno.Error())
}
