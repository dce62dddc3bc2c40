package share

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

var strata = []string{"zone", "guest", "machine"}

const spin = "while :; do :; done"

// windows are how much processor time the environments take together while it is
// looked at, until what is seen is as promised. It is their own time that counts, so
// that a busy host makes a test longer, and nothing else.
var windows = []time.Duration{3 * time.Second, 15 * time.Second, 60 * time.Second}

// patience bounds a look, on a host that gives them next to nothing.
const patience = 5 * time.Minute

func show(t *testing.T, b *bed.Bed, name string) api.Environment {
	t.Helper()
	var e api.Environment
	read(t, b.Run("show", "--json", name), &e)
	return e
}

// read takes one value, or the first of a list of one.
func read(t *testing.T, text string, into any) {
	t.Helper()
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "[") {
		text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// group returns the folder of an environment's control group in the unified hierarchy.
func group(t *testing.T, b *bed.Bed, name string) string {
	t.Helper()
	e := show(t, b, name)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", e.PID))
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(text), "0::")
	path, _, _ = strings.Cut(path, "\n")
	before, after, ok := strings.Cut(path, "/"+e.ID)
	if !ok {
		t.Fatalf("the control group of %s is %s", name, text)
	}
	mark, _, _ := strings.Cut(after, "/")
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(top + "/cgroup.controllers"); err != nil {
		top += "/unified"
	}
	return top + before + "/" + e.ID + mark
}

// spent is the processor time of all processes in a control group. The kernel says it,
// as the agent of a guest that gets next to nothing takes its time.
func spent(t *testing.T, group string) time.Duration {
	t.Helper()
	text, err := os.ReadFile(group + "/cpu.stat")
	require.Host(t, "cgroup-unified", !os.IsNotExist(err), "no unified hierarchy counts processor time")
	_, after, _ := strings.Cut(string(text), "usage_usec ")
	line, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return time.Duration(n) * time.Microsecond
}

// used returns how much processor time each environment takes until it is window for
// all of them together, and in how much time that was.
func used(t *testing.T, b *bed.Bed, window time.Duration, names ...string) (each []time.Duration, all, took time.Duration) {
	t.Helper()
	var groups []string
	for _, name := range names {
		groups = append(groups, group(t, b, name))
	}
	look := func() (all []time.Duration) {
		for _, g := range groups {
			all = append(all, spent(t, g))
		}
		return all
	}
	before, began := look(), time.Now()
	each = make([]time.Duration, len(names))
	for all < window {
		if time.Since(began) > patience {
			t.Fatalf("within %v they take %v of processors", patience, all)
		}
		time.Sleep(window / 4)
		all = 0
		for i, now := range look() {
			each[i] = now - before[i]
			all += each[i]
		}
	}
	return each, all, time.Since(began)
}

// pair starts two busy environments of the weights 300 and 100 on one processor, each at
// its stratum, beside an idle one whose weight is larger than theirs: what is idle takes
// no part, nor does it bring its stratum anything.
func pair(t *testing.T, b *bed.Bed, three, one string) {
	t.Helper()
	b.Run("run", "-d", "--name", "idle", "--cpu-weight", "1000", "busybox", "sleep", "1000000")
	t.Cleanup(func() { b.Try("rm", "-f", "idle", "three", "one") })
	for _, e := range [][3]string{{"three", three, "300"}, {"one", one, "100"}} {
		// None is busy while the other boots on the same processor.
		b.Run("run", "-d", "--name", e[0], "--stratum", e[1], "--cpu-weight", e[2], "--cpus", "1", "--cpuset-cpus", "0", "busybox",
			"sh", "-c", "until [ -e /go ]; do sleep 0.2; done; "+spin)
	}
	b.Run("exec", "three", "touch", "/go")
	b.Run("exec", "one", "touch", "/go")
}

func TestWeightsDivideAProcessor(t *testing.T) {
	b := bed.New(t)
	pair(t, b, "zone", "zone")
	divided(t, b, 0.75)
	b.Run("set", "three", "cpu.weight=100") // live
	divided(t, b, 0.5)
}

// TestWeightsMeanTheSameAtEveryStratum has all other pairs of strata divide a processor.
func TestWeightsMeanTheSameAtEveryStratum(t *testing.T) {
	require.Machines(t)
	b := bed.New(t)
	bed.Kernel(t, b)
	bed.MachineKernel(t, b)
	for _, three := range strata {
		for _, one := range strata {
			if three == "zone" && one == "zone" {
				continue
			}
			t.Run(three+" beside "+one, func(t *testing.T) {
				b := b.For(t)
				pair(t, b, three, one)
				divided(t, b, 0.75)
			})
		}
	}
}

