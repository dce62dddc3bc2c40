package share

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/test/bed"
)

// v1Bed is a strata on a host whose memory cgroup v1 limits, and that is all the test's:
// there a guarantee is about the whole host's memory running short, not that of a group.
func v1Bed(t *testing.T) *bed.Bed {
	t.Helper()
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.soft_limit_in_bytes")
	require.Host(t, "cgroup-v1", err == nil, "memory is not limited by cgroup v1, or by a kernel without soft limits")
	require.Host(t, "own-machine", os.Getenv("STRATA_TEST_OWN_MACHINE") != "", "it takes all memory of the host (scripts/test-v2 --v1 has one for it)")
	return bed.New(t)
}

// charged is what a group of v1 holds: page cache, and the memory of programs.
func charged(t *testing.T, b *bed.Bed, name string) (cache, programs unit.Size) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", show(t, b, name).PID))
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(text), ":memory:")
	path, _, _ = strings.Cut(path, "\n")
	stat, err := os.ReadFile("/sys/fs/cgroup/memory" + path + "/memory.stat")
	if err != nil {
		t.Fatal(err)
	}
	return figure(t, string(stat), "total_cache "), figure(t, string(stat), "total_rss ")
}

// figure reads the number behind a word at the beginning of a line.
func figure(t *testing.T, text, word string) unit.Size {
	t.Helper()
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return unit.Size(n)
		}
	}
	t.Fatalf("there is no %q in %s", word, text)
	return 0
}

// free is what the host's kernel could give to a program.
func free(t *testing.T) unit.Size {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	return figure(t, string(text), "MemAvailable:") << 10
}

// TestOnV1AGuaranteeKeepsFilesFromWhoReads has a neighbour read far more than the host has
// memory for: with a guarantee, and without.
func TestOnV1AGuaranteeKeepsFilesFromWhoReads(t *testing.T) {
	b := v1Bed(t)
	b.Run("run", "-d", "--name", "kept", "--memory-guarantee", guaranteed.String(), "busybox", "sleep", "100000")
	b.Run("run", "-d", "--name", "reader", "busybox", "sleep", "100000")
	b.Run("exec", "kept", "sh", "-c", fmt.Sprintf("dd if=/dev/zero of=/file bs=1M count=%d && sync", reads))
	squeeze := func() (before, after unit.Size) {
		// Read once, it is the first that a kernel in need gives up.
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			t.Fatal(err)
		}
		b.Run("exec", "kept", "sh", "-c", "cat /file >/dev/null")
		before, _ = charged(t, b, "kept")
		more := free(t) + 500*unit.MiB
		b.Run("exec", "reader", "sh", "-c", fmt.Sprintf("truncate -s %d /big && cat /big >/dev/null && rm /big", more))
		after, _ = charged(t, b, "kept")
		t.Logf("of its files it has %s before %s are read and %s after", before, more, after)
		return before, after
	}
	before, after := squeeze()
	if before < reads*unit.MiB {
		t.Fatalf("having read %d MiB it has %s", reads, before)
	}
	if after < min(before, guaranteed)-8*unit.MiB {
		t.Errorf("%s are guaranteed; of %s are left %s", guaranteed, before, after)
	}
	b.Run("set", "kept", "memory.guarantee=0") // live
	if before, after := squeeze(); after > before-16*unit.MiB {
		t.Errorf("without a guarantee %s are left: the neighbour did not need the rest", after)
	}
}

// TestOnV1AGuaranteeKeepsProgramsInMemory has a neighbour take more than the host has left,
// where there is room to swap to.
func TestOnV1AGuaranteeKeepsProgramsInMemory(t *testing.T) {
	b := v1Bed(t)
	swap := filepath.Join(t.TempDir(), "swap")
	for _, command := range [][]string{
		{"dd", "if=/dev/zero", "of=" + swap, "bs=1M", "count=400"}, {"chmod", "600", swap}, {"mkswap", swap}, {"swapon", swap},
	} {
		if out, err := exec.Command("busybox", command...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v, %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("busybox", "swapoff", swap).CombinedOutput(); err != nil {
			t.Errorf("%v, %s", err, out)
		}
	})
	b.Run("run", "-d", "--name", "kept", "--memory-guarantee", guaranteed.String(), "busybox",
		"sh", "-c", fmt.Sprintf("dd if=/dev/zero bs=%dM count=1 | sleep 100000", reads))
	squeeze := func() (before, after unit.Size) {
		for end := time.Now().Add(bed.Patience); before < reads*unit.MiB; _, before = charged(t, b, "kept") {
			if time.Now().After(end) {
				t.Fatalf("its programs have %s", before)
			}
		}
		more := free(t) + 150*unit.MiB
		b.Run("run", "--rm", "--name", "taker", "busybox", "dd", "if=/dev/zero", "of=/dev/null", fmt.Sprint("bs=", int64(more)), "count=1")
		_, after = charged(t, b, "kept")
		t.Logf("its programs have %s before %s are taken and %s after", before, more, after)
		return before, after
	}
	before, after := squeeze()
	if after < before-8*unit.MiB {
		t.Errorf("%s are guaranteed; of %s are left %s", guaranteed, before, after)
	}
	b.Run("set", "kept", "memory.guarantee=0")
	if _, after := squeeze(); after > before-8*unit.MiB {
		t.Errorf("without a guarantee %s are left: the neighbour did not need the rest", after)
	}
}

// TestOnV1WhoTakesAllMemoryIsKilledForIt has a neighbour take what is not there, beside one
// that holds more but is within its guarantee: the kernel left to itself would choose that.
// Files v1 keeps for nobody then; they can be read again.
func TestOnV1WhoTakesAllMemoryIsKilledForIt(t *testing.T) {
	b := v1Bed(t)
	const holds = 300 // MiB
	b.Run("run", "-d", "--name", "kept", "--memory-guarantee", unit.Size((holds+30)*unit.MiB).String(), "busybox",
		"sh", "-c", fmt.Sprintf("dd if=/dev/zero bs=%dM count=1 | sleep 100000", holds))
	b.Run("exec", "kept", "sh", "-c", "dd if=/dev/zero of=/file bs=1M count=20 && sync && cat /file >/dev/null")
	var files, own unit.Size
	for end := time.Now().Add(bed.Patience); own < holds*unit.MiB; files, own = charged(t, b, "kept") {
		if time.Now().After(end) {
			t.Fatalf("its programs have %s", own)
		}
	}
	left := free(t)
	if left >= own {
		t.Fatalf("%s are left: who takes them holds more than the %s of its neighbour", left, own)
	}
	greedy := b.Try("run", "--rm", "--name", "greedy", "busybox", "dd", "if=/dev/zero", "of=/dev/null", fmt.Sprint("bs=", int64(left+100*unit.MiB)), "count=1")
	filesAfter, ownAfter := charged(t, b, "kept")
	t.Logf("with %s left to take: of %s of files are left %s, of %s of its own %s", left, files, filesAfter, own, ownAfter)
	if greedy.Status != 137 {
		t.Errorf("who takes all memory ends with %+v; want it killed", greedy)
	}
	if ownAfter < own-unit.MiB {
		t.Errorf("%dM are guaranteed; of %s of its own memory are left %s", holds+30, own, ownAfter)
	}
	if e := show(t, b, "kept"); e.State != "running" || e.OOM != nil {
		t.Errorf("who is within its guarantee is %s, killed in it: %v", e.State, e.OOM)
	}
}
