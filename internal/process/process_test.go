package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/require"
)

func TestAProcessIsRead(t *testing.T) {
	cmd := exec.Command("sleep", "6543")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	var p Process
	for end := time.Now().Add(require.Patience(10 * time.Second)); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var ok bool
		if p, ok = NewReader().Read(cmd.Process.Pid); !ok {
			t.Fatal("it is not there")
		}
		if p.Command == "sleep 6543" && p.Memory > 0 { // it is executed by now, and has begun
			break
		}
	}
	if p.Command != "sleep 6543" || p.Parent != os.Getpid() || p.UID != uint32(os.Geteuid()) || p.Memory < 4096 || p.Kernel {
		t.Errorf("%+v", p)
	}
	if p.Age < 0 || p.Age > int64(time.Hour) {
		t.Errorf("its age is %s", time.Duration(p.Age))
	}
}

func TestProcessorTimeIsCounted(t *testing.T) {
	before, _ := NewReader().Read(os.Getpid())
	var used syscall.Rusage
	for used.Utime.Nano()+used.Stime.Nano() < before.CPU+int64(100*time.Millisecond) {
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			t.Fatal(err)
		}
	}
	after, ok := NewReader().Read(os.Getpid())
	if spent := time.Duration(after.CPU - before.CPU); !ok || spent < 50*time.Millisecond {
		t.Errorf("%s of processor time, of more than 100ms", spent)
	}
}

func TestTheNumberInsideANamespaceIsTold(t *testing.T) {
	require.Root(t)
	cmd := exec.Command("sleep", "6544")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if p, ok := NewReader().Read(cmd.Process.Pid); !ok || p.Inside != 1 || p.PID != cmd.Process.Pid {
		t.Errorf("%+v", p)
	}
}

func TestWhatIsGoneIsLeftOut(t *testing.T) {
	if p, ok := NewReader().Read(1 << 30); ok {
		t.Errorf("%+v", p)
	}
}

func TestUsersAreThoseOfTheRoot(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "etc"), 0o755)
	passwd := filepath.Join(root, "etc/passwd")
	for name, c := range map[string]struct {
		make func() error
		want string
	}{
		"a file": {func() error {
			return os.WriteFile(passwd, []byte("root:x:0:0::/:\nal\x1b:x:7:7::/:\nother:x:7:7\n"), 0o644)
		}, "al"},
		"nothing":        {func() error { return nil }, "7"},
		"a pipe":         {func() error { return syscall.Mkfifo(passwd, 0o644) }, "7"},
		"a link outside": {func() error { return os.Symlink("../../../../../../../../etc/passwd", passwd) }, "7"},
		"a link of its own": {func() error {
			os.WriteFile(filepath.Join(root, "etc/real"), []byte("linked:x:7:7::/:\n"), 0o644)
			return os.Symlink("/etc/real", passwd)
		}, "linked"},
		"a link of /proc's": {func() error { return os.Symlink("/proc/self/root/etc/passwd", passwd) }, "7"},
	} {
		os.Remove(passwd)
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		if got := UsersOf(root).Name(7); got != c.want {
			t.Errorf("%s: user 7 is %q, not %q", name, got, c.want)
		}
	}
}

func TestUsersOfAnotherFileSystemAreNotAsked(t *testing.T) {
	root := t.TempDir()
	os.Mkdir(filepath.Join(root, "etc"), 0o755)
	require.Root(t)
	if err := syscall.Mount("tmpfs", filepath.Join(root, "etc"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(filepath.Join(root, "etc"), syscall.MNT_DETACH)
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("a:x:7:7::/:\n"), 0o644)
	if got := UsersOf(root).Name(7); got != "7" {
		t.Errorf("user 7 is %q", got)
	}
}

func TestIDsAreTurnedRound(t *testing.T) {
	m := parseIDs([]byte("         0     100000       1000\n      1000     300000          1\n"))
	for outside, inside := range map[uint32]uint32{100000: 0, 100999: 999, 101000: Nobody, 300000: 1000, 0: Nobody, 1<<32 - 1: Nobody} {
		if got := m.Inside(outside); got != inside {
			t.Errorf("%d is %d inside, not %d", outside, got, inside)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a) b) c) S 1 12 12 0 -1 4194304 0 0 0 0 3 4 0 0 20 0 1 0 100 1 5 0"), []byte("Uid:\t1\t2\t3\t4\nNSpid:\t12\t3\n"), []byte("a:b:3:c"))
	f.Add([]byte(")("), []byte("Uid:\nNSpid:\t-1\t-5"), []byte(":::::"))
	f.Fuzz(func(t *testing.T, stat, status, passwd []byte) {
		var p Process
		var a, b int64
		name, _ := parseStat(stat, &p, &a, &b)
		parseStatus(status, &p)
		u := parseUsers(passwd)
		for _, text := range []string{name, u.Name(3), printable(stat)} {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) || len(text) > 3*maxCommand {
				t.Errorf("%q", text)
			}
		}
		if p.Inside < 0 {
			t.Errorf("%+v", p)
		}
	})
}
