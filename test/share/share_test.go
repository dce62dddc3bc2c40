package share

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

const spin = "while :; do :; done"

// windows are how much processor time the environments take together while it is
// looked at, until what is seen is as promised. It is their own time that counts, so
// that a busy host makes a test longer, and nothing else.
var windows = []time.Duration{2 * time.Second, 10 * time.Second, 40 * time.Second}

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

// pin keeps all processes below pid, and it, on one processor.
func pin(t *testing.T, pid, processor int) {
	t.Helper()
	var set unix.CPUSet
	set.Set(processor)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, tid))
		for _, child := range strings.Fields(string(children)) {
			number, _ := strconv.Atoi(child)
			pin(t, number, processor)
		}
	}
}

// used returns how much processor time each environment takes until it is window for
// all of them together, and in how much time that was.
func used(t *testing.T, b *bed.Bed, window time.Duration, names ...string) (each []time.Duration, all, took time.Duration) {
	t.Helper()
	look := func() (all []time.Duration) {
		for _, name := range names {
			var s api.Stats
			read(t, b.Run("stats", "--json", name), &s)
			all = append(all, time.Duration(s.CPUTime))
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

func TestWeightsDivideAProcessor(t *testing.T) {
	b := bed.New(t)
	b.Run("run", "-d", "--name", "three", "--cpu-weight", "300", "busybox", "sh", "-c", spin)
	b.Run("run", "-d", "--name", "one", "busybox", "sh", "-c", spin)
	divided(t, b, 0.75)
	b.Run("set", "three", "cpu.weight=100") // live
	divided(t, b, 0.5)
}

// TestWeightsMeanTheSameAtEveryStratum has all pairs of strata divide a processor.
func TestWeightsMeanTheSameAtEveryStratum(t *testing.T) {
	require.Machines(t)
	b := bed.New(t)
	bed.Kernel(t, b)
	for _, pair := range [][2]string{{"guest", "zone"}, {"zone", "guest"}, {"machine", "zone"}, {"guest", "machine"}} {
		t.Run(pair[0]+" and "+pair[1], func(t *testing.T) {
			b := b.For(t)
			if slices.Contains(pair[:], "machine") {
				bed.MachineKernel(t, b)
			}
			for i, name := range []string{"three", "one"} {
				b.Run("run", "-d", "--name", name, "--stratum", pair[i], "--cpus", "1", "--cpu-weight", []string{"300", "100"}[i], "busybox", "sh", "-c", spin)
				t.Cleanup(func() { b.Try("rm", "-f", name) })
			}
			divided(t, b, 0.75)
		})
	}
}

// divided looks whether the environment three gets its part of one processor.
func divided(t *testing.T, b *bed.Bed, want float64) {
	t.Helper()
	for _, name := range []string{"three", "one"} {
		pin(t, show(t, b, name).PID, 0)
	}
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
	b := bed.New(t)
	var host api.Capacity
	read(t, b.Run("host", "capacity", "--json"), &host)
	names := []string{"kept"}
	b.Run("run", "-d", "--name", "kept", "--cpu-guarantee", "0.5", "busybox", "sh", "-c", spin)
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
