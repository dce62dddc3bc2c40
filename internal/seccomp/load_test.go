package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/strata-project/strata/internal/require"
	"golang.org/x/sys/unix"
)

// childVariable makes the test binary load a filter and try things under it.
const childVariable = "STRATA_SECCOMP_CHILD"

func TestMain(m *testing.M) {
	if set, ok := os.LookupEnv(childVariable); ok {
		if err := underFilter(strings.Fields(set)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// attempts are system calls and what they answer for an app and for a system;
// without a filter, root is answered otherwise.
var attempts = []struct {
	name        string
	number      uintptr
	args        [3]uintptr
	app, system unix.Errno
}{
	{"mount", unix.SYS_MOUNT, [3]uintptr{}, unix.EPERM, unix.EFAULT},
	{"umount2 of a bad address", unix.SYS_UMOUNT2, [3]uintptr{1}, unix.EPERM, unix.EFAULT},
	{"setns without a descriptor", unix.SYS_SETNS, [3]uintptr{1 << 20}, unix.EPERM, unix.EBADF},
	{"unshare with flags nobody knows", unix.SYS_UNSHARE, [3]uintptr{1}, unix.EPERM, unix.EINVAL},
	{"clone into a user namespace", unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_FS}, unix.EPERM, unix.EINVAL},
	{"clone3", unix.SYS_CLONE3, [3]uintptr{}, unix.ENOSYS, unix.EINVAL},
	{"keyctl", unix.SYS_KEYCTL, [3]uintptr{99}, unix.EPERM, unix.EPERM},
	{"add_key", unix.SYS_ADD_KEY, [3]uintptr{}, unix.EPERM, unix.EPERM},
	{"a vsock socket", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK, 99}, unix.EPERM, unix.EPERM},
	{"a vsock socket with a high bit that the kernel drops", unix.SYS_SOCKET, [3]uintptr{unix.AF_VSOCK | 1<<32, 99}, unix.EPERM, unix.EPERM},
	{"an AF_ALG socket", unix.SYS_SOCKET, [3]uintptr{unix.AF_ALG, 99}, unix.EPERM, unix.EPERM},
	{"a unix socket of a bad type", unix.SYS_SOCKET, [3]uintptr{unix.AF_UNIX, 15}, unix.EINVAL, unix.EINVAL},
	{"personality of another kind", unix.SYS_PERSONALITY, [3]uintptr{0x0040000}, unix.EPERM, unix.EPERM},
	{"asking for the personality", unix.SYS_PERSONALITY, [3]uintptr{0xffffffff}, 0, 0},
	{"ptrace of nobody", unix.SYS_PTRACE, [3]uintptr{unix.PTRACE_CONT, 1 << 30}, unix.ESRCH, unix.ESRCH},
	{"bpf", unix.SYS_BPF, [3]uintptr{9999}, unix.EPERM, unix.EINVAL},
	{"init_module", unix.SYS_INIT_MODULE, [3]uintptr{}, unix.EPERM, unix.EPERM},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{}, unix.EPERM, unix.EPERM},
	{"getpid", unix.SYS_GETPID, [3]uintptr{}, 0, 0},
	{"a number that is no call", 9999, [3]uintptr{}, unix.EPERM, unix.EPERM},
}

// underFilter loads the filter as a zone's process does, handed over as bytes.
func underFilter(caps []string) error {
	runtime.LockOSThread()
	kernel, err := Kernel()
	if err != nil {
		return err
	}
	f, err := Default(caps, kernel)
	if err != nil {
		return err
	}
	if f, err = Parse(f.Bytes()); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	start := time.Now()
	if err := f.Load(0); err != nil {
		return err
	}
	took := time.Since(start)
	for _, a := range attempts {
		want := a.app
		if slices.Contains(caps, "CAP_SYS_ADMIN") {
			want = a.system
		}
		if _, _, got := unix.RawSyscall(a.number, a.args[0], a.args[1], a.args[2]); got != want {
			fmt.Printf("%s: %v, want %v\n", a.name, got, want)
		}
	}
	fmt.Printf("loaded in %v\n", took)
	return nil
}

