package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/require"
)

// user owns nothing on any host.
const user = 1_900_000_007

func TestAConfinedMachineBootsAndCanDoNothingElse(t *testing.T) {
	require.Root(t)
	m := start(t, options{confine: true, user: user})
	if got := m.ask("write /dev/vdb"); got != "written" {
		t.Fatal(got)
	}
	proc := fmt.Sprintf("/proc/%d", m.cmd.Process.Pid)
	text, err := os.ReadFile(proc + "/status")
	must(t, err)
	if said := m.errors.String(); strings.Contains(said, "ailed to") || strings.Contains(said, "ould not") {
		t.Errorf("QEMU misses something: %s", said)
	}
	none := "0000000000000000"
	id := fmt.Sprint(user, user, user, user)
	for name, want := range map[string]string{
		"Uid": id, "Gid": id, "Groups": "", "Seccomp": "2", "NoNewPrivs": "1",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
	} {
		if got := field(string(text), name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	text, err = os.ReadFile(proc + "/limits")
	must(t, err)
	if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), "Max core file size 0 0") {
		t.Error("it may leave a core")
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		must(t, err)
		if theirs, err := os.Readlink(proc + "/ns/" + ns); err != nil || theirs == ours {
			t.Errorf("it is in the host's %s namespace (%v)", ns, err)
		}
	}
	t.Run("files", func(t *testing.T) { confinedFiles(t, proc) })
	t.Run("writing", func(t *testing.T) { confinedWrites(t, m.cmd.Process.Pid) })
}

// confinedFiles: what it sees.
func confinedFiles(t *testing.T, proc string) {
	entries, err := os.ReadDir(proc + "/root")
	must(t, err)
	may := []string{"initramfs", "lib", "lib32", "lib64", "libx32", "dev", "usr", "vmlinux", "etc"}
	below := []string{"null", "ld.so.cache", "bin", "qemu-system-x86_64", "share", "qemu", "seabios", "local"}
	for _, e := range entries {
		if !slices.Contains(may, e.Name()) {
			t.Errorf("it sees /%s", e.Name())
		}
	}
	for _, dir := range []string{"dev", "etc", "usr", "usr/bin", "usr/share", "usr/local"} {
		entries, _ := os.ReadDir(filepath.Join(proc, "root", dir))
		for _, e := range entries {
			if name := e.Name(); !slices.Contains(below, name) && !strings.HasPrefix(name, "lib") {
				t.Errorf("it sees /%s/%s", dir, name)
			}
		}
	}
	text, err := os.ReadFile(proc + "/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[4] == "/dev/null" {
			continue
		}
		for _, option := range []string{"ro", "nosuid", "nodev"} {
			if !slices.Contains(strings.Split(f[5], ","), option) {
				t.Errorf("%s is mounted %s", f[4], f[5])
			}
		}
	}
	fds, err := os.ReadDir(proc + "/fd")
	must(t, err)
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err == nil && strings.HasPrefix(to, "/") && !strings.HasSuffix(to, "/disk") && !strings.HasSuffix(to, "/template") && to != "/dev/null" {
			t.Errorf("it holds %s", to)
		}
	}
}

// confinedWrites tries every folder of the root as its user.
func confinedWrites(t *testing.T, pid int) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestWritesNowhere$", "-test.v")
	cmd.Env = []string{rootVariable + "=" + fmt.Sprintf("/proc/%d/root", pid)}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "folders tried") {
		t.Errorf("%v: %s", err, out)
	}
}

const rootVariable = "STRATA_TEST_CONFINED_ROOT"

// TestWritesNowhere is the child of confinedWrites.
func TestWritesNowhere(t *testing.T) {
	root := os.Getenv(rootVariable)
	if root == "" {
		t.Skip("it is run by another test")
	}
	top, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err, unix.Fchdir(int(top.Fd())), unix.Chroot("."))
	must(t, syscall.Setgroups(nil), syscall.Setresgid(user, user, user), syscall.Setresuid(user, user, user))
	tried := 0
	err = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // what cannot be entered cannot be written to
		}
		tried++
		if f, err := os.Create(filepath.Join(path, "strata-test")); err == nil {
			f.Close()
			os.Remove(f.Name())
			t.Errorf("it can write to %s", path)
		}
		return nil
	})
	must(t, err)
	t.Logf("%d folders tried", tried)
}

