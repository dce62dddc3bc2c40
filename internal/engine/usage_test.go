package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

func TestUsageIsSampled(t *testing.T) {
	l := prepared(t)
	o := l.options()
	o.Host = admission.Host{Memory: 1 << 30, CPUs: 2000}
	e, err := engine.Open(t.Context(), o)
	l.must(err)
	l.Engine = e
	t.Cleanup(func() { e.Close(context.Background()) })
	env := l.run(api.Spec{Name: "web", Resources: api.Resources{Memory: 64 << 20, PIDs: 99, CPUs: 1500, MemoryGuarantee: 32 << 20}})
	l.create(api.Spec{Name: "still"})
	var u api.UsageReport
	l.until("two samples", func() bool {
		var err error
		u, err = l.Usage(t.Context(), nil, time.Time{})
		l.must(err)
		return len(u.Environments) == 1 && u.Environments[0].CPU > 0
	})
	one := u.Environments[0]
	if one.ID != env.ID || one.Environment != "web" || one.State != api.Running || one.Stratum != "zone" || one.CPU < 450 || one.CPU > 550 ||
		one.Memory != 1<<20 || one.MemoryMost != 1<<20 || one.MemoryLimit != 64<<20 || one.Processes != 2 || one.ProcessesLimit != 99 || one.CPULimit != 1500 {
		t.Errorf("%+v", one)
	}
	if one.MemoryGuarantee != 32<<20 || u.Host.MemoryGuaranteed != (32+2-1)<<20 {
		t.Errorf("guaranteed: %d, of it and of strata's own 2M not held %d", one.MemoryGuarantee, u.Host.MemoryGuaranteed)
	}
	all, err := l.Resources(t.Context(), nil)
	l.must(err)
	if c := counterOf(t, all[0], "memory"); c.Guarantee == nil || *c.Guarantee != 32<<20 {
		t.Errorf("memory: %+v", c)
	}
	cpus, guarantee := unit.CPUs(700), unit.Size(16<<20)
	_, err = l.Update(t.Context(), "web", api.Update{CPUs: &cpus, MemoryGuarantee: &guarantee})
	l.must(err)
	all, err = l.Resources(t.Context(), nil) // at once, before another sample
	l.must(err)
	if c, m := counterOf(t, all[0], "cpu"), counterOf(t, all[0], "memory"); *c.Limit != 700 || *m.Guarantee != 16<<20 {
		t.Errorf("after a change: limit %d of processors, guarantee %d of memory", *c.Limit, *m.Guarantee)
	}
	h := u.Host
	if h.CPUs < 1 || h.Memory < 64<<20 || h.MemoryUsed <= 0 || h.MemoryFree <= 0 || h.MemoryUsed+h.MemoryShared+h.MemoryGuaranteed+h.MemoryFree != h.Memory {
		t.Errorf("host: %+v", h)
	}
	points, err := l.History(t.Context(), "web", "1s")
	if err != nil || len(points) == 0 || points[0].CPU < 450 || points[0].Memory != 1<<20 || time.Since(points[0].At) > time.Minute {
		t.Errorf("history: %+v, %v", points, err)
	}
	if _, err = l.History(t.Context(), "web", "7s"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a step that there is not: %v", err)
	}
	if points, err = l.History(t.Context(), "still", "1h"); err != nil || len(points) != 0 {
		t.Errorf("history of what never ran: %+v, %v", points, err)
	}
	if _, err = l.Usage(t.Context(), []string{"still"}, time.Time{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("usage of what does not run: %v", err)
	}
}

// TestWhatStandsStillIsLookedAtLess wants fewer looks at what stands still, and no figure
// that is wrong for it when it goes on.
func TestWhatStandsStillIsLookedAtLess(t *testing.T) {
	l := newLab(t)
	var looks, busySince atomic.Int64
	l.host.Sample = func(*enginetest.Run) stratum.Sample {
		looks.Add(1)
		s := stratum.Sample{CPU: 7, Memory: 1 << 20, Processes: 1}
		if since := busySince.Load(); since != 0 {
			s.CPU += (time.Now().UnixNano() - since) / 2
		}
		return s
	}
	l.run(api.Spec{Name: "web"})
	usage := func() (one api.Usage) {
		t.Helper()
		l.until("it is known", func() bool {
			u, err := l.Usage(t.Context(), nil, time.Time{})
			l.must(err)
			if len(u.Environments) == 1 {
				one = u.Environments[0]
			}
			return len(u.Environments) == 1
		})
		return one
	}
	seen := map[int64]bool{} // samples, by their time
	l.until("samples of what stands still", func() bool {
		u := usage()
		seen[u.Time.UnixNano()] = true
		if u.CPU != 0 || u.Memory != 1<<20 {
			t.Errorf("%+v", u)
		}
		return len(seen) >= 7
	})
	if n := looks.Load(); n > int64(len(seen))-2 {
		t.Errorf("%d looks for %d samples", n, len(seen))
	}
	busySince.Store(time.Now().UnixNano())
	most := int64(0)
	l.until("it is seen to work", func() bool {
		most = max(most, usage().CPU)
		return most > 400
	})
	if most > 600 {
		t.Errorf("half a processor is shown as %d thousandths", most)
	}
}

// TestWhoKnowsWhatWasUsedIsToldWhatChanged wants of two environments the busy one only,
// and all of them once another runs, or where the time that is known cannot be.
func TestWhoKnowsWhatWasUsedIsToldWhatChanged(t *testing.T) {
	l := newLab(t)
	l.host.Sample = func(r *enginetest.Run) stratum.Sample {
		s := stratum.Sample{CPU: 7, Memory: 1 << 20, Processes: 1}
		if r.Plan.Name == "busy" {
			s.CPU = time.Now().UnixNano() / 2
		}
		return s
	}
	l.run(api.Spec{Name: "busy"})
	l.run(api.Spec{Name: "still"})
	told := func(since time.Time) (u api.UsageReport) {
		t.Helper()
		u, err := l.Usage(t.Context(), nil, since)
		l.must(err)
		return u
	}
	var known api.UsageReport
	l.until("both are known", func() bool {
		known = told(time.Time{})
		return len(known.Environments) == 2 && !known.Partial
	})
	var u api.UsageReport
	l.until("one of them changes", func() bool {
		u = told(known.Time.Round(0)) // as it comes over the wire
		more := u.Time.After(known.Time)
		known = u
		return more && u.Partial && len(u.Environments) == 1
	})
	if u.Environments[0].Environment != "busy" || u.Host.Memory == 0 {
		t.Errorf("%+v", u)
	}
	if u = told(time.Now().Add(time.Hour)); u.Partial || len(u.Environments) != 2 {
		t.Errorf("since a time to come: %+v", u)
	}
	l.run(api.Spec{Name: "third"})
	l.until("it is known", func() bool { return len(told(time.Time{}).Environments) == 3 })
	if u = told(known.Time); u.Partial || len(u.Environments) != 3 {
		t.Errorf("when another runs: %+v", u)
	}
	known = u
	l.must(l.Kill(t.Context(), "third", "KILL"))
	l.until("it is seen that one is over", func() bool { u = told(known.Time); return !u.Partial && len(u.Environments) == 2 })
}

// counterOf returns the row of a resource.
func counterOf(t *testing.T, table api.ResourceTable, resource string) api.Counter {
	t.Helper()
	for _, c := range table.Counters {
		if c.Resource == resource {
			return c
		}
	}
	t.Fatalf("there is no row of %s in %+v", resource, table)
	return api.Counter{}
}

func TestResourcesAreCounted(t *testing.T) {
	l := newLab(t)
	release := make(chan struct{})
	defer close(release)
	l.host.Counts = func(_ context.Context, r *enginetest.Run) (stratum.Counts, error) {
		switch r.Plan.Name {
		case "deaf":
			<-release
		case "broken":
			return stratum.Counts{}, fault.Unablef("no counters today")
		}
		return stratum.Counts{
			Memory: stratum.Count{Held: 5, Most: 9, Limit: 64, Hits: 3}, Swap: stratum.NotCounted, Processes: stratum.Count{Held: 1, Most: stratum.Unknown, Limit: 0, Hits: 0},
			CPU: int64(time.Second), Read: stratum.Unknown, Kills: 4, Pressure: map[string]stratum.Pressure{"io": {Some: 2, Full: 1}},
		}, nil
	}
	for _, name := range []string{"web", "deaf", "broken"} {
		l.run(api.Spec{Name: name, Resources: api.Resources{CPUs: 500}})
	}
	begin := time.Now()
	all, err := l.Resources(t.Context(), nil)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	broken, deaf, web := all[0], all[1], all[2]
	if broken.Missing == "" || deaf.Missing == "" || web.Missing != "" || len(broken.Counters) != len(web.Counters) || len(deaf.Counters) != len(web.Counters) {
		t.Errorf("%+v", all)
	}
	if c := counterOf(t, deaf, "memory"); c.Held != nil || c.Most != nil || c.Hits != nil {
		t.Errorf("of who does not answer: %+v", c)
	}
	memory := counterOf(t, web, "memory")
	if *memory.Held != 5 || *memory.Most != 9 || *memory.Limit != 64 || *memory.Hits != 3 || memory.Guarantee != nil {
		t.Errorf("memory: %+v", memory)
	}
	if c := counterOf(t, web, "swap"); c.Held != nil {
		t.Errorf("swap: %+v", c)
	}
	if c := counterOf(t, web, "processes"); *c.Held != 1 || c.Most != nil || c.Limit != nil || *c.Hits != 0 {
		t.Errorf("processes: %+v", c)
	}
	if c := counterOf(t, web, "disk-read"); c.Held != nil {
		t.Errorf("disk-read: %+v", c)
	}
	if web.Kills != 4 || web.Pressure["io"] != (api.Pressure{Some: 2, Full: 1}) {
		t.Errorf("%+v", web)
	}
	l.until("the processor is sampled", func() bool {
		all, err := l.Resources(t.Context(), []string{"web"})
		l.must(err)
		c := counterOf(t, all[0], "cpu")
		return c.Held != nil && *c.Held > 400 && *c.Most >= *c.Held && *c.Limit == 500
	})
}