// divided looks whether the environment three gets its part of the processor.
func divided(t *testing.T, b *bed.Bed, want float64) {
	t.Helper()
	var part float64
	for _, window := range windows {
		each, all, took := used(t, b, window, "three", "one")
		part = each[0].Seconds() / all.Seconds()
		t.Logf("within %v: %v and %v, %.1f %% of both", took, each[0], each[1], 100*part)
		if math.Abs(part-want) <= 0.05 {
			return
		}
	}
	t.Errorf("it gets %.1f %%, want %.0f within 5", 100*part, 100*want)
}

// TestAGuaranteeHoldsAgainstBusyNeighbours counts in processors of those that all of
// strata gets: what is busy on the host besides it was promised nothing, and takes of
// all of them.
func TestAGuaranteeHoldsAgainstBusyNeighbours(t *testing.T) {
	for _, stratum := range strata {
		t.Run(stratum, func(t *testing.T) {
			if stratum != "zone" {
				require.Machines(t)
			}
			holds(t, stratum)
		})
	}
}

func holds(t *testing.T, stratum string) {
	t.Helper()
	b := bed.New(t)
	switch stratum {
	case "guest":
		bed.Kernel(t, b)
	case "machine":
		bed.MachineKernel(t, b)
	}
	var host api.Capacity
	read(t, b.Run("host", "capacity", "--json"), &host)
	names := []string{"kept"}
	b.Run("run", "-d", "--name", "kept", "--stratum", stratum, "--cpus", "1", "--cpu-guarantee", "0.5", "busybox", "sh", "-c", spin)
	for i := range 8 {
		// Without a guarantee it would get a seventeenth of the host.
		names = append(names, fmt.Sprint("n", i))
		b.Run("run", "-d", "--name", names[i+1], "--cpu-weight", "200", "busybox", "sh", "-c", spin)
	}
	var got float64
	for _, window := range windows {
		each, all, took := used(t, b, window, names...)
		got = each[0].Seconds() / all.Seconds() * float64(host.CPUs.Host) / 1000
		t.Logf("within %v: %v of %v, %.3f processors", took, each[0], all, got)
		if got >= 0.45 {
			return
		}
	}
	t.Errorf("guaranteed 0.5 processors, it gets %.3f", got)
}

func TestWhatTheHostCannotKeepIsRefusedOrWaits(t *testing.T) {
	b := bed.New(t)
	var host api.Capacity
	read(t, b.Run("host", "capacity", "--json"), &host)
	most := strconv.FormatFloat(float64(host.CPUs.Capacity)/1000, 'f', -1, 64)
	b.Run("run", "-d", "--name", "first", "--cpu-guarantee", most, "busybox", "sleep", "1000")
	b.Run("create", "--name", "second", "--cpu-guarantee", "0.2", "busybox", "sleep", "1000")
	refused := b.Try("start", "second")
	if refused.Status != 8 || !strings.Contains(refused.Stderr, "first "+most) || !strings.Contains(refused.Stderr, "0.2 asked for") {
		t.Errorf("start = %+v; want it refused with the arithmetic", refused)
	}
	b.SignalDaemon(unix.SIGKILL, true)
	b.StartDaemon()
	if again := b.Try("start", "second"); again.Status != 8 {
		t.Errorf("start after a restart of the daemon = %+v", again)
	}
	waited := make(chan bed.Output, 1)
	go func() { waited <- b.Try("start", "--queue=5m", "second") }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if read(t, b.Run("host", "capacity", "--json"), &host); len(host.Waiting) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing waits")
		}
	}
	b.Run("set", "first", "cpu.guarantee=0.1") // makes room, live
	if r := <-waited; r.Status != 0 {
		t.Errorf("start --queue = %+v", r)
	}
	if r := b.Try("set", "first", "cpu.guarantee="+most); r.Status != 8 {
		t.Errorf("set = %+v; want it refused", r)
	}
	if e := show(t, b, "first"); e.Spec.Resources.CPUGuarantee != 100 {
		t.Errorf("a refused set left %s", e.Spec.Resources.CPUGuarantee)
	}
}