func TestAConfinedMachineThatCannotStartSaysWhy(t *testing.T) {
	require.Root(t)
	for sentence, c := range map[string]struct {
		spec confine.Spec
		want string
	}{
		"a program that is not there":    {confine.Spec{Program: "/nonesuch/qemu", User: user, First: 4, Last: 4}, "clone /nonesuch/qemu: no such file"},
		"a kernel that is not there":     {confine.Spec{Program: "/usr/bin/true", User: user, First: 4, Last: 4, Show: []confine.Shown{{Path: "/nonesuch/vmlinux", At: "/vmlinux"}}}, "clone /nonesuch/vmlinux"},
		"a device that is not there":     {confine.Spec{Program: "/usr/bin/true", User: user, First: 4, Last: 4, Devices: []string{"/dev/nonesuch"}}, "clone /dev/nonesuch"},
		"a descriptor that is not there": {confine.Spec{Program: "/usr/bin/true", User: user, First: 4, Last: 40}, "keep a descriptor"},
		"root is no machine's user":      {confine.Spec{Program: "/usr/bin/true", First: 4, Last: 4}, "not those of a machine"},
		"descriptors below its own":      {confine.Spec{Program: "/usr/bin/true", User: user, First: 2, Last: 4}, "not those of a machine"},
	} {
		t.Run(sentence, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			null, err := os.Open("/dev/null")
			must(t, err)
			defer null.Close()
			cmd := exec.CommandContext(ctx, "/proc/self/exe")
			cmd.Args, cmd.ExtraFiles = c.spec.Encode(), []*os.File{null, null}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// keys is the argument by which this program tries, in the place of QEMU, to read a key.
const keys = "keys"

func readKey(id string) int {
	n, err := strconv.Atoi(id)
	if err == nil {
		_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, n, make([]byte, 64), 64)
	}
	fmt.Println("the key:", err)
	_, err = unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "strata-test", 0)
	fmt.Println("the session:", err)
	return 0
}

func TestAConfinedProgramHasNoKeysOfTheDaemons(t *testing.T) {
	require.Root(t)
	runtime.LockOSThread() // for good: this thread's keys are others' no more
	_, err := unix.KeyctlJoinSessionKeyring("strata-test")
	require.Host(t, "keys", !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM), fmt.Sprint(err))
	must(t, err)
	id, err := unix.AddKey("user", "strata-test", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	for sentence, c := range map[string]struct {
		args  []string
		stage bool
		want  string
	}{
		"the daemon's own": {[]string{self, keys, strconv.Itoa(id)}, false, "the key: <nil>\nthe session: <nil>\n"},
		"a confined one": {confine.Spec{Program: self, Args: []string{keys, strconv.Itoa(id)}, User: user, First: 4, Last: 4}.Encode(), true,
			"the key: permission denied\nthe session: required key not available\n"},
	} {
		cmd := exec.Command(self)
		cmd.Args, cmd.ExtraFiles = c.args, []*os.File{null, null}
		if c.stage {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
		}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want {
			t.Errorf("%s: %v: %s", sentence, err, out)
		}
	}
}

// BenchmarkStage: what the stage adds to the start of a program.
func BenchmarkStage(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	run := func(b *testing.B, args []string) {
		for b.Loop() {
			null, _ := os.Open("/dev/null")
			cmd := exec.Command("/proc/self/exe")
			if args[0] != "strata-agent" {
				cmd = exec.Command(args[0])
			}
			cmd.Args, cmd.ExtraFiles = args, []*os.File{null, null}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
			if agent := os.Getenv("STRATA_BENCH_AGENT"); agent != "" && args[0] == "strata-agent" {
				cmd.Path = agent
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			null.Close()
		}
	}
	b.Run("without", func(b *testing.B) { run(b, []string{"/usr/bin/true"}) })
	b.Run("with", func(b *testing.B) {
		run(b, confine.Spec{Program: "/usr/bin/true", User: user, First: 4, Last: 4}.Encode())
	})
}
