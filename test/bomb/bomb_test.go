package bomb

import (
	"cmp"
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
	// turns are how often the bomb goes on, each between two in which it is paused, and
	// looks how often so many at most.
	turns, looks = 5, 3

	// grain is what is not told apart: a tick of a kernel with 250 of them in a second, and the
	// switch behind it. Who wakes where another runs may have to wait for the tick, whoever that
	// is: one that only computes, with these limits, makes of 0.25 ms 3.4. Source: Linux,
	// CONFIG_HZ, kernel/sched/fair.c, RUN_TO_PARITY; docs/measurements.md. On a host that is
	// busy with other things it is as much for each that a processor has to serve.
	grain = 5 * time.Millisecond

	// daemonMemory is what the daemon may hold, bombs or none, and logs what one
	// environment's output takes by its default: 3 files of 10M, and one being changed.
	daemonMemory = 256 << 20
	logs         = 42 << 20
)

type bomb struct {
	role  string
	flags []string
	seen  func(t *testing.T, b *bed.Bed, name string) // that it did go off
}

var bombs = []bomb{
	{"processes", []string{"--pids", "64"}, hits("processes")},
	{"memory", nil, hits("memory")},
	{"disk", nil, full},
	{"descriptors", nil, leaked},
	{"output", nil, logged},
	{"packets", []string{"--net-out", "1M"}, hits("net-out")},
}

func TestABombHurtsNobodyElse(t *testing.T) {
	b := bed.New(t)
	p := newPlace(t, b, "zone")
	for _, one := range bombs {
		t.Run(one.role, func(t *testing.T) { p.blast(t, one, "zone") })
	}
}

// TestABombOfItsOwnKernelHurtsNobodyElse has the same go off inside guests and machines,
// whose QEMU is what the host sees of them.
func TestABombOfItsOwnKernelHurtsNobodyElse(t *testing.T) {
	require.Machines(t)
	b := bed.New(t)
	bed.Kernel(t, b)
	bed.MachineKernel(t, b)
	p := newPlace(t, b, "zone")
	for _, stratum := range []string{"guest", "machine"} {
		for _, one := range bombs {
			t.Run(stratum+"/"+one.role, func(t *testing.T) { p.blast(t, one, stratum) })
		}
	}
}

// TestAGuestIsNotHurtByABomb has a guest for the neighbour of a zone that takes all it can.
func TestAGuestIsNotHurtByABomb(t *testing.T) {
	require.Machines(t)
	b := bed.New(t)
	bed.Kernel(t, b)
	p := newPlace(t, b, "guest")
	for _, one := range bombs {
		if one.role == "processes" || one.role == "memory" {
			t.Run(one.role, func(t *testing.T) { p.blast(t, one, "zone") })
		}
	}
}

// place is where bombs go off: beside a neighbour that answers and one, a zone, that asks it.
type place struct {
	b    *bed.Bed
	self string // this test's program, which is what runs inside
	at   string // where the neighbour answers
}

func newPlace(t *testing.T, b *bed.Bed, neighbour string) place {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := place{b: b, self: self}
	p.start("neighbour", neighbour, "echo")
	p.start("asker", "zone", "echo")
	p.at = show(t, b, "neighbour").Network.IPv4 + ":7"
	return p
}

func (p place) start(name, stratum, role string, flags ...string) {
	args := append([]string{"run", "-d", "--name", name, "--stratum", stratum, "-v", p.self + ":/bomb:ro", "-e", acting + "=" + role}, flags...)
	p.b.Run(append(args, "busybox", "/bomb")...)
}

func (p place) blast(t *testing.T, one bomb, stratum string) {
	p.b = p.b.For(t)
	b := p.b
	stay := "0.3"
	if stratum != "zone" {
		stay = "3" // what starts them may be emulated, and takes its time
	}
	limits := []string{"--memory", "96M", "--pids", "128", "--cpus", "0.5", "--disk", "64M", "-e", "TARGET=" + p.at, "-e", "STAY=" + stay}
	p.start("bomb", stratum, one.role, append(limits, one.flags...)...)
	defer b.Run("rm", "-f", "bomb")
	compare(t, b, p.at)
	one.seen(t, b, "bomb")
	if env := show(t, b, "neighbour"); env.State != "running" || env.OOM != nil {
		t.Errorf("the neighbour is %s, killed in it: %v", env.State, env.OOM)
	}
	if env := show(t, b, "bomb"); env.State != "running" {
		t.Errorf("the bomb is %s: %+v", env.State, env.Exit)
	}
	if held := resident(t, b.DaemonPID()); held > daemonMemory {
		t.Errorf("the daemon holds %d MiB", held>>20)
	}
	dir := filepath.Join(b.Places.State, "environments", show(t, b, "bomb").ID, "log")
	if size := sizeOf(t, dir); size > logs {
		t.Errorf("its output takes %d MiB", size>>20)
	}
}

// compare asks the neighbour with the bomb paused and with the bomb going on, in turns, and
// takes the median of what each turn is to the two beside it. Where that is too much it asks
// for as many turns again, as the host may have been busy with other things.
func compare(t *testing.T, b *bed.Bed, at string) {
	t.Helper()
	quiet := func() time.Duration {
		b.Run("pause", "bomb")
		defer b.Run("resume", "bomb")
		return percentile(ask(t, b, at))
	}
	var ratios []float64
	var loud, still []time.Duration
	before := quiet()
	for range looks {
		for range turns {
			with := percentile(ask(t, b, at))
			after := quiet()
			ratios = append(ratios, with.Seconds()/((before+after).Seconds()/2))
			loud, still, before = append(loud, with), append(still, after), after
		}
		t.Logf("99th percentiles with the bomb %v, without %v: %.2f times as much", loud, still, median(ratios))
		if median(ratios) <= 2 || median(loud) <= grain*time.Duration(max(1, waiting(t)/runtime.NumCPU())) {
			return
		}
	}
	t.Errorf("with the bomb the neighbour takes %v, %.2f times as much as without; want at most twice", median(loud), median(ratios))
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

func median[T cmp.Ordered](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
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
		for end := time.Now().Add(require.Patience(time.Minute)); ; time.Sleep(time.Second) { // it is looked at each second
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
	most := int64(0)
	for end := time.Now().Add(require.Patience(time.Minute)); most < 32<<20; time.Sleep(50 * time.Millisecond) {
		if most = max(most, show(t, b, name).DiskUsed); time.Now().After(end) {
			t.Errorf("its disk holds %d MiB at most: the bomb did not go off", most>>20)
			return
		}
	}
}

// leaked wants that the bomb holds descriptors without end: far more than any program needs.
func leaked(t *testing.T, b *bed.Bed, name string) {
	t.Helper()
	const many = 1000
	most := 0
	if env := show(t, b, name); env.Stratum == "zone" {
		var list api.TaskList
		decode(t, b.Run("ps", "--json", name), &list)
		for _, p := range list.Processes {
			open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.HostPID))
			most = max(most, len(open))
		}
	} else if out := b.Try("exec", name, "cat", "/proc/sys/fs/file-nr"); strings.Contains(out.Stderr, "too many open files in system") {
		return // its own kernel has none left
	} else if out.Status == 0 {
		most, _ = strconv.Atoi(strings.Fields(out.Stdout)[0])
	}
	if most < many {
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
