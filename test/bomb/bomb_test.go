package bomb

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// Bounds of what is compared.
const (
	// turns are how often the bomb goes on and is paused, each for a turn.
	turns = 3

	// tick is what the scheduler's own grain makes of an answer on a host with nothing
	// else to do: up to here nothing is told apart. Source: Linux, CONFIG_HZ=250 and 100.
	tick = 10 * time.Millisecond

	// daemonMemory is what the daemon may hold, bombs or none, and logs what one
	// environment's output takes by its default: 3 files of 10M, and one being changed.
	daemonMemory = 256 << 20
	logs         = 42 << 20
)

var bombs = []struct {
	role  string
	flags []string
	seen  func(t *testing.T, b *bed.Bed, name string) // that it did go off
}{
	{"processes", []string{"--pids", "64"}, hits("processes")},
	{"memory", nil, hits("memory")},
	{"disk", nil, full},
	{"descriptors", nil, leaked},
	{"output", nil, logged},
	{"packets", []string{"--net-out", "1M"}, hits("net-out")},
}

func TestABombHurtsNobodyElse(t *testing.T) {
	b := bed.New(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func(name, role string, flags ...string) {
		args := append([]string{"run", "-d", "--name", name, "-v", self + ":/bomb:ro", "-e", acting + "=" + role}, flags...)
		b.Run(append(args, "busybox", "/bomb")...)
	}
	start("neighbour", "echo")
	start("asker", "echo")
	at := show(t, b, "neighbour").Network.IPv4 + ":7"
	for _, one := range bombs {
		t.Run(one.role, func(t *testing.T) {
			b := b.For(t)
			limits := []string{"--memory", "96M", "--pids", "128", "--cpus", "0.5", "--disk", "64M", "-e", "TARGET=" + at}
			start("bomb", one.role, append(limits, one.flags...)...)
			defer b.Run("rm", "-f", "bomb")
			compare(t, b, at)
			if one.seen != nil {
				one.seen(t, b, "bomb")
			}
			if env := show(t, b, "neighbour"); env.State != "running" || env.OOM != nil {
				t.Errorf("the neighbour is %s, killed in it: %v", env.State, env.OOM)
			}
			if held := resident(t, b.DaemonPID()); held > daemonMemory {
				t.Errorf("the daemon holds %d MiB", held>>20)
			}
			dir := filepath.Join(b.Places.State, "environments", show(t, b, "bomb").ID, "log")
			if size := sizeOf(t, dir); size > logs {
				t.Errorf("its output takes %d MiB", size>>20)
			}
		})
	}
}

// compare asks the neighbour with the bomb going on and with the bomb paused. A host that
// is busy with other things gets more than one more look.
func compare(t *testing.T, b *bed.Bed, at string) {
	t.Helper()
	tries := 2
	if waiting(t) > 2*runtime.NumCPU() {
		tries = 4
	}
	for try := 1; ; try++ {
		var with, without []time.Duration
		for range turns {
			b.Run("pause", "bomb")
			without = append(without, ask(t, b, at)...)
			b.Run("resume", "bomb")
			with = append(with, ask(t, b, at)...)
		}
		quiet, loud := percentile(without), percentile(with)
		t.Logf("99th percentile: %v of %d answers with the bomb, %v of %d without", loud, len(with), quiet, len(without))
		if loud <= max(2*quiet, tick) {
			return
		}
		if try == tries {
			t.Errorf("with the bomb the neighbour takes %v, without %v; want at most twice as much", loud, quiet)
			return
		}
	}
}

// waiting is how many threads ran or waited for a processor on average in the last minute.
func waiting(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	load, _ := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	return int(load)
}

// ask has one neighbour ask the other for a turn, and returns how long each answer took.
// Both have their part of the processors as the bomb has, which this test, on the host, has not.
func ask(t *testing.T, b *bed.Bed, at string) (took []time.Duration) {
	t.Helper()
	for line := range strings.Lines(b.Run("exec", "-e", acting+"=ask", "-e", "TARGET="+at, "asker", "/bomb")) {
		d, err := time.ParseDuration(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("the neighbour does not answer: %s", line)
		}
		took = append(took, d)
	}
	if len(took) < 100 {
		t.Fatalf("the neighbour answered %d times", len(took))
	}
	return took
}

func percentile(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

// hits wants that a limit was run into.
func hits(resource string) func(*testing.T, *bed.Bed, string) {
	return func(t *testing.T, b *bed.Bed, name string) {
		t.Helper()
		for end := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(time.Second) { // it is looked at each second
			var tables []api.ResourceTable
			decode(t, b.Run("resources", "--json", name), &tables)
			for _, c := range tables[0].Counters {
				if c.Resource == resource && c.Hits != nil && *c.Hits > 0 {
					return
				}
			}
			if time.Now().After(end) {
				t.Errorf("the limit of %s was not run into: the bomb did not go off", resource)
				return
			}
		}
	}
}

// full wants that the disk is, or was a moment ago, and that it was seen.
func full(t *testing.T, b *bed.Bed, name string) {
	t.Helper()
	hits("disk")(t, b, name)
	if env := show(t, b, name); env.DiskUsed < 32<<20 {
		t.Errorf("its disk holds %d MiB: the bomb did not go off", env.DiskUsed>>20)
	}
}

// leaked wants that the bomb holds descriptors without end: far more than any program needs.
func leaked(t *testing.T, b *bed.Bed, name string) {
	t.Helper()
	var list api.TaskList
	decode(t, b.Run("ps", "--json", name), &list)
	most := 0
	for _, p := range list.Processes {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.HostPID))
		most = max(most, len(open))
	}
	if most < 1000 {
		t.Errorf("it has %d descriptors: the bomb did not go off", most)
	}
}

func logged(t *testing.T, b *bed.Bed, name string) {
	t.Helper()
	if got := len(b.Run("logs", "--tail", "1000", name)); got < 50_000 {
		t.Errorf("%d bytes of its last output are kept: the bomb did not go off", got)
	}
}

func show(t *testing.T, b *bed.Bed, name string) (env api.Environment) {
	t.Helper()
	var all []api.Environment
	decode(t, b.Run("show", "--json", name), &all)
	return all[0]
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// resident is what a process holds of memory.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// sizeOf is what the files of a folder take.
func sizeOf(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil { // else it was just replaced
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
