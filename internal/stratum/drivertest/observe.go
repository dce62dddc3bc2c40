package drivertest

import (
	"os"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// observeCases are what is told of a run from outside.
var observeCases = []one{
	{"its processes are listed, as they are inside", stratum.CanList, listed},
	{"what it holds is counted, and the most that it held", stratum.CanCount, counted},
	{"limits that were hit are counted", stratum.CanCount, hitsCounted},
	{"the room on its disk is what programs leave", stratum.CanCount, roomCounted},
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
	p := s.sh("sleep 4321 & while :; do :; done")
	p.Victim = 321
	r := s.start(p)
	s.equal("how readily the kernel chooses it", fileOf(s, r.live.PID(), "oom_score_adj"), "321\n")
	go func() { // until the run ends
		_, _ = r.tryExec(stratum.Process{Args: []string{"sleep", "1234"}, User: "alice"})
	}()
	found := r.tasks("both sleep", func(t map[string]stratum.Task) bool {
		return t["sleep 4321"].Age > 0 && t["sleep 1234"].PID > 0 // an age is of whole ticks
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
	s.equal("the host's process", fileOf(s, sleep.HostPID, "cmdline"), "sleep\x004321\x00")
	for _, t := range []stratum.Task{sleep, exec} {
		s.equal("how readily the kernel chooses "+t.Command, fileOf(s, t.HostPID, "oom_score_adj"), "321\n")
	}
}

// fileOf reads what the host tells of a process.
func fileOf(s *suite, pid int, name string) string {
	s.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + name)
	if err != nil {
		s.Errorf("%s of process %d: %v", name, pid, err)
	}
	return string(text)
}

func listedHostile(s *suite) {
	r := s.start(s.sh(`cp /bin/busybox "/tmp/busybox) S 0 (y"; exec "/tmp/busybox) S 0 (y" sh -c "sleep 7777; :" "$(printf '\033[2J\nroot')"`))
	const want = `/tmp/busybox) S 0 (y sh -c sleep 7777; :  [2J root`
	found := r.tasks("it is listed", func(t map[string]stratum.Task) bool { return t[want].PID > 0 && t["sleep 7777"].PID > 0 })
	s.equal("its child's parent", found["sleep 7777"].Parent, found[want].PID)
}

func (r *run) counts() stratum.Counts {
	r.s.Helper()
	c, err := r.live.(stratum.Counter).Counts(r.s.ctx)
	if err != nil || c.Silent != "" {
		r.s.Fatalf("counts: %+v, %v", c, err)
	}
	return c
}

// counted: dd holds 20 MiB for a moment, the loop uses the processor.
func counted(s *suite) {
	p := s.sh("dd if=/dev/zero of=/dev/null bs=20M count=2 2>/dev/null; while :; do :; done")
	p.Resources.Memory, p.Resources.PIDs = 48*unit.MiB, 50
	r := s.start(p)
	var c stratum.Counts
	s.eventually("dd is over, and the loop counted", func() bool {
		c = r.counts()
		return c.Memory.Most > 20*unit.MiB && c.Memory.Held < 20*unit.MiB && c.CPU > int64(50*time.Millisecond)
	})
	if c.Memory.Held < 4096 || c.Memory.Limit != 48*unit.MiB || c.Processes.Limit != 50 || c.Processes.Held < 1 || c.Processes.Held > 40 {
		s.Errorf("counts: %+v", c)
	}
	if most := c.Processes.Most; most != stratum.Unknown && most < c.Processes.Held {
		s.Errorf("most processes are %d, of %d now", most, c.Processes.Held)
	}
	if c.HostMemory.Held < 4096 {
		s.Errorf("on the host: %+v", c.HostMemory)
	}
	before, ok := r.live.(stratum.Counter).Sample()
	if !ok || before.Memory < 4096 || before.Processes < 1 {
		s.Errorf("sample: %+v, %t", before, ok)
	}
	s.eventually("samples go on", func() bool {
		now, ok := r.live.(stratum.Counter).Sample()
		return ok && now.CPU > before.CPU+int64(50*time.Millisecond)
	})
}

func hitsCounted(s *suite) {
	p := s.sh("( for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 3 & done ) 2>/dev/null; sleep 4; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 99")
	p.Resources.Memory, p.Resources.PIDs = 32*unit.MiB, 20
	r := s.start(p)
	s.eventually("both limits were hit, and a program was killed", func() bool {
		c := r.counts()
		return c.Memory.Hits > 0 && c.Processes.Hits > 0 && c.Kills > 0
	})
}

func roomCounted(s *suite) {
	const taken = 20 * unit.MiB
	r := s.start(s.sh("sleep 1000"))
	look := func() (space stratum.Space) {
		s.eventually("it is told", func() (ok bool) {
			space, ok = r.live.(stratum.Spacer).Space()
			return ok
		})
		return space
	}
	before := look()
	if before.Free < 2*taken || before.Size < before.Free {
		s.Fatalf("of a new disk %d of %d bytes are free", before.Free, before.Size)
	}
	s.equal("a file", r.exec("sh", "-c", "head -c "+strconv.FormatInt(int64(taken), 10)+" /dev/zero > /fill && sync").stderr, "")
	s.eventually("it is seen that there is less", func() bool { return look().Free <= before.Free-int64(taken) })
	s.equal("its end", r.exec("sh", "-c", "rm /fill && sync").stderr, "")
	s.eventually("it is seen that there is more", func() bool { return look().Free > before.Free-int64(taken)/2 })
	s.equal("the size", look().Size, before.Size)
}
