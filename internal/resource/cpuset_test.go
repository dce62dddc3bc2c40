package resource

import (
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
