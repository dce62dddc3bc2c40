package drivertest

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

var lifeCases = []one{
	{"the main program's exit status is the run's", 0, exitStatus},
	{"a signal that ends the main program is told", 0, deathBySignal},
	{"a command that is missing is fault 127's", 0, commandMissing},
	{"a command that cannot be executed is fault 126's", 0, commandUnable},
	{"an app is ready at once", 0, readyAtOnce},
	{"kill ends every process", 0, killAll},
	{"a signal reaches the main program", 0, signalReaches},
	{"a signal stops the main program, and nothing else", 0, signalStops},
	{"the end of the main program is the end of the others", 0, endOfOthers},
	{"an environment runs once at a time", 0, startTwice},
	{"cleaning twice is no error", 0, cleanTwice},
	{"clean tells how the run ended", 0, cleanTells},
	{"a daemon adopts what an earlier one started", 0, adopt},
	{"adopting what does not run is a fault", 0, adoptNothing},
	{"the private disk keeps what was written", 0, diskKeeps},
	{"an idle run is there for its files", 0, idle},
	{"pause holds every process still", stratum.CanPause, pause},
	{"a limit can change while it runs", stratum.CanLimit, setLimit},
	{"the private disk grows while it is used", stratum.CanGrowDisk, diskGrows},
	{"out of memory is told", 0, outOfMemory},
	{"no more processes than allowed", 0, processLimit},
	{"figures of a run are there", 0, stats},
}

// aloneCases look at the whole host, or load it.
var aloneCases = []one{
	{"a failed start leaves the host as it was", 0, failedStart},
	{"many start in parallel", 0, parallel},
}

func exitStatus(s *suite) {
	for _, status := range []int{0, 1, 2, 42, 125, 126, 127, 128, 137, 255} {
		r := s.start(s.sh(fmt.Sprint("exit ", status)))
		s.equal("the frame's status", int(r.wait().ended.Status), status)
		e, err := r.live.Wait(s.ctx)
		if err != nil || e.Status != status || e.Signal != 0 || e.Crash != "" {
			s.Errorf("Wait = %+v, %v; want status %d", e, err, status)
		}
	}
}

func deathBySignal(s *suite) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGSEGV} {
		e := s.exit(s.sh(fmt.Sprintf("kill -%d $$; sleep 9", sig)))
		s.equal("the status", e.Status, 128+int(sig))
		s.equal("the signal", e.Signal, int(sig))
	}
}

func (s *suite) refused(p stratum.Plan, kind fault.Kind, field, words string) {
	s.Helper()
	_, err := s.try(p)
	s.fault(err, kind, field, words)
}

func (s *suite) fault(err error, kind fault.Kind, field, words string) {
	s.Helper()
	if err == nil {
		s.Fatalf("no fault; want %s at %s", kind, field)
	}
	got := fault.All(err)[0]
	if got.Kind != kind || got.Field != field || !strings.Contains(err.Error(), words) {
		s.Errorf("the fault is %s at %q: %v; want %s at %q with %q", got.Kind, got.Field, err, kind, field, words)
	}
}

func commandMissing(s *suite) {
	s.refused(s.app("nonesuch"), fault.Missing, "command", `exec: "nonesuch": executable file not found in $PATH`)
	s.refused(s.app("/bin/nonesuch"), fault.Missing, "command", "no such file or directory")
	s.refused(s.app("/usr/share/lost"), fault.Missing, "command", "no such file or directory")
}

func commandUnable(s *suite) {
	s.refused(s.app("/usr/share/plain"), fault.Unable, "command", "permission denied")
	s.refused(s.app("/etc"), fault.Unable, "command", "is a directory")
	s.refused(s.app("/usr/share/garbage"), fault.Unable, "command", "exec format error: it is neither a program for "+runtime.GOARCH+" nor a script")
}

func readyAtOnce(s *suite) {
	r := s.start(s.app("sleep", "99"))
	select {
	case <-r.live.Ready():
	case <-time.After(s.Patience):
		s.Error("not ready")
	}
	if r.live.PID() <= 0 || r.live.KeeperPID() <= 0 {
		s.Errorf("PID %d, KeeperPID %d", r.live.PID(), r.live.KeeperPID())
	}
}

