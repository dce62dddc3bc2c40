package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// tasksPatience bounds the wait for one environment's processes.
const tasksPatience = 3 * time.Second

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
	answers := make([][]api.Task, len(all))
	slots := make(chan struct{}, looks)
	done := make(chan int, len(all))
	for i, w := range all {
		go func() {
			if w.row.Stratum == stratum.Zone {
				slots <- struct{}{}
				defer func() { <-slots }()
			}
			answers[i] = w.tasks(ctx)
			done <- i
		}()
	}
	for range all {
		<-done
	}
	list := api.TaskList{Time: time.Now(), Processes: []api.Task{}}
	for _, rows := range answers {
		list.Processes = append(list.Processes, rows...)
	}
	return list, ctx.Err()
}

// watched is a run with what its rows begin with.
type watched struct {
	live stratum.Live
	row  api.Task
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
			all = append(all, watched{r.live, row})
		} else if len(refs) > 0 {
			return nil, fault.Conflictf("environment %s is %s, so it has no processes", row.Environment, state).Help("start it first: strata start %s", row.Environment)
		}
	}
	slices.SortFunc(all, func(a, b watched) int { return strings.Compare(a.row.Environment, b.row.Environment) })
	return all, nil
}

// tasks never takes longer than tasksPatience, whatever it asks.
func (w watched) tasks(ctx context.Context) []api.Task {
	lister, ok := w.live.(stratum.Lister)
	if !ok {
		return w.missing("nobody inside can be asked at stratum " + w.row.Stratum)
	}
	ctx, cancel := context.WithTimeout(ctx, tasksPatience)
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
		return w.missing("it did not answer in time")
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
