package contract

import (
	"strings"
	"testing"
	"time"
)

func init() { promise(row{name: "oom-told", test: oomTold}) }

// oomTold has a program beside the main one grow over the limit.
func oomTold(t *testing.T, a at) {
	name := a.shared.tight.of(t, a)
	// Of ten kills in five seconds the kernel tells where they were, whoever's they are; beyond them, beside
	// other tests, ours is looked up, and may be gone by then. That several are is a fault.
	var again time.Time
	until(t, "the kill is shown", 45*time.Second, func() bool {
		if time.Now().After(again) {
			a.exec(t, name, "tail /dev/zero")
			again = time.Now().Add(10 * time.Second)
		}
		return a.show(t, name).OOM != nil
	})
	env := a.show(t, name)
	if o := env.OOM; o.Process != "tail" || o.Held < 16<<20 || o.Held > 48<<20 || o.Short == "limit" && o.Limit != 48<<20 {
		t.Errorf("the last kill is %+v", o)
	}
	short := env.OOM.Short == "limit" || a.stratum != "zone" && env.OOM.Short == "machine"
	if !short {
		t.Errorf("%s was short of memory", env.OOM.Short)
	}
	if env.State != "running" {
		t.Errorf("its main program was not killed, and it is %s", env.State)
	}
	says(t, a.Run("show", name), env.OOM.String())
	log := "killed tail (" // strata's own words of a zone, in a log of their own
	if a.stratum != "zone" {
		log = "Killed process"
	}
	says(t, a.Run("logs", "--kernel", name), log)
	if out := a.Run("logs", name); out != "" {
		t.Errorf("its program wrote nothing, and its log is %q", out)
	}
	until(t, "the kill is counted", 30*time.Second, func() bool {
		for line := range strings.Lines(a.Run("resources", name)) {
			if f := strings.Fields(line); len(f) > 2 && f[1] == "oom-kills" {
				return f[2] != "0"
			}
		}
		return false
	})
}
