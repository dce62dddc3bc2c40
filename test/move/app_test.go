package move

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// bulk is how many MiB of random bytes lie in the template, and as many on the disk.
const bulk = "8"

// limitsInside prints what an environment sees of its limits, and its card.
const limitsInside = `cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1
	cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | head -n 1
	ip -o -4 addr show dev eth0 | sed 's/.* inet \([^ ]*\) .*/\1/'
	` + diskAndCard

const diskAndCard = `df -k / | tail -n 1 | { read -r _ size _; echo $size; }; cat /sys/class/net/eth0/address`

// lookApp prints all of an app's system that a move might change: every owner and mode, and
// all that was written. What lies in the template is read as a whole.
const lookApp = `echo $A; hostname; find / -xdev ! -path '/run*' ! -path '/tmp*' ! -path '/dev*' ! -path '/proc*' ! -path '/sys*' -exec stat -c '%n %u %g %a %F' {} + | sort
	stat -c '%u:%g' /volume/file; cat /volume/file /moved/b/c; sha256sum /data /bulk; ! which wget; ` + limitsInside

// serves is a main program that answers with its name and its environment, and fails once
// /fail is there.
const serves = `while [ ! -e /fail ]; do echo $(hostname) $A | nc -l -p 80; done; rm /fail; exit 3`

// server is an app with all that a move has to keep: a published port, a volume, limits, a
// template and a disk with more in them than may be written by a move.
type server struct {
	*life
	busy func(words string) // writes to a file of the volume that the host keeps open and locked
}

// serve starts a server, and changes its disk.
func serve(t *testing.T, b *bed.Bed) server {
	t.Helper()
	volume := openFolder(t)
	b.Run("run", "-d", "--name", "web", "-p", "8080:80", "-v", volume+":/volume", "-e", "A=b", "--memory", "200M", "--pids", "64", "--disk", "1G",
		"--restart", "on-failure:3", bulky(t, b), "sh", "-c", serves)
	b.Run("exec", "web", "sh", "-ec", `dd if=/dev/urandom of=/data bs=1M count=`+bulk+` 2>/dev/null; chown 1000:50 /data
		mkdir -p /a/b; echo deep > /a/b/c; mv /a /moved; ln -s /data /link; ln /data /hard; mkfifo /pipe; rm $(which wget); chmod 700 /etc
		echo in > /volume/file; chown 1234:65533 /volume/file; sync`)
	s := server{begin(t, b, "web", lookApp), hold(t, filepath.Join(volume, "busy"))}
	s.answers("zone")
	return s
}

// openFolder makes a folder that everybody may write to.
func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bulky makes a template of a single layer with bulk in it.
func bulky(t *testing.T, b *bed.Bed) string {
	t.Helper()
	root := t.TempDir()
	script := `mkdir -p bin etc; cp "$(which busybox)" bin/busybox; for name in $(bin/busybox --list); do [ -e bin/$name ] || ln -s busybox bin/$name; done
		echo root:x:0:0:root:/:/bin/sh > etc/passwd; head -c ` + bulk + `M /dev/urandom > bulk; chown -R 0:0 .`
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a root file system: %v\n%s", err, out)
	}
	b.Run("template", "import", "--name", "bulky", root)
	return "bulky"
}

// answers holds that it does at its own address and at the published port.
func (s server) answers(at string) {
	s.t.Helper()
	for _, address := range []string{s.before.Network.IPv4 + ":80", "127.0.0.1:8080"} {
		var got string
		until(s.t, address+" answers at "+at, func() bool {
			s.Host(func() { got = bed.Fetch(address) })
			return got != ""
		})
		if strings.TrimSpace(got) != "web b" {
			s.t.Errorf("at %s, %s answers %q", at, address, got)
		}
	}
}

// listens is how long it may take from the main program's start until a client hears of it.
const listens = 20 * time.Second

// knocks asks at its address without end. What it returns waits for an answer, and tells
// how long there was none at most.
func (s server) knocks() (unanswered func() time.Duration) {
	done, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		var most time.Duration
		for last, over := time.Now(), false; ; time.Sleep(10 * time.Millisecond) {
			answered := false
			s.Host(func() {
				conn, err := net.DialTimeout("tcp", s.before.Network.IPv4+":80", 200*time.Millisecond)
				if err == nil {
					conn.Close()
					answered = true
				}
			})
			if most = max(most, time.Since(last)); answered {
				last = time.Now()
			}
			select {
			case <-done:
				over = true
			default:
			}
			if over && (answered || s.t.Failed() || time.Since(last) > boots) {
				longest <- most
				return
			}
		}
	}()
	unanswered = sync.OnceValue(func() time.Duration { close(done); return <-longest })
	s.t.Cleanup(func() { unanswered() }) // before the bed's own
	return unanswered
}

// goes moves it along a route and holds at each stop that all is as it was, and that
// nothing was copied.
func (s server) goes(route ...string) {
	s.t.Helper()
	for _, to := range route {
		s.rehearsed()
		before, unanswered := take(s.t, s.Bed), s.knocks()
		m := move(s.t, s.Bed, s.name, to)
		notCopied(s.t, s.Bed, to, before, started)
		if gap := unanswered(); gap > time.Duration(m.Downtime)+require.Patience(listens) {
			s.t.Errorf("to %s, it was down for %s by what it says, and did not answer for %v", to, m.Downtime, gap)
		} else {
			s.t.Logf("to %s, its address did not answer for %v", to, gap.Round(time.Millisecond))
		}
		s.busy(to)
		if got := s.Run("exec", s.name, "cat", "/volume/busy"); !strings.HasSuffix(got, to) {
			s.t.Errorf("at %s the file that the host writes says %q", to, got)
		}
		s.same(to)
		s.answers(to)
	}
	if len(s.kernels) != 3 {
		s.t.Errorf("it ran on the kernels %v; want the host's and two others", s.kernels)
	}
	moves := show(s.t, s.Bed, s.name).Moves
	if len(moves) != len(route) {
		s.t.Errorf("the history has %d moves; want %d", len(moves), len(route))
	}
	from := s.before.Stratum
	for i, m := range moves {
		if m.Failed != "" || !m.Ran || m.From != from || m.To != route[i] {
			s.t.Errorf("move %d: %+v; want one from %s to %s", i, m, from, route[i])
		}
		from = m.To
	}
}

// TestMovingDeeperAndBack stands for all directions where there is little time.
func TestMovingDeeperAndBack(t *testing.T) {
	b := newBed(t, bed.MachineKernel)
	serve(t, b).goes("guest", "machine", "zone")
}

func TestMovingAnAppInEveryDirection(t *testing.T) {
	b := newBed(t, bed.MachineKernel)
	s := serve(t, b)
	s.goes(everyDirection...)
	move(t, b, "web", "guest")
	s.answers("guest")
	// Its restart policy has come along.
	b.Run("exec", "web", "touch", "/fail")
	b.Host(func() { bed.Fetch(s.before.Network.IPv4 + ":80") })
	until(t, "it is started again", func() bool {
		e := show(t, b, "web")
		return e.State == api.Running && e.Restarts == 1
	})
	s.answers("guest")
	if e := show(t, b, "web"); e.Stratum != "guest" || !slices.ContainsFunc(e.Moves, func(m api.Move) bool { return m.To == "machine" }) {
		t.Errorf("after its restart it is at %s, with %d moves", e.Stratum, len(e.Moves))
	}
	b.Run("rm", "-f", "web")
}
