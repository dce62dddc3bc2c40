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
