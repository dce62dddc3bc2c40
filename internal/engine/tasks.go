package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// tasksPatience bounds the wait for one environment's processes.
const tasksPatience = 3 * time.Second

// silent is said of who does not answer within tasksPatience.
const silent = "it did not answer in time"

// looks bounds how many zones are looked at at once, which is the host's own work.
// Agents are all asked at once: who waits for one uses nothing.
const looks = 4

// Tasks lists the processes of the environments that refs name, of all that run
// where there are none. One that does not answer in time is a row that says so, and
// is waited for by no other. Kinds: Missing, Conflict where one named does not run.
func (e *Engine) Tasks(ctx context.Context, refs []string) (api.TaskList, error) {
	all, err := e.watched(refs)
	if err != nil {
		return api.TaskList{}, err
	}
	list := api.TaskList{Time: time.Now(), Processes: []api.Task{}}
	ask := func(w watched) []api.Task {
		rows := w.tasks(ctx)
		if len(rows) == 1 { // it may say why there are no others
			rows[0].Missing = w.run.reason(rows[0].Missing)
		}
		return rows
	}
	for _, rows := range eachOf(all, ask) {
		list.Processes = append(list.Processes, rows...)
	}
	return list, ctx.Err()
}

// watched is a run with what its rows begin with.
type watched struct {
	run *run
	row api.Task
}

// watched returns the runs of those that refs name, or of all, by name.
func (e *Engine) watched(refs []string) ([]watched, error) {
	entries := e.entries()
	if len(refs) > 0 {
		entries = nil
		for _, ref := range refs {
			en, err := e.find(ref)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(entries, en) {
				entries = append(entries, en)
			}
		}
	}
	var all []watched
	for _, en := range entries {
		en.mu.Lock()
		r, state, row := en.run, en.state, api.Task{ID: en.rec.ID, Environment: en.rec.Name, Stratum: en.rec.Stratum}
		en.mu.Unlock()
		if r != nil {
			all = append(all, watched{r, row})
		} else if len(refs) > 0 {
			return nil, fault.Conflictf("environment %s is %s, so it has no processes", row.Environment, state).Help("start it first: strata start %s", row.Environment)
		}
	}
	byName(all)
	return all, nil
}

// tasks never takes longer than tasksPatience, whatever it asks.
func (w watched) tasks(ctx context.Context) []api.Task {
	lister, ok := w.run.live.(stratum.Lister)
	if !ok {
		return w.missing("nobody inside can be asked at stratum " + w.row.Stratum)
	}
	ctx, cancel := context.WithTimeout(ctx, w.run.patience(tasksPatience))
	defer cancel()
	answer := make(chan []api.Task, 1)
	go func() {
		list, more, err := lister.Processes(ctx)
		answer <- w.rows(list, more, err)
	}()
	select {
	case rows := <-answer:
		return rows
	case <-ctx.Done():
		return w.missing(silent)
	}
}

func (w watched) missing(why string) []api.Task {
	w.row.Missing = why
	return []api.Task{w.row}
}

func (w watched) rows(list []stratum.Task, more bool, err error) []api.Task {
	if err != nil {
		return w.missing(err.Error())
	}
	slices.SortFunc(list, func(a, b stratum.Task) int { return cmp.Compare(a.PID, b.PID) })
	rows := make([]api.Task, 0, len(list)+1)
	for _, t := range list {
		row := w.row
		row.PID, row.Parent, row.HostPID, row.User = t.PID, t.Parent, t.HostPID, t.User
		row.CPUTime, row.Age, row.Memory, row.Command = t.CPU, t.Age, t.Memory, t.Command
		rows = append(rows, row)
	}
	if more {
		rows = append(rows, w.missing("it has more processes than are listed")...)
	}
	return rows
}