func killAll(s *suite) {
	r := s.start(s.sh("trap '' TERM; setsid sleep 98 & setsid sleep 99 & wait"))
	if err := r.live.Kill(s.ctx); err != nil {
		s.Fatal(err)
	}
	e, err := r.live.Wait(s.ctx)
	if err != nil || e.Status != 137 || e.Signal != 9 || e.Crash != "" {
		s.Errorf("Wait = %+v, %v; want 137", e, err)
	}
	if err := syscall.Kill(r.live.PID(), 0); err == nil {
		s.Error("the first process is still there")
	}
}

func signalReaches(s *suite) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGURG, 37} {
		r := s.start(s.sh(fmt.Sprintf("trap 'echo got; exit 7' %d; echo ready; while :; do sleep 0.01; done", sig)))
		s.awaitOutput(r)
		if err := r.live.Signal(s.ctx, sig); err != nil {
			s.Fatal(err)
		}
		got := r.wait()
		s.equal(fmt.Sprintf("the status after signal %d", sig), int(got.ended.Status), 7)
		s.contains("the output", got.stdout, "got")
	}
}

func signalStops(s *suite) {
	r := s.start(s.sh("echo $$ >/tmp/main; exec sleep 99"))
	state := func(want string) {
		s.Helper()
		s.eventually("the main program's state is "+want, func() bool {
			return strings.Contains(r.exec("sh", "-c", "grep State: /proc/$(cat /tmp/main)/status").stdout, want)
		})
	}
	send := func(sig syscall.Signal) {
		s.Helper()
		if err := r.live.Signal(s.ctx, sig); err != nil {
			s.Fatal(err)
		}
	}
	state("(sleeping)") // it has said who it is
	send(syscall.SIGSTOP)
	state("(stopped)")
	send(syscall.SIGCONT)
	state("(sleeping)")
	send(syscall.SIGSTOP)
	state("(stopped)")
	r.exec("sh", "-c", "kill -KILL $(cat /tmp/main)")
	s.equal("the signal of its end", int(r.wait().ended.Signal), 9)
}

// awaitOutput waits until the script has set itself up. The output goes to the
// listener, so the log would be the place to look; a moment of the clock in the
// program is simpler: the script is asked by an exec.
func (s *suite) awaitOutput(r *run) {
	s.Helper()
	s.eventually("the trap", func() bool {
		got := r.exec("grep", "-c", "SigCgt:.*[1-9a-f]", "/proc/1/status")
		return got.ended.Status == 0 && strings.Contains(r.exec("ps").stdout, "sleep 0.01")
	})
}

func endOfOthers(s *suite) {
	r := s.start(s.sh("setsid sleep 99 & exit 3"))
	s.equal("the status", int(r.wait().ended.Status), 3)
	s.eventually("no process is left", func() bool { return syscall.Kill(r.live.PID(), 0) != nil })
}

func startTwice(s *suite) {
	p := s.app("sleep", "99")
	s.start(p)
	_, err := s.try(p)
	if !fault.Is(err, fault.Conflict) {
		s.Errorf("a second start: %v; want a conflict", err)
	}
}

func cleanTwice(s *suite) {
	r := s.start(s.app("true"))
	r.wait()
	r.live.Wait(s.ctx)
	for range 2 {
		if _, err := s.Driver.Clean(s.ctx, r.id); err != nil {
			s.Error(err)
		}
	}
	ids, err := s.Driver.Runs(s.ctx)
	if err != nil || contains(ids, r.id) {
		s.Errorf("Runs = %v, %v; %s is cleaned", ids, err, r.id)
	}
}

func cleanTells(s *suite) {
	r := s.start(s.sh("exit 9"))
	r.live.Wait(s.ctx)
	ids, err := s.Driver.Runs(s.ctx)
	if err != nil || !contains(ids, r.id) {
		s.Errorf("Runs = %v, %v; want %s among them", ids, err, r.id)
	}
	e, err := s.Driver.Clean(s.ctx, r.id)
	if err != nil || e == nil || e.Status != 9 {
		s.Errorf("Clean = %+v, %v; want status 9", e, err)
	}
}

