package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// canPin skips t where no controller binds groups to processors.
func canPin(t *testing.T, r *Root) {
	t.Helper()
	text, _ := get(filepath.Dir(r.unified), "cgroup.controllers")
	require.Host(t, "cpuset", r.cpuset != "" || r.nested && strings.Contains(text, cpuset), "no controller cpuset")
}

// runsOn is what processors a process may run on.
func runsOn(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return strings.TrimSpace(list)
		}
	}
	return ""
}

func TestAGroupIsBoundToProcessors(t *testing.T) {
	r := realRoot(t)
	canPin(t, r)
	ctx := t.Context()
	all := runsOn(t, os.Getpid())
	g, err := r.Create(ctx, "born", Limits{CPUSet: "0"}, DefaultDevices(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p := spawn(t, g, "wait")
	if got := runsOn(t, p.Process.Pid); got != "0" {
		t.Errorf("what starts in it runs on %s", got)
	}
	if err := g.Set(Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := runsOn(t, p.Process.Pid); got != all {
		t.Errorf("let go it runs on %s, want %s", got, all)
	}
	free, err := r.Create(ctx, "free", Limits{}, DefaultDevices(), 0)
	if err != nil {
		t.Fatal(err)
	}
	q := spawn(t, free, "wait")
	if err := free.Set(Limits{CPUSet: "0"}); err != nil {
		t.Fatal(err)
	}
	if got := runsOn(t, q.Process.Pid); got != "0" {
		t.Errorf("bound while it runs it is on %s", got)
	}
	if err := free.Set(Limits{CPUSet: "0,1000"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a processor that is not there: %v", err)
	}
	for _, one := range []*process{p, q} {
		one.Process.Kill()
		one.Wait()
	}
	for _, one := range []*Group{g, free} {
		if err := one.Remove(ctx); err != nil {
			t.Error(err)
		}
		if r.cpuset != "" && exists(r.cpuset+"/"+one.id) {
			t.Errorf("%s is left in cpuset", one.id)
		}
	}
}

func TestAGroupWithThreadedOnesBelowIsBound(t *testing.T) {
	r := realRoot(t)
	canPin(t, r)
	g, err := r.Create(t.Context(), "threads", Limits{}, DefaultDevices(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p := spawn(t, g, "wait")
	threaded := g.leaf(payloadLeaf) + "/threaded"
	err = os.Mkdir(threaded, 0o755)
	if err == nil {
		err = put(threaded, "cgroup.type", "threaded")
	}
	require.Host(t, "cgroup.type", err == nil, fmt.Sprint("no threaded groups: ", err))
	if err := g.Set(Limits{CPUSet: "0"}); err != nil {
		t.Error(err)
	}
	if got := runsOn(t, p.Process.Pid); got != "0" {
		t.Errorf("it runs on %s", got)
	}
	p.Process.Kill()
	p.Wait()
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProcessesThatComeFasterThanTheyAreBoundAreToldOf(t *testing.T) {
	home, dir := t.TempDir(), t.TempDir()
	const another = "/proc/sys/kernel/random/uuid" // in place of a number: each time that it is read there is another one
	if err := errors.Join(os.Mkdir(home+"/a", 0o755), os.Symlink(another, home+"/a/cgroup.procs"), os.WriteFile(dir+"/cgroup.procs", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	g := (&Root{unified: home}).group("a")
	if err := g.gather(dir); !fault.Is(err, fault.Busy) {
		t.Errorf("got %v", err)
	}
	// One that is ending stays where it is.
	home = t.TempDir()
	if err := errors.Join(os.Mkdir(home+"/a", 0o755), os.WriteFile(home+"/a/cgroup.procs", []byte("1\n2\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := (&Root{unified: home}).group("a").gather(dir); err != nil {
		t.Error(err)
	}
}
