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

// threads counts a process's threads that are in the group with the given tasks file, and the others.
func threads(t *testing.T, tasks string, pid int) (in, out int) {
	all, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/cgroup")
	if err != nil || len(all) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	for _, file := range all {
		switch b, err := os.ReadFile(file); {
		case err != nil: // it ended
		case strings.Contains(string(b), "/"+filepath.Base(filepath.Dir(tasks))+"\n"):
			in++
		default:
			out++
		}
	}
	return in, out
}

func TestEveryoneIsInTheGroupMeantForIt(t *testing.T) {
	require.Root(t)
	theirs := group(t, "payload")
	s := inside(t, newSpec(t, "sh", "sleep 100"))
	s.Payload.Join = []string{theirs}
	self, err := os.Open(s.Payload.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	s.Payload.Path = "/proc/self/fd/4"
	st, err := Start(within10(t), Options{Binary: binary, Spec: s, Files: []*os.File{self}})
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
	if in, out := threads(t, theirs, r.PID); in == 0 || out > 0 {
		t.Errorf("of the payload's threads %d are in its group, %d are not", in, out)
	}
	for who, pid := range map[string]int{"keeper": r.KeeperPID, "daemon": os.Getpid()} {
		if in, _ := threads(t, theirs, pid); in > 0 {
			t.Errorf("%d threads of the %s joined", in, who)
		}
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
	if in, _ := threads(t, theirs, r.KeeperPID); in > 0 {
		t.Errorf("the exec moved %d threads of the keeper", in)
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