func adopt(s *suite) {
	r := s.start(s.sh("read line; echo $line; exit 5"), withStdin)
	again := s.Again(s.T)
	ids, err := again.Runs(s.ctx)
	if err != nil || !contains(ids, r.id) {
		s.Fatalf("Runs = %v, %v; want %s among them", ids, err, r.id)
	}
	live, err := again.Adopt(s.ctx, r.id)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("the adopted PID", live.PID(), r.live.PID())
	s.equal("the adopted keeper", live.KeeperPID(), r.live.KeeperPID())
	select {
	case <-live.Ready():
	case <-time.After(s.Patience):
		s.Error("not ready")
	}
	second := &run{s: s, id: r.id, live: live}
	s.equal("an exec's status", int(second.exec("sh", "-c", "exit 4").ended.Status), 4)
	r.say(stream.Stdin, []byte("hello\n"))
	s.contains("the output", r.wait().stdout, "hello")
	e, err := live.Wait(s.ctx)
	if err != nil || e.Status != 5 {
		s.Errorf("Wait = %+v, %v; want status 5", e, err)
	}
}

func adoptNothing(s *suite) {
	_, err := s.Driver.Adopt(s.ctx, "0123456789ab")
	if !fault.Is(err, fault.Missing) {
		s.Errorf("Adopt = %v; want missing", err)
	}
}

func diskKeeps(s *suite) {
	p := s.sh("echo kept >/root/file; rm /etc/group; sync")
	r := s.start(p)
	r.wait()
	r.live.Wait(s.ctx)
	if _, err := s.Driver.Clean(s.ctx, p.ID); err != nil {
		s.Fatal(err)
	}
	p.Main.Args = []string{"sh", "-c", "cat /root/file; ls /etc/group || echo gone"}
	s.equal("the content", s.output(p), "kept\ngone")
}

func idle(s *suite) {
	p := s.app()
	p.Idle, p.Main = true, stratum.Process{}
	r := s.start(p)
	s.equal("an exec", r.exec("sh", "-c", "echo x >/root/y; cat /root/y").stdout, "x\n")
	if err := r.live.Signal(s.ctx, syscall.SIGTERM); err != nil {
		s.Fatal(err)
	}
	e, err := r.live.Wait(s.ctx)
	if err != nil || e.Status != 0 {
		s.Errorf("Wait = %+v, %v; want 0", e, err)
	}
}