func TestAProcessUnderTheFilter(t *testing.T) {
	require.Root(t) // so that what is refused is refused by the filter
	for name, caps := range map[string][]string{"an app": app, "a system": system} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{childVariable + "=" + strings.Join(caps, " ")}
			out, err := cmd.CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "loaded") {
				t.Errorf("%v\n%s", err, out)
			}
			t.Log(lines[len(lines)-1])
		})
	}
}

func TestLoadingIsRefusedInWords(t *testing.T) {
	var err error
	spare(func() { err = Filter{{Code: 0xffff}}.Load(0) })
	if err == nil || !strings.Contains(err.Error(), "load seccomp filter") {
		t.Errorf("got %v", err)
	}
	if err := (Filter{}).Load(0); err != nil {
		t.Errorf("an empty filter: %v", err)
	}
}

// TestThe32BitInterfaceIsFilteredToo runs a hand-made i386 program, under the
// filter: keyctl and then exit with the error's number.
func TestThe32BitInterfaceIsFilteredToo(t *testing.T) {
	require.Host(t, "amd64", runtime.GOARCH == "amd64", "the i386 interface is amd64's")
	path := filepath.Join(t.TempDir(), "keyctl32")
	if err := os.WriteFile(path, elf32([]byte{
		0xb8, 0x20, 0x01, 0x00, 0x00, // mov eax, 288 (keyctl)
		0xbb, 0x63, 0x00, 0x00, 0x00, // mov ebx, 99
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, // neg eax
		0x89, 0xc3, // mov ebx, eax
		0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1 (exit)
		0xcd, 0x80,
	}), 0o755); err != nil {
		t.Fatal(err)
	}
	status := func(filter bool) int {
		cmd := exec.Command(path)
		var err error
		spare(func() {
			if filter {
				err = loadHere()
			}
			if err == nil {
				err = cmd.Run()
			}
		})
		require.Host(t, "i386", cmd.ProcessState != nil, fmt.Sprint("32-bit programs do not run: ", err))
		return cmd.ProcessState.ExitCode()
	}
	if got := status(false); got == int(unix.EPERM) || got < 0 {
		require.Host(t, "i386", false, fmt.Sprintf("without a filter it exits with %d", got))
	}
	if got := status(true); got != int(unix.EPERM) {
		t.Errorf("keyctl through int 0x80 ended with %d, want EPERM", got)
	}
}

func loadHere() error {
	kernel, err := Kernel()
	if err != nil {
		return err
	}
	f, err := Default(system, kernel)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return f.Load(0)
}

// elf32 wraps code as a static i386 program. Source: elf.h, Elf32_Ehdr and Elf32_Phdr.
func elf32(code []byte) []byte {
	const base, head = 0x08048000, 52 + 32
	type header struct {
		ident                         [16]byte
		kind, machine                 uint16
		version, entry, phoff, shoff  uint32
		flags                         uint32
		ehsize, phsize, phnum         uint16
		shsize, shnum, shstr          uint16
		ptype, off, vaddr, paddr      uint32
		filesz, memsz, pflags, palign uint32
	}
	size := uint32(head + len(code))
	h := header{ident: [16]byte{0x7f, 'E', 'L', 'F', 1, 1, 1}, kind: 2, machine: 3, version: 1, entry: base + head, phoff: 52,
		ehsize: 52, phsize: 32, phnum: 1, ptype: 1, vaddr: base, paddr: base, filesz: size, memsz: size, pflags: 5, palign: 0x1000}
	return append((*[head]byte)(unsafe.Pointer(&h))[:], code...)
}

// BenchmarkLoad includes a fresh thread each time, as filters pile up on one.
func BenchmarkLoad(b *testing.B) {
	f, err := Default(app, Version{6, 1})
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		spare(func() {
			_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			start := time.Now()
			if err := f.Load(0); err != nil {
				b.Error(err)
			}
			took = append(took, time.Since(start))
		})
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "load-median-µs")
}

// spare runs work on a thread that ends with it, and that is not the first one,
// which would keep the filter.
func spare(work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			spare(work)
			return
		}
		work()
	}()
	<-done
}
