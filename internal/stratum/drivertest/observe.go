package drivertest

import (
	"os"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/stratum"
)

// observeCases are what is told of a run from outside.
var observeCases = []one{
	{"its processes are listed, as they are inside", stratum.CanList, listed},
	{"a process that hides its name is listed", stratum.CanList, listedHostile},
}

// tasks waits until the run's processes are as wanted, and returns them by command.
func (r *run) tasks(what string, is func(map[string]stratum.Task) bool) map[string]stratum.Task {
	r.s.Helper()
	var found map[string]stratum.Task
	r.s.eventually(what, func() bool {
		list, more, err := r.live.(stratum.Lister).Processes(r.s.ctx)
		if err != nil || more {
			r.s.Fatalf("list: %v, more: %t", err, more)
		}
		found = map[string]stratum.Task{}
		for _, t := range list {
			found[t.Command] = t
		}
		return is(found)
	})
	return found
}

func listed(s *suite) {
	r := s.start(s.sh("sleep 4321 & while :; do :; done"))
	go func() { // until the run ends
		_, _ = r.tryExec(stratum.Process{Args: []string{"sleep", "1234"}, User: "alice"})
	}()
	found := r.tasks("both sleep", func(t map[string]stratum.Task) bool {
		return t["sleep 4321"].PID > 0 && t["sleep 1234"].PID > 0
	})
	sleep, exec, shell := found["sleep 4321"], found["sleep 1234"], found["/bin/sh -c sleep 4321 & while :; do :; done"]
	s.equal("the sleep's user", sleep.User, "root")
	s.equal("the exec's user", exec.User, "alice")
	s.equal("the sleep's parent", sleep.Parent, shell.PID)
	s.equal("what has its number inside", r.exec("cat", "/proc/"+strconv.Itoa(sleep.PID)+"/cmdline").stdout, "sleep\x004321\x00")
	if sleep.Memory < 4096 || sleep.Memory > 64<<20 || sleep.Age <= 0 || sleep.Age > int64(time.Hour) {
		s.Errorf("the sleep: %+v", sleep)
	}
	before := shell.CPU
	r.tasks("the loop uses the processor", func(t map[string]stratum.Task) bool {
		return t[shell.Command].CPU > before+int64(100*time.Millisecond)
	})
	if sleep.HostPID == 0 {
		return // it is another kernel's
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(sleep.HostPID) + "/cmdline")
	if err != nil || string(text) != "sleep\x004321\x00" {
		s.Errorf("process %d of the host is %q, %v", sleep.HostPID, text, err)
	}
}

func listedHostile(s *suite) {
	r := s.start(s.sh(`cp /bin/busybox "/tmp/busybox) S 0 (y"; exec "/tmp/busybox) S 0 (y" sh -c "sleep 7777; :" "$(printf '\033[2J\nroot')"`))
	const want = `/tmp/busybox) S 0 (y sh -c sleep 7777; :  [2J root`
	found := r.tasks("it is listed", func(t map[string]stratum.Task) bool { return t[want].PID > 0 && t["sleep 7777"].PID > 0 })
	s.equal("its child's parent", found["sleep 7777"].Parent, found[want].PID)
}
