package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/history"
	"github.com/strata-project/strata/internal/stratum"
)

// Usage tells what the host and the environments that refs name, or all that run,
// used in the last second. It looks at nothing but memory. Who was told at since gets
// only what changed after that, where the same environments run still; the zero time
// gets all. Kinds: Missing, Conflict where one named does not run.
func (e *Engine) Usage(_ context.Context, refs []string, since time.Time) (api.UsageReport, error) {
	all, err := e.watched(refs)
	if err != nil {
		return api.UsageReport{}, err
	}
	s := &e.sampler
	s.mu.Lock()
	defer s.mu.Unlock()
	// A time that this daemon has not told is from before it began, or before a clock was set back.
	partial := !since.IsZero() && !since.Before(s.others) && !since.After(s.at)
	u := api.UsageReport{Time: s.at, Host: s.host, Partial: partial, Environments: []api.Usage{}}
	if !partial {
		u.Environments = make([]api.Usage, 0, len(all))
	}
	for _, w := range all {
		if t := s.tracks[w.row.ID]; t != nil && t.run == w.run && (!partial || t.changed.After(since)) {
			row := t.row
			row.Environment = w.row.Environment
			u.Environments = append(u.Environments, row)
		}
	}
	return u, nil
}

// History returns what is kept of an environment by a step: 1s, 1m or 1h.
// Kinds: Missing, Invalid.
func (e *Engine) History(_ context.Context, ref, step string) ([]api.HistoryPoint, error) {
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	by, ok := history.ParseStep(step)
	if !ok {
		return nil, fault.Invalidf("%q is no step of a history", step).At("step").Help("write 1s, 1m or 1h")
	}
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	t := e.sampler.tracks[en.id()]
	if t == nil {
		return nil, nil
	}
	var all []api.HistoryPoint
	for _, p := range t.history.Points(by) {
		all = append(all, api.HistoryPoint{
			At: time.Unix(p.At, 0).UTC(), CPU: int64(p.CPU), Memory: p.Memory, Processes: int64(p.Processes),
			Read: p.Read, Written: p.Written, Received: p.Received, Sent: p.Sent,
		})
	}
	return all, nil
}

// Resources tells what is counted of the environments that refs name, or of all that
// run. One that does not answer in time says so, and is waited for by no other.
// Kinds: Missing, Conflict where one named does not run.
func (e *Engine) Resources(ctx context.Context, refs []string) ([]api.ResourceTable, error) {
	all, err := e.watched(refs)
	if err != nil {
		return nil, err
	}
	ask := func(w watched) api.ResourceTable {
		table := e.resources(ctx, w)
		table.Missing = w.run.reason(table.Missing)
		return table
	}
	return eachOf(all, ask), ctx.Err()
}

func (e *Engine) resources(ctx context.Context, w watched) api.ResourceTable {
	table := api.ResourceTable{ID: w.row.ID, Environment: w.row.Environment, Stratum: w.row.Stratum, Time: time.Now()}
	counter, ok := w.run.live.(stratum.Counter)
	if !ok {
		table.Missing, table.Counters = "nothing is counted at stratum "+w.row.Stratum, []api.Counter{}
		return table
	}
	ctx, cancel := context.WithTimeout(ctx, w.run.patience(tasksPatience))
	defer cancel()
	none := stratum.NotCounted
	counts := stratum.Counts{Memory: none, Swap: none, Processes: none, HostMemory: none, CPU: none.Held, Throttled: none.Held,
		Throttles: none.Held, Read: none.Held, Written: none.Held, Silent: silent}
	answer := make(chan stratum.Counts, 1)
	go func() {
		c, err := counter.Counts(ctx)
		if err != nil {
			c = counts
			c.Silent = err.Error()
		}
		answer <- c
	}()
	select {
	case counts = <-answer:
	case <-ctx.Done():
	}
	table.Missing, table.Kills = counts.Silent, counts.Kills
	for name, p := range counts.Pressure {
		if table.Pressure == nil {
			table.Pressure = map[string]api.Pressure{}
		}
		table.Pressure[name] = api.Pressure{Some: p.Some, Full: p.Full}
	}
	table.Counters = e.counters(w, counts)
	return table
}

