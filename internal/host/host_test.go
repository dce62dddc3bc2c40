package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/thread"
	"golang.org/x/sys/unix"
)

func answer(detail string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return detail, err }
}

func TestFindingsSayWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name    string
		try     func(context.Context) (string, error)
		ok      bool
		unknown bool
		detail  string
		fix     string
	}{
		{"what works needs no fix", answer("fine", nil), true, false, "fine", ""},
		{"no such call", answer("", unix.ENOSYS), false, false, "this kernel does not have it", "fix it"},
		{"no such file system", answer("erofs", unix.ENODEV), false, false, "erofs: this kernel has no such file system", "fix it"},
		{"not permitted", answer("", &os.PathError{Op: "open", Path: "/x", Err: unix.EPERM}), false, false, "not permitted", "fix it"},
		{"not judged", answer("opens", errUnknown), false, true, "opens", "fix it"},
		{"a probe that panics", func(context.Context) (string, error) { panic("bug") }, false, false, "the probe failed: bug", "fix it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := run(t.Context(), []probe{row(true, "thing", "tried", "all", "fix it", c.try)})[0]
			fix := c.fix
			if c.name == "not permitted" && os.Geteuid() != 0 {
				fix = "run it as root"
			}
			if f.OK != c.ok || f.Unknown != c.unknown || !strings.Contains(f.Detail, c.detail) || f.Fix != fix {
				t.Errorf("got %+v", f)
			}
		})
	}
}

func TestAProbeThatHangsIsLeftBehind(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	all := run(ctx, []probe{row(false, "hangs", "", "", "", func(context.Context) (string, error) { <-stuck; return "", nil }), row(true, "works", "", "", "", answer("", nil))})
	if all[0].Name != "works" || all[1].OK || !strings.Contains(all[1].Detail, "no answer") {
		t.Errorf("got %+v", all)
	}
}

func TestReadyNamesEveryNeed(t *testing.T) {
	err := Ready([]Finding{{Name: "a", Needed: true, OK: true}, {Name: "b", Needed: true, Detail: "gone", Fix: "bring it"}, {Name: "c"}, {Name: "d", Needed: true, Detail: "bad"}})
	all := fault.All(err)
	if len(all) != 2 || all[0].Message != "b: gone" || all[0].Hint != "bring it" || !fault.Is(err, fault.Unable) {
		t.Errorf("got %v", err)
	}
	if Ready(nil) != nil {
		t.Error("nothing is missing, yet not ready")
	}
}

func TestEveryProbeIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range probes("") {
		if p.Name == "" || p.How == "" || p.Lost == "" || p.try == nil || p.Fix == "" && p.Name != "KVM" || seen[p.Name] {
			t.Errorf("%+v", p.Finding)
		}
		seen[p.Name] = true
	}
}

// TestThisHost shows the findings, and proves that nothing is left behind.
func TestThisHost(t *testing.T) {
	require.Root(t)
	before := traces(t)
	start := time.Now()
	all := Check(t.Context(), "")
	took := time.Since(start)
	for _, f := range all {
		mark := "no"
		if f.OK {
			mark = "ok"
		} else if f.Unknown {
			mark = "??"
		}
		t.Logf("%s needed=%-5v %-20s %s", mark, f.Needed, f.Name, f.Detail)
	}
	t.Logf("took %v", took)
	for _, f := range all {
		if f.Name == "user namespaces" || f.Name == "overlay" || f.Name == "erofs" || f.Name == "seccomp filters" {
			require.Host(t, f.Name, f.OK, f.Detail)
		}
	}
	deadline := time.Now().Add(3 * time.Second)
	for after := traces(t); after != before; after = traces(t) {
		if time.Now().After(deadline) {
			t.Fatalf("left behind:\nbefore %s\nafter  %s", before, after)
		}
		time.Sleep(10 * time.Millisecond) // the kernel lets go of loop devices on its own time
	}
}

// traces lists what the check could leave: its own folders, groups, and loops.
func traces(t *testing.T) string {
	var all []string
	for _, pattern := range []string{"/var/tmp/.strata-check-*", "/var/lib/strata/.strata-check-*", "/sys/fs/cgroup/strata-check-*", "/sys/fs/cgroup/*/strata-check-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range backing {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "strata-check-") {
			all = append(all, file)
		}
	}
	return strings.Join(all, " ")
}

// TestAnOrdinaryUserIsToldSo runs the check as nobody.
func TestAnOrdinaryUserIsToldSo(t *testing.T) {
	require.Root(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{childVariable + "=1", "PATH=/usr/bin:/usr/sbin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.Host(t, "nobody", !errors.Is(err, os.ErrPermission), "the test binary cannot be run by that user")
	for _, want := range []string{"root: running as user 65534", "CAP_SYS_ADMIN: this process does not have it", "network namespaces: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWhatVolumesNeedIsNeeded makes a zone's volume without each capability.
func TestWhatVolumesNeedIsNeeded(t *testing.T) {
	require.Root(t)
	needed := map[string]bool{}
	for _, p := range capabilities() {
		needed[p.Name] = p.Needed
	}
	volume := func(without uintptr) (said string, err error) {
		failed := thread.Spare(func() error {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, without, 0, 0, 0); err != nil {
				return err
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{childVariable + "=" + t.TempDir()}
			out, wrong := cmd.CombinedOutput()
			said, err = string(out), wrong
			return nil
		})
		if failed != nil {
			t.Fatal(failed)
		}
		return said, err
	}
	if said, err := volume(unix.CAP_SYS_TIME); err != nil {
		t.Fatalf("with what strata needs: %v\n%s", err, said)
	}
	for name, bit := range map[string]uintptr{"CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT} {
		if said, err := volume(bit); (err != nil) != needed[name] {
			t.Errorf("without %s: %v\n%s, yet that it is needed is said to be %v", name, err, said, needed[name])
		}
	}
}

const childVariable = "STRATA_HOST_CHILD"

// volumeOf makes a volume of a folder, for environments of some range, in a process that
// is not dumpable, as the daemon is once package mount has acted as another user.
func volumeOf(path string) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	var maps mount.IDMaps
	defer maps.Close()
	users, err := maps.Get(context.Background(), mount.IDMap{Base: 7 * mount.IDs})
	if err != nil {
		return err
	}
	tree, err := mount.Bind(context.Background(), path, users, false)
	if err != nil {
		return err
	}
	return tree.Close()
}

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); filepath.IsAbs(path) {
		if err := volumeOf(path); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	} else if path != "" {
		for _, f := range fault.All(Ready(Check(context.Background(), ""))) {
			os.Stdout.WriteString(f.Message + " | " + f.Hint + "\n")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
