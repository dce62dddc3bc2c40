package engine_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

func TestProcessesOfAllAreListed(t *testing.T) {
	l := newLab(t)
	release := make(chan struct{})
	defer close(release)
	l.host.Tasks = func(ctx context.Context, r *enginetest.Run) ([]stratum.Task, bool, error) {
		switch r.Plan.Name {
		case "deaf": // it does not even keep to the deadline
			<-release
		case "broken":
			return nil, false, fault.Unablef("the agent inside cannot be asked")
		case "crowded":
			return []stratum.Task{{PID: 2}, {PID: 1, Command: "init"}}, true, nil
		}
		return []stratum.Task{{PID: 7, HostPID: 8, User: "alice", CPU: 1, Age: 2, Memory: 3, Command: "x"}}, false, nil
	}
	for _, name := range []string{"deaf", "web", "crowded", "broken"} {
		l.run(api.Spec{Name: name})
	}
	l.create(api.Spec{Name: "still"})
	begin := time.Now()
	list, err := l.Tasks(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	var got []string
	for _, p := range list.Processes {
		got = append(got, p.Environment+" "+strconv.Itoa(p.PID)+" "+p.Command+p.Missing)
	}
	want := "broken 0 the agent inside cannot be asked|crowded 1 init|crowded 2 |crowded 0 it has more processes than are listed|deaf 0 it did not answer in time|web 7 x"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	web := list.Processes[len(list.Processes)-1]
	if web.HostPID != 8 || web.User != "alice" || web.CPU() != 50 || web.Memory != 3 || web.Stratum != "zone" || web.ID == "" {
		t.Errorf("%+v", web)
	}
	if list, err = l.Tasks(t.Context(), []string{"web", "web"}); err != nil || len(list.Processes) != 1 {
		t.Errorf("web alone: %+v, %v", list, err)
	}
	if _, err = l.Tasks(t.Context(), []string{"none"}); !fault.Is(err, fault.Missing) {
		t.Errorf("none: %v", err)
	}
	if _, err = l.Tasks(t.Context(), []string{"still"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("still: %v", err)
	}
}

func TestAStratumWithoutAnAgentSaysSo(t *testing.T) {
	l := prepared(t)
	l.driver = enginetest.Plain(l.host)
	l.open()
	l.run(api.Spec{Name: "web"})
	list, err := l.Tasks(t.Context(), nil)
	if err != nil || len(list.Processes) != 1 || list.Processes[0].Missing == "" {
		t.Errorf("%+v, %v", list, err)
	}
}
