package engine

import (
	"testing"
	"time"
)

func TestOnlyWhoHasBeenIdleLongGivesMemoryBack(t *testing.T) {
	var i idleness
	one, other := &run{}, &run{}
	start := time.Unix(1000, 0)
	cpu := int64(0)
	due := func(r *run, minute float64, used time.Duration) bool {
		cpu += int64(used)
		return i.due(r, cpu, start.Add(time.Duration(minute*float64(time.Minute))))
	}
	for _, step := range []struct {
		name   string
		run    *run
		minute float64
		used   time.Duration // since the step before
		want   bool
	}{
		{"nothing is known at first", one, 0, 0, false},
		{"it is busy", one, 1, time.Minute, false},
		{"it is idle, but not for long", one, 4, 100 * time.Millisecond, false},
		{"it has been idle for five minutes", one, 6, 100 * time.Millisecond, true},
		{"once is enough", one, 7, 0, false},
		{"nearly an hour later, still", one, 65.9, 0, false},
		{"an hour later it is asked again", one, 66.1, 0, true},
		{"it wakes up", one, 67, 30 * time.Second, false},
		{"and sleeps again", one, 71, 0, false},
		{"five minutes after that it is asked at once", one, 72.5, 0, true},
		{"another run begins anew", other, 80, 0, false},
		{"and is idle at last", other, 86, 0, true},
	} {
		if got := due(step.run, step.minute, step.used); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}
