package resource

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// room is what all groups of a test's root may have together: to them it is the host,
// so that "all that is left" can be taken without taking it from anybody else.
const room unit.Size = 160 * unit.MiB

// cached is the size of the file that the one with the guarantee has read.
const cached unit.Size = 64 * unit.MiB

// onV2 makes a root below which all groups together have little memory.
func onV2(t *testing.T) *Root {
	t.Helper()
	r := realRoot(t)
	require.Host(t, "cgroup-v2", r.homes["memory"] == r.unified, "memory is limited by cgroup v1")
	order(t, r.unified+"/memory.max", strconv.FormatInt(int64(room), 10))
	return r
}

func order(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// pages returns the page cache of a group.
func pages(t *testing.T, g *Group) unit.Size {
	t.Helper()
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return unit.Size(s.Memory.File)
}

// file makes a file that is in nobody's page cache: who reads it first is charged.
func file(t *testing.T) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err = f.Write(make([]byte, cached)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// squeezed has one group read a file and another then take all memory that it can get,
// until it is killed for it, and returns what the first still has of the file.
func squeezed(t *testing.T, r *Root, kept Share) unit.Size {
	t.Helper()
	first, other := create(t, r, "kept", Limits{}, 0), create(t, r, "other", Limits{}, 0)
	for id, s := range map[string]Share{"": kept, "kept": kept, "other": {Weight: 100, Memory: Unlimited}} {
		if err := r.Share(id, s); err != nil {
			t.Fatal(err)
		}
	}
	reader := spawn(t, first, "read "+file(t))
	if got := reader.step(t); got != "read <nil>" {
		t.Fatal(got)
	}
	if had := pages(t, first); had < cached {
		t.Fatalf("having read %s it has %s", cached, had)
	}
	greedy := spawn(t, other, "devour")
	if got := greedy.step(t); got != "EOF" {
		t.Fatalf("who takes all that there is says %q; want it killed", got)
	}
	s, err := other.Stats()
	if err != nil || s.Memory.Kills != 1 {
		t.Errorf("%d of those who took too much were killed, %v", s.Memory.Kills, err)
	}
	if s, err := first.Stats(); err != nil || s.Memory.Kills != 0 {
		t.Errorf("%d of those with a guarantee were killed, %v", s.Memory.Kills, err)
	}
	return pages(t, first)
}

// TestGuaranteedMemoryIsKept looks at both: that pages stay with a guarantee, and that
// they would not without.
func TestGuaranteedMemoryIsKept(t *testing.T) {
	for _, c := range []struct {
		name        string
		kept        unit.Size
		least, most unit.Size
	}{
		{"guaranteed", cached + 16*unit.MiB, cached - unit.MiB, room},
		{"not guaranteed", Unlimited, 0, cached / 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			left := squeezed(t, onV2(t), Share{Weight: 100, Memory: c.kept})
			t.Logf("of %s are left %s", cached, left)
			if left < c.least || left > c.most {
				t.Errorf("%s are left of %s; want %s to %s", left, cached, c.least, c.most)
			}
		})
	}
}

// TestMemoryCanBeAskedBack is about the file that memory which is not needed is asked
// back by.
func TestMemoryCanBeAskedBack(t *testing.T) {
	r := onV2(t)
	g := create(t, r, "a", Limits{}, 0)
	if got := spawn(t, g, "read "+file(t)).step(t); got != "read <nil>" {
		t.Fatal(got)
	}
	before := pages(t, g)
	order(t, r.unified+"/a/memory.reclaim", "32M")
	if after := pages(t, g); before-after < 30*unit.MiB {
		t.Errorf("%s before and %s after 32M were asked back", before, after)
	}
}

// TestIOLimitsAreWhatTheKernelSays reads back what was set for the disk of a folder.
func TestIOLimitsAreWhatTheKernelSays(t *testing.T) {
	r := onV2(t)
	disk, err := Disk(t.TempDir())
	require.Host(t, "block-device", err == nil, fmt.Sprint(err))
	disks := []string{disk}
	g := create(t, r, "a", Limits{}, 0)
	if err := g.Set(Limits{IO: IO{Disks: disks, Read: 10 * unit.MiB, Write: 20 * unit.MiB, ReadOps: 300, WriteOps: 400}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(g.dir("io") + "/io.max")
	if err != nil || !strings.Contains(string(text), "rbps=10485760 wbps=20971520 riops=300 wiops=400") {
		t.Errorf("io.max is %q, %v", text, err)
	}
	if err := g.Set(Limits{IO: IO{Disks: disks}}); err != nil {
		t.Fatal(err)
	}
	if text, _ = os.ReadFile(g.dir("io") + "/io.max"); strings.Contains(string(text), "bps=1") {
		t.Errorf("io.max is %q after the limits were taken away", text)
	}
}

func TestARateThatIsRefusedLeavesTheFormerOne(t *testing.T) {
	r := realRoot(t)
	disk, err := Disk(t.TempDir())
	require.Host(t, "block-device", err == nil, fmt.Sprint(err))
	g := create(t, r, "a", Limits{}, 0)
	dir, file := g.dir("io"), "io.max"
	if dir == "" {
		dir, file = g.dir("blkio"), "blkio.throttle.read_bps_device"
	}
	require.Host(t, "io", dir != "" && exists(dir+"/"+file), "the kernel limits no reads and writes")
	for _, before := range []IO{{}, {Read: 10 * unit.MiB, Disks: []string{disk}}} {
		if err := g.Set(Limits{IO: before}); err != nil {
			t.Fatal(err)
		}
		want, err := get(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Set(Limits{IO: IO{Read: 20 * unit.MiB, Disks: []string{disk, "1023:77"}}}); !fault.Is(err, fault.Unable) {
			t.Errorf("a disk that is not there: %v", err)
		}
		if got, err := get(dir, file); err != nil || got != want {
			t.Errorf("the rates are %q, %v; want %q", got, err, want)
		}
	}
}
