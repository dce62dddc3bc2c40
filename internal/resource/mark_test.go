package resource

import (
	"slices"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

// TestMarksAreApartInOneRoot has groups of one id under two marks and under none: to each
// its own alone, all below the one root, which goes with the last.
func TestMarksAreApartInOneRoot(t *testing.T) {
	r := realRoot(t)
	all := []*Root{r, r.Marked("vm"), r.Marked("hw")}
	var running []*process
	for i, one := range all {
		g := create(t, one, "a", Limits{PIDs: int64(20 + i)}, 0)
		if got := g.whole("cpu"); got != r.homes["cpu"]+"/a"+one.mark {
			t.Errorf("its folder is %s", got)
		}
		p := spawn(t, g, "wait")
		running = append(running, p)
		if pids, err := g.Processes(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
			t.Errorf("%q has %v, %v", one.mark, pids, err)
		}
	}
	for i, one := range all {
		if ids, err := one.List(); err != nil || !slices.Equal(ids, []string{"a"}) {
			t.Errorf("%q lists %v, %v", one.mark, ids, err)
		}
		g, err := one.Find("a")
		if err != nil {
			t.Fatal(err)
		}
		if s, err := g.Stats(); err != nil || s.PIDs.Limit != int64(20+i) {
			t.Errorf("%q has a limit of %d, %v", one.mark, s.PIDs.Limit, err)
		}
		if err := one.Share("a", Share{Weight: 100 + 100*i, Memory: Unlimited}); err != nil {
			t.Error(err)
		}
	}
	if _, err := r.Find("a.vm"); !fault.Is(err, fault.Missing) {
		t.Errorf("another's group was found by its folder: %v", err)
	}
	if _, err := r.Create(t.Context(), "b.vm", Limits{}, DefaultDevices(), 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("an id with a mark: %v", err)
	}
	for i, one := range all {
		g, _ := one.Find("a")
		if err := g.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = running[i].Wait()
		if err := one.Remove(t.Context()); err != nil {
			t.Errorf("remove of %q: %v", one.mark, err)
		}
		if there := exists(r.homes["cpu"]); there != (i+1 < len(all)) {
			t.Errorf("after the groups of %q were removed, the root is there: %v", one.mark, there)
		}
	}
}
