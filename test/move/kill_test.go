package move

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/test/bed"
)

// kills is how often the daemon is killed in a run of the test.
const kills = 20

// seed is STRATA_SEED, or made up.
func seed(t *testing.T) uint64 {
	t.Helper()
	if text := os.Getenv("STRATA_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("STRATA_SEED: %v", err)
		}
		return n
	}
	return uint64(time.Now().UnixNano())
}

// TestDaemonKilledInTheMiddleOfAMove kills it at random moments between a zone and a guest:
// at most one run of the environment ever lives, and afterwards exactly one does.
func TestDaemonKilledInTheMiddleOfAMove(t *testing.T) {
	b := newBed(t, bed.Kernel)
	b.Run("run", "-d", "--name", "web", "--memory", "128M", "busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	b.Run("exec", "web", "sh", "-c", "echo kept > /kept; sync")
	whole := map[string]time.Duration{}
	for _, to := range []string{"guest", "zone", "guest", "zone"} { // what is made once is made by the first
		begun := time.Now()
		move(t, b, "web", to)
		whole[to] = time.Since(begun)
	}
	l := begin(t, b, "web", "cat /kept")
	s := seed(t)
	t.Logf("STRATA_SEED=%d; a move to a guest takes %v, to a zone %v", s, whole["guest"], whole["zone"])
	random := rand.New(rand.NewPCG(s, 1))
	ended := map[string]int{}
	for i := range kills {
		to := "guest"
		if show(t, b, "web").Stratum == to {
			to = "zone"
		}
		done := make(chan bed.Output, 1)
		go func() { done <- b.Try("move", "web", to) }()
		moment := time.Duration(random.Int64N(int64(whole[to])))
		time.Sleep(moment)
		b.SignalDaemon(syscall.SIGKILL, true)
		in := "time"
		if out := <-done; out.Status == 0 {
			in = "vain: the move was over"
			whole[to] = min(whole[to], out.Took)
		}
		if k, q := held(t, l.before.ID); k > 1 || q > 1 {
			t.Errorf("%d: while no daemon runs, %d keepers and %d QEMUs of it do", i, k, q)
		}
		b.StartDaemon()
		until(t, "the move has ended", func() bool {
			e := show(t, b, "web")
			return e.State == api.Running && e.MovingTo == ""
		})
		e := show(t, b, "web")
		t.Logf("%d: killed after %v of a move to %s, in %s: it is at %s", i, moment.Round(time.Millisecond), to, in, e.Stratum)
		l.same(e.Stratum)
		ended[to+" asked, "+e.Stratum]++
		k, q := held(t, e.ID)
		if want := map[string]int{"zone": 0, "guest": 1}[e.Stratum]; k != 1 || q != want {
			t.Errorf("%d: at %s, %d keepers and %d QEMUs of it run", i, e.Stratum, k, q)
		}
	}
	t.Logf("%v", ended)
	b.Run("rm", "-f", "web")
	if k, q := held(t, l.before.ID); k+q > 0 {
		t.Errorf("%d keepers and %d QEMUs are left", k, q)
	}
}

// held counts the keepers of an environment, and the QEMUs, on the whole host: its processes
// are in control groups that have its id in their names.
func held(t *testing.T, id string) (keepers, machines int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		groups, _ := os.ReadFile(path) // it may have ended
		if !strings.Contains(string(groups), id) {
			continue
		}
		switch name, _ := status(filepath.Base(filepath.Dir(path))); {
		case strings.HasPrefix(name, "qemu"):
			machines++
		case name == "strata-keeper":
			keepers++
		}
	}
	return keepers, machines
}

// status returns the name and the parent of a process that lives; "" for one that does not.
// Source: proc_pid_status(5).
func status(pid string) (name, parent string) {
	text, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	for line := range strings.Lines(string(text)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ":"); key {
		case "Name":
			name = strings.TrimSpace(value)
		case "PPid":
			parent = strings.TrimSpace(value)
		case "State":
			if strings.HasPrefix(strings.TrimSpace(value), "Z") {
				return "", ""
			}
		}
	}
	return name, parent
}
