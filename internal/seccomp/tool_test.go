package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestAToolHasThreadsAndFilesAndNothingElse(t *testing.T) {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	const allow, nosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	const refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	cases := map[string]struct {
		call  string
		first uint64
		want  uint32
	}{
		"a file":                           {"openat", 0, allow},
		"its place":                        {"pwrite64", 0, allow},
		"its room":                         {"fallocate", 0, allow},
		"memory":                           {"mmap", 0, allow},
		"the stage's last step":            {"execve", 0, allow},
		"a thread":                         {"clone", thread, allow},
		"a thread with a namespace":        {"clone", thread | unix.CLONE_NEWUSER, refuse},
		"a process":                        {"clone", uint64(unix.SIGCHLD), refuse},
		"a process that shares its memory": {"clone", unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD), refuse},
		"a process by another call":        {"clone3", 0, nosys},
		"a process by an old call":         {"fork", 0, refuse},
		"an internet socket":               {"socket", unix.AF_INET, refuse},
		"a unix socket":                    {"socket", unix.AF_UNIX, refuse},
		"a pair of sockets":                {"socketpair", unix.AF_UNIX, refuse},
		"another's memory":                 {"process_vm_readv", 1, refuse},
		"tracing":                          {"ptrace", unix.PTRACE_ATTACH, refuse},
		"keys":                             {"keyctl", 0, refuse},
		"namespaces":                       {"unshare", unix.CLONE_NEWUSER, refuse},
		"mounts":                           {"mount", 0, refuse},
		"mounts by another call":           {"open_tree", 0, refuse},
		"a change of a mount":              {"mount_setattr", 0, refuse},
		"files past all names":             {"open_by_handle_at", 3, refuse},
		"a file system's own requests":     {"ioctl", 3, refuse},
		"programs in the kernel":           {"bpf", 0, refuse},
		"requests past the filter":         {"io_uring_setup", 1, refuse},
	}
	tried := map[string]bool{}
	for goarch, native := range native {
		f, err := compile(toolProfile(), target{arch: goarch, kernel: Version{6, 1}})
		if err != nil {
			t.Fatal(err)
		}
		tb := tables[native]
		for name, c := range cases {
			for _, known := range tb.calls {
				if known.name != c.call {
					continue
				}
				tried[name] = true
				if got, _, err := run(f, data{number: known.number, arch: tb.audit, args: [6]uint64{c.first}}); err != nil || got != c.want {
					t.Errorf("%s, %s: %#x, %v, want %#x", goarch, name, got, err, c.want)
				}
			}
		}
		for _, foreign := range []uint32{unix.AUDIT_ARCH_I386, auditARM} {
			if got, _, err := run(f, data{number: 1, arch: foreign}); err != nil || got != unix.SECCOMP_RET_KILL_PROCESS {
				t.Errorf("%s, a call of architecture %#x: %#x, %v", goarch, foreign, got, err)
			}
		}
	}
	if len(tried) != len(cases) {
		t.Errorf("only tried: %v", tried)
	}
}
