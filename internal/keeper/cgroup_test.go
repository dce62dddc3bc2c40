package keeper

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// group makes a cgroup in the v1 hierarchy of process counts.
func group(t *testing.T, name string) (tasks string) {
	dir := "/sys/fs/cgroup/pids/strata-keeper-test-" + strconv.Itoa(os.Getpid()) + "-" + name
	err := os.Mkdir(dir, 0o755)
	require.Host(t, "cgroup-v1", err == nil, "no group can be made in the pids hierarchy of cgroup v1")
	t.Cleanup(func() {
		eventually(t, "the end of the group's last process", func() bool { return os.Remove(dir) == nil })
	})
	return dir + "/tasks"
}

// in tells whether every thread of a process is in the group with the given tasks file.
func in(t *testing.T, tasks string, pid int) bool {
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/cgroup")
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(b), "/"+filepath.Base(filepath.Dir(tasks))+"\n") {
			return false
		}
	}
	return true
}

func TestEveryoneIsInTheGroupMeantForIt(t *testing.T) {
	require.Root(t)
	own, theirs := group(t, "keeper"), group(t, "payload")
	s := inside(t, newSpec(t, "sh", "sleep 100"))
	s.Payload.Join = []string{theirs}
	self, err := os.Open(s.Payload.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	s.Payload.Path = "/proc/self/fd/4"
	st, err := Start(within10(t), Options{Binary: binary, Spec: s, Files: []*os.File{self}, KeeperJoin: []string{own}})
	if err != nil {
		t.Fatal(err)
	}
	k, err := st.Go(within10(t))
	if err != nil {
		st.Abort(within10(t))
		t.Fatal(err)
	}
	r := &live{Keeper: k, t: t, dir: t.TempDir(), spec: s, gone: st.gone}
	defer func() {
		r.Signal(within10(t), 9)
		wait(t, r.gone)
	}()
	if !in(t, own, r.KeeperPID) || !in(t, theirs, r.PID) {
		t.Error("keeper or payload is in the wrong group")
	}
	if in(t, own, os.Getpid()) || in(t, theirs, os.Getpid()) {
		t.Error("a thread of the daemon joined")
	}
	e := shell("cat /proc/self/cgroup")
	e.Join = []string{theirs}
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	// The group of the payload is the root of its cgroup namespace.
	if out, _, _ := c.rest(); !strings.Contains(string(out), ":pids:/\n") {
		t.Errorf("the exec'd program is in\n%s", out)
	}
	if !in(t, own, r.KeeperPID) {
		t.Error("the exec moved a thread of the keeper")
	}
}

func TestAnExecIsBornInItsUnifiedGroup(t *testing.T) {
	require.Root(t)
	dir := ""
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			dir = root + "/strata-keeper-test-" + strconv.Itoa(os.Getpid())
			break
		}
	}
	err := os.Mkdir(dir, 0o755)
	require.Host(t, "cgroup-unified", err == nil, "no group can be made in the hierarchy of cgroup v2")
	t.Cleanup(func() {
		eventually(t, "the end of the group's last process", func() bool { return os.Remove(dir) == nil })
	})
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	e := shell("cat /proc/self/cgroup")
	e.Join = []string{dir + "/cgroup.procs"}
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, _ := c.rest(); !strings.Contains(string(out), "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("the exec'd program is in\n%s", out)
	}
	e.Join = []string{dir + "-none/cgroup.procs"}
	if _, err := r.exec(e); fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "start a program inside") {
		t.Errorf("a group that is not there: %v", err)
	}
}
