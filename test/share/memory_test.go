package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/test/bed"
)

// The memory that all zones of the test have together, which is the whole host to
// them; what one has guaranteed, and what it reads.
const (
	room       = unit.Size(256 * unit.MiB)
	guaranteed = unit.Size(96 * unit.MiB)
	reads      = 80 // MiB
)

func number(t *testing.T, path string) unit.Size {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return unit.Size(n)
}

// TestGuaranteedMemoryStaysWhileANeighbourTakesTheRest looks at what a zone holds that
// has read a file, before and after another has taken all memory until it was killed
// for it: with a guarantee and, so that it is seen to be that, without.
func TestGuaranteedMemoryStaysWhileANeighbourTakesTheRest(t *testing.T) {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	require.Host(t, "cgroup-v2", err == nil, "cgroup v1 keeps no memory for anybody")
	b := bed.New(t)
	read := fmt.Sprintf("dd if=/dev/zero of=/file bs=1M count=%d && sync && cat /file >/dev/null", reads)
	b.Run("run", "-d", "--name", "kept", "--memory-guarantee", guaranteed.String(), "busybox", "sleep", "100000")
	dir := group(t, b, "kept")
	if err := os.WriteFile(filepath.Dir(dir)+"/memory.max", []byte(strconv.FormatInt(int64(room), 10)), 0); err != nil {
		t.Fatal(err)
	}
	squeeze := func() (before, after unit.Size) {
		b.Run("exec", "kept", "sh", "-c", read)
		before = number(t, dir+"/memory.current")
		if out := b.Try("run", "--rm", "--name", "greedy", "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=1G", "count=1"); out.Status != 137 {
			t.Fatalf("who takes all memory ends with %+v; want it killed", out)
		}
		after = number(t, dir+"/memory.current")
		t.Logf("it holds %s before and %s after", before, after)
		return before, after
	}
	before, after := squeeze()
	if before < reads*unit.MiB {
		t.Fatalf("having read %d MiB it holds %s", reads, before)
	}
	if after < min(before, guaranteed)-4*unit.MiB {
		t.Errorf("%s are guaranteed; it held %s and is left with %s", guaranteed, before, after)
	}
	b.Run("set", "kept", "memory.guarantee=0") // live
	if _, after := squeeze(); after > guaranteed/2 {
		t.Errorf("without a guarantee it is left with %s: the neighbour did not take the rest", after)
	}
	if out := b.Try("exec", "kept", "true"); out.Status != 0 {
		t.Errorf("it does not run any more: %+v", out)
	}
}
