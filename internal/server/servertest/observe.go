package servertest

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

// running returns those that refs name, or all that run, the oldest first.
func (e *Engine) running(ctx context.Context, refs []string) (all []api.Environment, err error) {
	if len(refs) == 0 {
		return e.List(ctx, engine.ListFilter{States: []api.State{api.Running}}), nil
	}
	for _, ref := range refs {
		env, err := e.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		if env.State != api.Running {
			return nil, fault.Conflictf("environment %s is %s", env.Name, env.State)
		}
		all = append(all, env)
	}
	return all, nil
}

// Tasks implements server.Observation: each has a shell; one called silent does not answer.
func (e *Engine) Tasks(ctx context.Context, refs []string) (api.TaskList, error) {
	all, err := e.running(ctx, refs)
	list := api.TaskList{Time: time.Now(), Processes: []api.Task{}}
	for _, env := range all {
		t := api.Task{ID: env.ID, Environment: env.Name, Stratum: env.Stratum}
		if env.Name == "silent" {
			t.Missing = "it did not answer in time"
		} else {
			t.PID, t.HostPID, t.User, t.Command = 1, 4321, "root", "sh -c \x1b[2Jx"
			t.CPUTime, t.Age, t.Memory = int64(62030*time.Millisecond), int64(124060*time.Millisecond), 3<<19
		}
		list.Processes = append(list.Processes, t)
	}
	return list, err
}

// Usage implements server.Observation.
func (e *Engine) Usage(ctx context.Context, refs []string, _ time.Time) (api.UsageReport, error) {
	all, err := e.running(ctx, refs)
	u := api.UsageReport{Time: time.Unix(1700000000, 0).UTC(), Environments: []api.Usage{}, Host: api.HostUsage{
		CPUs: 4, CPU: 1500, Memory: 8 << 30, MemoryUsed: 3 << 30, MemoryShared: 2 << 30, MemoryGuaranteed: 1 << 30, MemoryFree: 2 << 30,
		Pressure: map[string]api.Pressure{"cpu": {Some: 12.5}},
	}}
	for i, env := range all {
		u.Environments = append(u.Environments, api.Usage{
			ID: env.ID, Environment: env.Name, Stratum: env.Stratum, State: env.State, Time: u.Time, CPU: 250 * int64(i+1), CPUTime: int64(time.Second),
			CPULimit: 2000, Memory: 64 << 20 / int64(i+1), MemoryMost: 96 << 20, MemoryLimit: 128 << 20, Processes: 3, ProcessesLimit: 100,
			Disk: 10 << 20, DiskLimit: 10 << 30, Received: 2048, Sent: 1024, ReceivedTotal: 1 << 20, SentTotal: 1 << 19,
		})
	}
	return u, err
}

// Resources implements server.Observation.
func (e *Engine) Resources(ctx context.Context, refs []string) ([]api.ResourceTable, error) {
	all, err := e.running(ctx, refs)
	var tables []api.ResourceTable
	n := func(n int64) *int64 { return &n }
	for _, env := range all {
		t := api.ResourceTable{ID: env.ID, Environment: env.Name, Stratum: env.Stratum, Kills: 2, Pressure: map[string]api.Pressure{"io": {Some: 1.5}}, Counters: []api.Counter{
			{Resource: "memory", Unit: "bytes", Held: n(64 << 20), Most: n(96 << 20), Guarantee: n(32 << 20), Limit: n(128 << 20), Hits: n(7)},
			{Resource: "cpu", Unit: "millicpu", Held: n(250), Most: n(1999), Limit: n(2000), Hits: n(0)},
			{Resource: "cpu-time", Unit: "nanoseconds", Held: n(int64(62030 * time.Millisecond))},
			{Resource: "disk-read", Unit: "bytes"},
		}}
		if env.Name == "silent" {
			t.Missing, t.Counters[0] = "it did not answer in time", api.Counter{Resource: "memory", Unit: "bytes"}
		}
		tables = append(tables, t)
	}
	return tables, err
}

// History implements server.Observation.
func (e *Engine) History(ctx context.Context, ref, step string) ([]api.HistoryPoint, error) {
	_, err := e.Get(ctx, ref)
	return []api.HistoryPoint{{At: time.Unix(1700000000, 0).UTC(), CPU: 250, Memory: 64 << 20, Processes: 3, Sent: 1024}}, err
}
