package zone_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
)

// BenchmarkTrue runs `true` in a fresh zone from a resident process: with limits,
// private disk and seccomp, without a network. It reports medians, and the
// processor time that a run takes.
func BenchmarkTrue(b *testing.B) {
	r := newRoot(b)
	r.layer = drivertest.Layer(b)
	ctx := context.Background()
	var starts, ends, cleans, drivers, zones []time.Duration
	one := func() {
		b.StopTimer()
		p := r.plan(b)
		p.Main = stratum.Process{Args: []string{"/bin/true"}, Env: []string{"PATH=/bin"}}
		p.Resources.Memory, p.Resources.PIDs, p.Resources.CPUs = 256<<20, 100, 1000
		spent := processorTime(b, syscall.RUSAGE_SELF)
		b.StartTimer()
		t0 := time.Now()
		live, err := r.driver.Start(ctx, p, stratum.StartOptions{})
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if e, err := live.Wait(ctx); err != nil || e.Status != 0 {
			b.Fatal(e, err)
		}
		t2 := time.Now()
		b.StopTimer()
		inside, err := live.Stats(ctx)
		if err != nil {
			b.Fatal(err)
		}
		drivers, zones = append(drivers, processorTime(b, syscall.RUSAGE_SELF)-spent), append(zones, time.Duration(inside.CPUTime))
		if _, err := r.driver.Clean(ctx, p.ID); err != nil {
			b.Fatal(err)
		}
		starts, ends, cleans = append(starts, t1.Sub(t0)), append(ends, t2.Sub(t1)), append(cleans, time.Since(t2))
		b.StartTimer()
	}
	one()
	starts, ends, cleans, drivers, zones = nil, nil, nil, nil, nil
	children := processorTime(b, syscall.RUSAGE_CHILDREN)
	for b.Loop() {
		one()
	}
	time.Sleep(100 * time.Millisecond) // for the last keeper
	b.ReportMetric(float64((processorTime(b, syscall.RUSAGE_CHILDREN)-children).Microseconds())/1000/float64(len(starts)), "keeper+zone-cpu-ms")
	report := func(name string, all []time.Duration) {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-ms")
	}
	report("start", starts)
	report("end", ends)
	report("clean", cleans)
	report("driver-cpu", drivers)
	report("zone-cpu", zones)
}

// processorTime is what a wall clock cannot tell on a busy machine.
func processorTime(b *testing.B, who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestMemoryOfPID1 shows what strata's own PID 1 costs while an app runs.
func TestMemoryOfPID1(t *testing.T) {
	r := newRoot(t)
	r.layer = drivertest.Layer(t)
	var all []int
	for range 8 { // the program's text, which all share, counts less with each
		p := r.plan(t)
		p.Main = stratum.Process{Args: []string{"/bin/sleep", "60"}}
		live, err := r.driver.Start(t.Context(), p, stratum.StartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			live.Kill(context.Background())
			live.Wait(context.Background())
			r.driver.Clean(context.Background(), p.ID)
		})
		time.Sleep(300 * time.Millisecond)
		all = append(all, pss(t, live.PID()), pss(t, live.KeeperPID()))
	}
	t.Logf("PSS of PID 1 and keeper in KiB, for 1 to 8 zones: %v", all)
	if last := all[len(all)-2]; last > 1024 {
		t.Errorf("PID 1 holds %d KiB; want at most 1024", last)
	}
}

func pss(t *testing.T, pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
