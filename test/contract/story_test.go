package contract

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/test/bed"
)

// life is one environment that runs three times, and what rows saw in it. It starts, is
// stopped, starts again, is stopped and does not listen, starts once more and is killed.
type life struct{ seen map[string]*seen }

// chapter is what one row looks at in the life; nil: nothing at that time.
type chapter struct {
	running func(looker, at, string) // the first time
	stopped func(looker, at, string)
	again   func(looker, at, string) // running again
	deaf    func(looker, at, string, bed.Output)
	last    func(looker, at, string) // running once more, after a kill
	killed  func(looker, at, string)
}

// seen keeps for a row what was not as it should be.
type seen struct {
	*testing.T // of the row that makes the life
	faults     []string
}

func (s *seen) Error(args ...any) { s.faults = append(s.faults, fmt.Sprint(args...)) }

func (s *seen) Errorf(format string, args ...any) { s.Error(fmt.Sprintf(format, args...)) }

// tells reports what the life showed of a row.
func (l *life) tells(t *testing.T, row string) {
	for _, fault := range l.seen[row].faults {
		t.Error(fault)
	}
}

// live is the life.
func live(t *testing.T, a at, b *bed.Bed) *life {
	const name = "life"
	l := &life{map[string]*seen{}}
	t.Cleanup(func() { b.Try("rm", "-f", name) })
	for _, r := range rows {
		l.seen[r.name] = &seen{T: a.t}
	}
	look := func(at func(*chapter) func(looker, at, string)) {
		for _, r := range rows {
			if r.life == nil {
				continue
			}
			if do := at(r.life); do != nil {
				do(l.seen[r.name], a, name)
			}
		}
	}
	up := func(times int) {
		until(a.t, "it is up", a.boot(20*time.Second), func() bool { return strings.Count(a.Run("logs", name), "up") == times })
	}
	a.begin(name, "--disk", "64M", "busybox", "sh", "-c", "trap 'echo asked; test -e /deaf || exit 5' TERM; echo up; while :; do sleep 0.1; done")
	up(1)
	look(func(c *chapter) func(looker, at, string) { return c.running })
	a.Run("stop", name)
	look(func(c *chapter) func(looker, at, string) { return c.stopped })
	a.Run("start", name)
	up(2)
	look(func(c *chapter) func(looker, at, string) { return c.again })
	a.Run("exec", name, "sh", "-c", "touch /deaf; sync")
	out := a.Try("stop", "--time", "1", name)
	look(func(c *chapter) func(looker, at, string) {
		if c.deaf == nil {
			return nil
		}
		return func(t looker, a at, name string) { c.deaf(t, a, name, out) }
	})
	a.Run("start", name)
	up(3)
	look(func(c *chapter) func(looker, at, string) { return c.last })
	a.Run("kill", name)
	until(a.t, "it ended", 10*time.Second, func() bool { return a.show(a.t, name).State == "stopped" })
	look(func(c *chapter) func(looker, at, string) { return c.killed })
	return l
}
