package contract

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/test/bed"
)

// shared is what the rows of one stratum have together, each made when it is first asked
// for: where there is a kernel to boot a start takes long, so one serves as many rows as
// can tell from it what they want to know.
type shared struct {
	still     func(at) string // the name of one that runs, to be looked at by exec
	alone     *exclusive      // runs, for the row that asks alone
	counts    string          // where alone counts, once it runs
	tight     *exclusive      // the same, with little memory and few processes
	system    *exclusive      // a Debian with systemd
	served    func(at) served
	told      func(at) told
	plain     func(at) told
	fed       func(at) fed
	crashed   func(at) bed.Output
	signalled func(at) bed.Output
	well      func(at) well
	life      func(at) *life
}

// share returns what the rows of a stratum share; it goes when all of them have ended.
func share(t *testing.T, b *bed.Bed) *shared {
	name := func(name string, args ...string) func(at) string {
		return once(func(a at) string {
			t.Cleanup(func() { b.Try("rm", "-f", name) })
			a.begin(name, args...)
			return name
		})
	}
	s := new(shared)
	s.still = name("still", "-e", "A=1", "-e", "B=two words", "-e", "PATH="+stillPath, "-w", "/tmp", "busybox", "sh", "-c", stillSays)
	s.tight = &exclusive{make: name("tight", "--memory", "48M", "--pids", "32", "busybox", "sleep", "1000")}
	s.system = &exclusive{make: once(func(a at) string { return name("system", bed.Debian(t, b))(a) })}
	s.alone = &exclusive{make: once(func(a at) string { return makeAlone(t, a, b, &s.counts) })}
	s.served = once(func(a at) served { return makeServed(t, a, b) })
	s.told = once(func(a at) told { return makeTold(t, a) })
	s.plain = once(makePlain)
	s.fed = once(func(a at) fed { return makeFed(t, a, b) })
	s.crashed = once(func(a at) bed.Output {
		t.Cleanup(func() { b.Try("rm", "-f", "crashed") })
		return a.run("--name", "crashed", "busybox", "sh", "-c",
			"i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; kill -9 $$")
	})
	s.signalled = once(func(a at) bed.Output { return makeSignalled(t, a, b) })
	s.well = once(func(a at) well { return makeWell(t, a, b) })
	s.life = once(func(a at) *life { return live(t, a, b) })
	return s
}

// once returns a function that makes something the first time, for whichever row asks.
func once[T any](make func(at) T) func(at) T {
	var begin sync.Once
	var made T
	var well bool
	return func(a at) T {
		begin.Do(func() { made = make(a); well = true })
		if !well {
			a.t.Fatalf("what it shares with other rows was not to be had: the first of them says why")
		}
		return made
	}
}

// exclusive is an environment that one row has at a time.
type exclusive struct {
	make func(at) string
	held sync.Mutex
}

// of returns its name, for this row until it ends.
func (e *exclusive) of(t *testing.T, a at) string {
	e.held.Lock()
	t.Cleanup(e.held.Unlock)
	return e.make(a)
}

// begin starts an environment that other rows use as well.
func (a at) begin(name string, args ...string) {
	a.t.Helper()
	if out := a.run(append([]string{"-d", "--name", name}, args...)...); out.Status != 0 {
		a.t.Fatalf("start %s: exit status %d\n%s", name, out.Status, out.Stderr)
	}
}

// stillSays is what the main program of still's environment writes when it begins.
const stillSays = `echo "user $(id -u):$(id -g), host $(hostname), in $(pwd), $A $B $HOSTNAME $HOME"; exec sleep 1000000`

// stillPath is its PATH.
const stillPath = "/bin:/sbin:/usr/bin:/usr/sbin:/odd"

// still returns the name of an environment of the stratum that runs, for rows that only
// look at it by exec, and write nothing that another could see.
func (a at) still() string { return a.shared.still(a) }

// makeAlone starts one that counts in a file of a volume.
func makeAlone(t *testing.T, a at, b *bed.Bed, counts *string) string {
	dir := t.TempDir()
	*counts = filepath.Join(dir, "n")
	os.Chmod(dir, 0o777)
	t.Cleanup(func() { // it is removed while it is paused
		if b.Run("pause", "alone"); b.Try("rm", "-f", "alone").Status != 0 {
			t.Error("what is paused cannot be removed")
		}
	})
	a.begin("alone", "-v", dir+":/v", "busybox", "sh", "-c",
		"echo mark > /tmp/mark; sleep 1001 & i=0; while :; do i=$((i+1)); echo $i > /v/n.new; mv /v/n.new /v/n; sleep 0.2; done")
	return "alone"
}

// served is an environment with a published port and a health check, as it was at first.
type served struct {
	name, port string
	first      api.Environment
}

func makeServed(t *testing.T, a at, b *bed.Bed) served {
	s := served{name: "served", port: freePort()}
	t.Cleanup(func() { b.Try("rm", "-f", s.name) })
	a.begin(s.name, "-p", s.port+":80", "--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "2",
		"busybox", "sh", "-c", "while :; do echo served | nc -l -p 80; done")
	s.first = a.show(a.t, s.name)
	return s
}

// told is what a program told of itself and has ended since.
type told struct {
	out  bed.Output
	part map[string]string // its standard output, by what was asked
	dir  string            // of its volume
}

