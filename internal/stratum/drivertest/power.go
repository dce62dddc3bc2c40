package drivertest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// powerCases are of what only systems of their own can do.
var powerCases = []one{
	{"a suspended system goes on where it was, with its clock set", stratum.CanSuspend, suspended},
	{"a suspended system whose memory, processors or disk have changed is refused and kept", stratum.CanSuspend, suspendedOtherwise},
	{"a system with a volume is not suspended, and goes on", stratum.CanSuspend, suspendedVolume},
	{"an interrupt that cannot be masked reaches the kernel", stratum.CanInterrupt, interrupted},
	{"a reset ends what runs at once, and what it wrote out stays", stratum.CanReset, reset},
}

// counting is a program that has what it knows in its memory only.
const counting = `trap 'exit 7' TERM; i=0; echo begun; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; sleep 0.1; done`

func (s *suite) count(r *run) int {
	s.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(r.exec("/bin/cat", "/count").stdout))
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// suspend suspends r, and takes away what is left of it.
func (s *suite) suspend(r *run) (dir string) {
	s.Helper()
	dir = filepath.Join(s.T.TempDir(), "suspended")
	begun := time.Now()
	if err := r.live.(stratum.Suspender).Suspend(s.ctx, dir); err != nil {
		s.Fatal(err)
	}
	wrote := time.Since(begun)
	if err := r.live.Kill(s.ctx); err != nil {
		s.Fatal(err)
	}
	if _, err := r.live.Wait(s.ctx); err != nil {
		s.Fatal(err)
	}
	if _, err := s.Driver.Clean(s.ctx, r.id); err != nil {
		s.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "state"))
	if err != nil {
		s.Fatal(err)
	}
	s.Logf("suspended in %v, over in %v, %d MiB", wrote.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond), info.Size()>>20)
	return dir
}

func suspended(s *suite) {
	p := s.sh(counting)
	r := s.start(p)
	s.eventually("the program counts", func() bool { return strings.Contains(r.exec("/bin/ls", "/").stdout, "count\n") })
	// Several times, since what goes on says at once that it has started long ago, and the
	// clock must not depend on who is quicker.
	again, first := r, 0
	for range 4 {
		dir := s.suspend(again)
		time.Sleep(2500 * time.Millisecond) // that the clock would be behind by
		p.Saved = dir
		begun := time.Now()
		again = s.start(p)
		s.Logf("went on in %v", time.Since(begun).Round(time.Millisecond))
		if _, err := os.Stat(dir); err == nil {
			s.Errorf("%s is still there", dir)
		}
		before := first
		if first = s.count(again); first <= before {
			s.Errorf("it counts %d, after %d", first, before)
		}
		s.eventually("the program counts on", func() bool { return s.count(again) > first })
		asked := time.Now()
		inside, err := strconv.ParseInt(strings.TrimSpace(again.exec("/bin/date", "+%s").stdout), 10, 64)
		if late := asked.Unix() - inside; err != nil || late > 1 {
			s.Errorf("the clock is %d s late, %v", late, err)
		}
	}
	if err := again.live.Signal(s.ctx, syscall.SIGTERM); err != nil {
		s.Fatal(err)
	}
	e, err := again.live.Wait(s.ctx)
	if err != nil || e.Status != 7 || e.Crash != "" {
		s.Errorf("it ended with %+v, %v", e, err)
	}
	if out := again.wait(); strings.Contains(out.stdout, "begun") {
		s.Error("the program has begun anew")
	}
	// The disk is one that the next start takes.
	s.Driver.Clean(s.ctx, p.ID)
	p.Saved, p.Main.Args = "", []string{"/bin/cat", "/count"}
	if n, err := strconv.Atoi(s.output(p)); err != nil || n <= first {
		s.Errorf("the disk has count %d, %v; want more than %d", n, err, first)
	}
}

func suspendedOtherwise(s *suite) {
	p := s.sh("sleep 1000")
	p.Saved = s.suspend(s.start(p))
	for what, c := range map[string]struct {
		change func(*stratum.Plan)
		field  string
	}{
		"memory":     {func(p *stratum.Plan) { p.Resources.Memory = 1 << 30 }, "resources.memory"},
		"processors": {func(p *stratum.Plan) { p.Resources.CPUs = 2000 }, "resources.cpus"},
		"disk": {func(p *stratum.Plan) {
			now := time.Now()
			if err := os.Chtimes(p.Disk, now, now); err != nil {
				s.Fatal(err)
			}
		}, "disk"},
	} {
		changed := p
		info, err := os.Stat(p.Disk)
		if err != nil {
			s.Fatal(err)
		}
		c.change(&changed)
		_, err = s.try(changed)
		all := fault.All(err)
		if len(all) != 1 || all[0].Kind != fault.Conflict || all[0].Field != c.field || !strings.Contains(all[0].Hint, "strata kill") {
			s.Errorf("with other %s: %v", what, err)
		}
		if err := os.Chtimes(p.Disk, info.ModTime(), info.ModTime()); err != nil {
			s.Fatal(err)
		}
	}
	s.start(p) // and as it was, it goes on
}

func suspendedVolume(s *suite) {
	p := s.sh("sleep 1000")
	p.Volumes = []api.Volume{{Source: s.Folder(s.T), Target: "/v"}}
	r := s.start(p)
	dir := filepath.Join(s.T.TempDir(), "suspended")
	err := r.live.(stratum.Suspender).Suspend(s.ctx, dir)
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "volumes") {
		s.Errorf("it was suspended: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		s.Error("and something was written")
	}
	s.equal("what it echoes", strings.TrimSpace(r.exec("/bin/echo", "here").stdout), "here")
}

func interrupted(s *suite) {
	r := s.start(s.sh("sleep 1000"))
	if err := r.live.(stratum.Interrupter).Interrupt(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.eventually("the kernel tells of it", func() bool {
		log, err := r.live.(stratum.KernelLogger).KernelLog(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		return strings.Contains(string(log), "NMI received for unknown reason")
	})
}

func reset(s *suite) {
	p := s.sh("echo kept >/kept; sync; echo >/synced; sleep 1000")
	r := s.start(p)
	s.eventually("it has written out", func() bool { return r.exec("/bin/ls", "/synced").ended.Status == 0 })
	over, err := r.live.(stratum.Resetter).Reset(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if !over {
		return // it starts over by itself
	}
	e, err := r.live.Wait(s.ctx)
	if err != nil || e.Crash != "" {
		s.Errorf("it ended with %+v, %v", e, err)
	}
	if _, err := s.Driver.Clean(s.ctx, r.id); err != nil {
		s.Fatal(err)
	}
	p.Main.Args = []string{"/bin/cat", "/kept"}
	s.equal("what was written out", s.output(p), "kept")
}
