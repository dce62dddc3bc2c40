package seccomp

import (
	"runtime"
	"slices"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Tool returns the default profile less what a program without capabilities does not
// need that works on a file and ends: of other architectures nothing, no socket, no request
// of a device's or a file system's own, no look into other processes, and none besides its
// own, though it may have threads. So one with capabilities can do little more by them than
// read. The filter is kept and shared: do not change it. Kinds: Unable for an architecture
// without tables.
var Tool = sync.OnceValues(func() (Filter, error) {
	kernel, err := Kernel()
	if err != nil {
		return nil, err
	}
	return compile(toolProfile(), target{arch: runtime.GOARCH, kernel: kernel})
})

// beyondTools is what the default profile allows and Tool does not.
var beyondTools = []string{
	"fork", "vfork", "clone", "socket", "socketcall", "socketpair", "ioctl",
	"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd",
}

func toolProfile() *moby.Seccomp {
	p := moby.DefaultProfile()
	p.ArchMap = nil
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(s.Names, func(name string) bool { return slices.Contains(beyondTools, name) })
	}
	p.Syscalls = append(p.Syscalls, &moby.Syscall{LinuxSyscall: specs.LinuxSyscall{
		Names: []string{"clone"}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Op: specs.OpMaskedEqual, Value: namespaces | unix.CLONE_THREAD, ValueTwo: unix.CLONE_THREAD}},
	}})
	return p
}

// namespaces are the flags of clone that make some. Source: linux/sched.h.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