// counters makes the rows of a table: the same for every stratum.
func (e *Engine) counters(w watched, c stratum.Counts) []api.Counter {
	e.sampler.mu.Lock()
	var t track
	if have := e.sampler.tracks[w.row.ID]; have != nil && have.run == w.run {
		t.row, t.last, t.most, t.fill = have.row, have.last, have.most, have.fill
	}
	e.sampler.mu.Unlock()
	if en, err := e.find(w.row.ID); err == nil { // what is set is known before it is in a sample
		l := en.snapshot().Spec.Resources
		t.row.CPULimit, t.row.CPUGuarantee, t.row.MemoryGuarantee = int64(l.CPUs), int64(l.CPUGuarantee), int64(l.MemoryGuarantee)
		t.row.ReceivedLimit, t.row.SentLimit = int64(l.NetIn), int64(l.NetOut)
	}
	cpu := stratum.Count{Held: t.row.CPU, Most: t.most.CPU, Limit: t.row.CPULimit, Hits: c.Throttles}
	space := stratum.Count{Held: t.row.Disk, Most: t.most.Disk, Limit: t.row.DiskLimit, Hits: t.fill.hits()}
	if t.last.at.IsZero() {
		cpu.Held, cpu.Most, space.Held, space.Most = stratum.Unknown, stratum.Unknown, stratum.Unknown, stratum.Unknown
	}
	in, out := e.rates(w, t)
	rows := []api.Counter{
		row("memory", "bytes", c.Memory), row("swap", "bytes", c.Swap), row("processes", "count", c.Processes),
		row("cpu", "millicpu", cpu), total("cpu-time", "nanoseconds", c.CPU), total("throttled", "nanoseconds", c.Throttled),
		row("disk", "bytes", space), total("disk-read", "bytes", c.Read), total("disk-written", "bytes", c.Written),
		total("net-received", "bytes", t.row.ReceivedTotal), total("net-sent", "bytes", t.row.SentTotal),
		in, out,
		row("host-memory", "bytes", c.HostMemory),
	}
	for i := range rows {
		switch r := &rows[i]; {
		case r.Resource == "memory" && t.row.MemoryGuarantee > 0:
			r.Guarantee = &t.row.MemoryGuarantee
		case r.Resource == "cpu" && t.row.CPUGuarantee > 0:
			r.Guarantee = &t.row.CPUGuarantee
		}
	}
	return rows
}

func row(resource, unit string, c stratum.Count) api.Counter {
	r := api.Counter{Resource: resource, Unit: unit, Held: figure(c.Held), Most: figure(c.Most), Hits: figure(c.Hits)}
	if c.Limit > 0 {
		r.Limit = &c.Limit
	}
	return r
}

func total(resource, unit string, n int64) api.Counter {
	return api.Counter{Resource: resource, Unit: unit, Held: figure(n)}
}

func figure(n int64) *int64 {
	if n == stratum.Unknown {
		return nil
	}
	return &n
}

// eachOf asks all at once, and waits for all. Zones are the host's own work, so few
// at once are looked at; who waits for an agent uses nothing.
func eachOf[T any](all []watched, ask func(watched) T) []T {
	answers := make([]T, len(all))
	slots := make(chan struct{}, looks)
	done := make(chan struct{}, len(all))
	for i, w := range all {
		go func() {
			if w.row.Stratum == stratum.Zone {
				slots <- struct{}{}
				defer func() { <-slots }()
			}
			answers[i] = ask(w)
			done <- struct{}{}
		}()
	}
	for range all {
		<-done
	}
	return answers
}

func byName(all []watched) {
	slices.SortFunc(all, func(a, b watched) int { return strings.Compare(a.row.Environment, b.row.Environment) })
}