func pause(s *suite) {
	r := s.start(s.sh("i=0; while :; do i=$((i+1)); echo $i >/tmp/n; done"))
	p := r.live.(stratum.Pauser)
	time.Sleep(50 * time.Millisecond)
	if err := p.Pause(s.ctx); err != nil {
		s.Fatal(err)
	}
	used := func() int64 {
		st, err := r.live.Stats(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		return st.CPUTime
	}
	before := used()
	time.Sleep(200 * time.Millisecond)
	if spent := used() - before; spent > int64(10*time.Millisecond) {
		s.Errorf("%s of processor time were used while paused", time.Duration(spent))
	}
	if err := p.Resume(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.eventually("it goes on", func() bool { return used()-before > int64(20*time.Millisecond) })
	if err := p.Pause(s.ctx); err != nil {
		s.Fatal(err)
	}
	if err := r.live.Kill(s.ctx); err != nil { // also of what is paused
		s.Fatal(err)
	}
	if _, err := r.live.Wait(s.ctx); err != nil {
		s.Error(err)
	}
}

func setLimit(s *suite) {
	p := s.app("sleep", "99")
	p.Resources.Memory = 16 * unit.MiB
	r := s.start(p)
	// As much as the smallest virtual machine has for programs.
	if err := r.live.(stratum.Limiter).SetLimits(s.ctx, api.Resources{Memory: 32 * unit.MiB, PIDs: 33}); err != nil {
		s.Fatal(err)
	}
	st, err := r.live.Stats(s.ctx)
	if err != nil || st.MemoryLimit != 32*unit.MiB || st.PIDsLimit != 33 {
		s.Errorf("Stats = %+v, %v; want the new limits", st, err)
	}
}

func diskGrows(s *suite) {
	p := s.sh("while :; do date >>/log; sync; done")
	r := s.start(p)
	size := func() (size unit.Size) {
		fields := strings.Fields(r.exec("df", "-k", "/").stdout) // a head of seven words, then the name and KiB
		if len(fields) < 9 {
			s.Fatalf("df says %q", fields)
		}
		n, err := strconv.ParseInt(fields[8], 10, 64)
		if err != nil {
			s.Fatal(err)
		}
		return unit.Size(n) * unit.KiB
	}
	const want = 20 * unit.GiB
	before := size()
	if before > want/2 {
		s.Fatalf("it has %s to begin with", before)
	}
	grow := r.live.(stratum.DiskGrower)
	err := grow.GrowDisk(s.ctx, p.Disk, want)
	if s.NoGrowth != nil {
		s.fault(err, fault.KindOf(s.NoGrowth), "disk", "")
		s.equal("its size", size(), before)
		return
	}
	if err != nil {
		s.Fatal(err)
	}
	if after := size(); after < want*9/10 || after > want {
		s.Errorf("of %s it has %s, before it %s", unit.Size(want), after, before)
	}
	s.fault(grow.GrowDisk(s.ctx, p.Disk, unit.GiB), fault.Invalid, "disk", "cannot become smaller")
	s.fault(grow.GrowDisk(s.ctx, p.Disk, 7*unit.TiB), fault.Conflict, "disk", "at most")
	s.equal("a file", r.exec("sh", "-c", "head -c 50000000 /dev/zero >/fill && sync && wc -c </fill").stdout, "50000000\n")
	// Cut off, it is as it was: whoever looks next has the journal to go by alone.
	if err := r.live.Kill(s.ctx); err != nil {
		s.Fatal(err)
	}
	r.live.Wait(s.ctx)
	if _, err := s.Driver.Clean(s.ctx, p.ID); err != nil {
		s.Fatal(err)
	}
	p.Main.Args = []string{"sh", "-c", "wc -c </fill"}
	s.equal("the file afterwards", s.output(p), "50000000")
}

func outOfMemory(s *suite) {
	p := s.app("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	p.Resources.Memory = 32 * unit.MiB
	e := s.exit(p)
	if !e.OOM || e.Status != 137 {
		s.Errorf("Wait = %+v; want OOM and 137", e)
	}
}

func processLimit(s *suite) {
	p := s.sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; echo all")
	p.Resources.PIDs = 12 // the fewest that may be asked for
	got := s.start(p).wait()
	if strings.Contains(got.stdout, "all") || !strings.Contains(got.stderr, "fork") {
		s.Errorf("twenty processes under a limit of twelve: %+v", got)
	}
}

func stats(s *suite) {
	p := s.app("sleep", "99")
	p.Resources.Memory, p.Resources.PIDs = 64*unit.MiB, 50
	st, err := s.start(p).live.Stats(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if st.ID != p.ID || st.Memory <= 0 || st.MemoryLimit != 64*unit.MiB || st.PIDs < 1 || st.PIDsLimit != 50 || st.CPUTime <= 0 {
		s.Errorf("Stats = %+v", st)
	}
}

func failedStart(s *suite) {
	before := s.Host(s.T)
	p := s.app("nonesuch")
	disk := p.Disk
	s.refused(p, fault.Missing, "command", "not found")
	p.Main.Args, p.Main.User = []string{"true"}, "nobody-there"
	s.refused(p, fault.Missing, "user", "unable to find user nobody-there")
	p.Main.User, p.Volumes = "", []api.Volume{{Source: "/no/such/folder", Target: "/mnt"}}
	s.refused(p, fault.Missing, "volume", "/no/such/folder")
	p.Volumes = nil
	p.Disk = disk + "-none"
	if _, err := s.try(p); err == nil {
		s.Error("a start without its disk worked")
	}
	p.Disk = disk
	link := failingLink{}
	if _, err := s.Driver.Start(s.ctx, p, stratum.StartOptions{Link: link}); err == nil || !strings.Contains(err.Error(), "no network today") {
		s.Errorf("a start without network: %v", err)
	}
	var after string
	for end := time.Now().Add(usualPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		// The disk's image was made by Plan, and stays.
		if after = s.Host(s.T); after == before || strings.TrimSpace(difference(before, after)) == "+ "+disk {
			break
		}
	}
	if d := strings.TrimSpace(difference(before, after)); d != "" && d != "+ "+disk {
		s.Errorf("the host is not as it was:\n%s", d)
	}
	p.Main.Args = []string{"echo", "works now"}
	s.equal("the output", s.output(p), "works now")
}

func parallel(s *suite) {
	var wg sync.WaitGroup
	runs := make([]*run, s.Crowd)
	for i := range runs {
		p := s.sh(fmt.Sprintf("hostname; exit %d", i))
		wg.Go(func() {
			r, err := s.try(p)
			if err != nil {
				s.Errorf("start %d: %v", i, err)
				return
			}
			runs[i] = r
		})
	}
	wg.Wait()
	for i, r := range runs {
		if r != nil {
			s.equal("the status", int(r.wait().ended.Status), i)
		}
	}
}