// tell runs each line of ask in one shell, the main program of a fresh environment that is
// removed afterwards, then ends the shell by last.
func (a at) tell(name string, flags []string, last string, ask [][2]string) told {
	script := ""
	for _, q := range ask {
		script += "printf '\\n== " + q[0] + "\\n'; " + q[1] + "\n"
	}
	args := append([]string{"run", "--stratum", a.stratum, "--rm", "--name", name}, flags...)
	said := told{out: a.Feed(strings.NewReader("unseen"), append(args, "busybox", "sh", "-c", script+last)...), part: map[string]string{}}
	for _, part := range strings.Split(said.out.Stdout, "\n== ")[1:] {
		of, text, _ := strings.Cut(part, "\n")
		said.part[of] = strings.TrimSuffix(text, "\n")
	}
	return said
}

// makeTold runs one as root.
func makeTold(t *testing.T, a at) told {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	file := filepath.Join(dir, "of-1234")
	if err := os.WriteFile(file, []byte("from outside"), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Chown(file, 1234, 1235); err != nil {
		a.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		a.t.Fatal(err)
	}
	said := a.tell("told", []string{"-w", "/made/on/demand", "--hostname", "other", "--memory", "64M",
		"-v", dir + ":/v", "-v", dir + ":/ro:ro", "-v", file + ":/etc/one:ro", "-v", self + ":/check:ro"}, "exit 255", [][2]string{
		{"workdir", "pwd"},
		{"hostname", "hostname; cat /etc/hostname /etc/hosts"},
		{"stdin", "wc -c"},
		{"path", "echo $PATH"},
		{"apart", "for i in 1 2 3; do echo out$i; echo err$i >&2; done"},
		{"memory", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"},
		{"owners", "stat -c %u:%g /v/of-1234; cat /v/of-1234; echo inside > /v/new; chown 4321:4322 /v/new; cat /etc/one"},
		{"read-only", "touch /ro/x 2>&1 && echo touched"},
		{"semantics", "/check " + insideVolume + " /v 2>&1"},
		{"privileges", triesOfRoot() + "grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status | tr -d '\\t'"},
	})
	said.dir = dir
	return said
}

// makePlain runs one as a user.
func makePlain(a at) told {
	return a.tell("plain", []string{"-u", "1000", "--new-privileges", "--read-only", "--tmpfs", "/scratch:size=1M", "--network", "none"}, "exit 1", [][2]string{
		{"workdir", "pwd"},
		{"user", "id -u; id -g; echo out > /dev/stdout; echo err > /dev/stderr"},
		{"network", "ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1"},
		{"scratch", "echo yes > /scratch/file && cat /scratch/file; cat /etc/hostname >/dev/null; df -k /scratch | tail -1 | awk '{print $2}'"},
		{"read-only", "touch /file 2>&1 && echo touched"},
		{"privileges", "grep -E '^(NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\t'"},
	})
}

// fed is one that got data, gave it back on both of its outputs, and ended by a signal
// when there was no more.
type fed struct {
	data string
	out  bed.Output
	exit *api.Exit
}

func makeFed(t *testing.T, a at, b *bed.Bed) fed {
	data := make([]byte, 10<<20)
	rand.Read(data)
	t.Cleanup(func() { b.Try("rm", "-f", "fed") })
	f := fed{data: string(data)}
	f.out = a.Feed(bytes.NewReader(data), "run", "--stratum", a.stratum, "-i", "--name", "fed", "busybox", "sh", "-c", "tee /dev/stderr; kill -11 $$")
	f.exit = a.show(a.t, "fed").Exit
	return f
}

// makeSignalled runs one that is sent USR1 by name, INT by way of its caller, and is
// stopped by the stop signal of its own, USR2.
func makeSignalled(t *testing.T, a at, b *bed.Bed) bed.Output {
	const name = "signalled"
	ctx, cancel := context.WithTimeout(t.Context(), bed.Patience)
	defer cancel()
	t.Cleanup(func() { b.Try("rm", "-f", name) })
	cmd := a.Command(ctx, "run", "--stratum", a.stratum, "--name", name, "--stop-signal", "USR2", "busybox", "sh", "-c",
		`trap 'echo got usr1' USR1; trap 'echo got int' INT; trap 'echo asked; exit 6' USR2; echo up; while :; do sleep 0.05; done`)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	defer cmd.Wait()
	var out bytes.Buffer
	hears := func(word string) {
		for buf := make([]byte, 256); !strings.Contains(out.String(), word); {
			n, err := pipe.Read(buf)
			if out.Write(buf[:n]); err != nil {
				a.t.Fatalf("it never said %q: %v; it said %q", word, err, out.String())
			}
		}
	}
	hears("up")
	a.Run("kill", "-s", "USR1", name)
	hears("got usr1")
	cmd.Process.Signal(syscall.SIGINT)
	hears("got int")
	begun := time.Now()
	a.Run("stop", name)
	hears("asked")
	cmd.Wait()
	return bed.Output{Stdout: out.String(), Status: cmd.ProcessState.ExitCode(), Took: time.Since(begun)}
}

// well is one whose restart policy is on-failure, and which ended well, with what it wrote.
type well struct {
	follow, since bed.Output
	env           api.Environment
}

func makeWell(t *testing.T, a at, b *bed.Bed) well {
	const name = "well"
	t.Cleanup(func() { b.Try("rm", "-f", name) })
	a.begin(name, "--restart", "on-failure", "busybox", "sh", "-c", "echo early; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late")
	until(a.t, "it wrote", 10*time.Second, func() bool { return a.Run("logs", name) == "early" })
	since := time.Now().UTC().Format(time.RFC3339Nano)
	go func() { a.exec(a.t, name, "touch /tmp/go") }()
	var w well
	w.follow = a.Try("logs", "-f", name)
	w.since = a.Try("logs", "--since", since, name)
	until(a.t, "it stopped", 10*time.Second, func() bool { w.env = a.show(a.t, name); return w.env.State == "stopped" })
	return w
}
