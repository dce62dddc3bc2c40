package drivertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
)

// usualPatience is a fixture's Patience where it says none.
var usualPatience = require.Patience(20 * time.Second)

// usualCrowd is a fixture's Crowd where it says none.
const usualCrowd = 20

// Fixture is a driver under test and what belongs to it.
type Fixture struct {
	Driver stratum.Driver
	// Again returns another Driver for the same runs, as after a restart of the daemon.
	Again func(t *testing.T) stratum.Driver
	// Plan returns a plan that could be started: id, layers, disk, ids and log are
	// set, and no main program. Each call makes another environment.
	Plan func(t *testing.T) stratum.Plan
	// Host tells what of this fixture's the host holds (mounts, loop devices,
	// control groups, links, files), for comparison.
	Host func(t *testing.T) string
	// Folder returns a new folder of the host that programs inside may be shown.
	Folder func(t *testing.T) string
	// NoGrowth is why a disk in use does not grow here; nil: it does.
	NoGrowth error
	// Patience bounds every single step of a case; 0: 20 s.
	Patience time.Duration
	// Crowd is how many are started at once, where that is the case; 0: 20.
	Crowd int
}

// Layer makes an EROFS image of the busybox template for t.
func Layer(t testing.TB) string {
	t.Helper()
	busybox := require.Tool(t, "busybox")
	mkfs := require.Tool(t, "mkfs.erofs")
	root := t.TempDir()
	os.Chmod(root, 0o755)
	file := func(name, text string, mode os.FileMode) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, mode)
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	file("bin/busybox", string(data), 0o755)
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			os.Symlink("busybox", filepath.Join(root, "bin", applet))
		}
	}
	file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n", 0o644)
	file("etc/group", "root:x:0:\nalice:x:1000:\nwheel:x:10:alice\nstaff:x:50:\n", 0o644)
	file("usr/share/plain", "no program\n", 0o644)
	file("usr/share/garbage", "\x01\x02\x03\x04", 0o755)
	file("usr/share/lost", "#!/no/such/interpreter\n", 0o755)
	for _, dir := range []string{"tmp", "root", "home/alice", "proc", "sys", "dev", "run", "var"} {
		os.MkdirAll(filepath.Join(root, dir), 0o755)
	}
	os.Chmod(filepath.Join(root, "tmp"), 0o1777)
	os.Chown(filepath.Join(root, "home/alice"), 1000, 1000)
	os.Symlink("../../../../../../etc", filepath.Join(root, "var/escape"))
	image := filepath.Join(t.TempDir(), "busybox.erofs")
	if text, err := exec.Command(mkfs, image, root).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, text)
	}
	return image
}

// suite is a fixture in use by one case.
type suite struct {
	*testing.T
	Fixture
	ctx context.Context
}

var names atomic.Int64

// app returns a plan that runs args.
func (s *suite) app(args ...string) stratum.Plan {
	s.Helper()
	p := s.Plan(s.T)
	p.Name = fmt.Sprintf("case%d", names.Add(1))
	p.Hostname = p.Name
	p.Main = stratum.Process{Args: args, Env: []string{"PATH=/bin:/sbin", "COLOUR=blue"}}
	return p
}

func (s *suite) sh(script string) stratum.Plan { s.Helper(); return s.app("/bin/sh", "-c", script) }

// run is a running program with its streams, seen from a client.
type run struct {
	s      *suite
	id     string
	live   stratum.Live
	client *os.File
	out    chan result
}

// result is what a program said until its end.
type result struct {
	stdout, stderr string
	ended          stream.Ended
	failure        string
	whole          bool // the last frame was there
}

// start starts p with a client attached.
func (s *suite) start(p stratum.Plan, change ...func(*stratum.Plan)) *run {
	s.Helper()
	for _, c := range change {
		c(&p)
	}
	r, err := s.try(p)
	if err != nil {
		s.Fatalf("start %q: %v", p.Main.Args, err)
	}
	return r
}

func (s *suite) try(p stratum.Plan) (*run, error) {
	s.Helper()
	ours, theirs := pair(s.T)
	defer theirs.Close()
	live, err := s.Driver.Start(s.ctx, p, stratum.StartOptions{Attach: theirs})
	if err != nil {
		ours.Close()
		return nil, err
	}
	r := &run{s: s, id: p.ID, live: live, client: ours, out: listen(ours)}
	s.Cleanup(func() { r.end() })
	return r, nil
}

// end kills what still runs and cleans up.
func (r *run) end() {
	r.live.Kill(r.s.ctx)
	if _, err := r.live.Wait(r.s.ctx); err != nil {
		r.s.Errorf("wait for the end: %v", err)
	}
	if _, err := r.s.Driver.Clean(r.s.ctx, r.id); err != nil {
		r.s.Errorf("clean: %v", err)
	}
	r.client.Close()
}

// wait returns all output and the exit status.
func (r *run) wait() result {
	r.s.Helper()
	select {
	case got := <-r.out:
		r.out <- got
		if !got.whole {
			r.s.Fatalf("the stream ended without an exit frame: %+v", got)
		}
		return got
	case <-time.After(r.s.Patience):
		r.s.Fatal("the program does not end")
		panic("not reached")
	}
}

// say sends a frame to the program.
func (r *run) say(kind stream.Type, payload []byte) {
	r.s.Helper()
	if err := stream.Write(r.client, kind, payload); err != nil {
		r.s.Fatal(err)
	}
}

func (r *run) exec(args ...string) result { r.s.Helper(); return r.execAs(stratum.Process{Args: args}) }

func (r *run) execAs(p stratum.Process) result {
	r.s.Helper()
	x, err := r.tryExec(p)
	if err != nil {
		r.s.Fatalf("exec %q: %v", p.Args, err)
	}
	return x.wait()
}

func (r *run) tryExec(p stratum.Process) (*run, error) {
	r.s.Helper()
	if p.Env == nil {
		p.Env = []string{"PATH=/bin:/sbin"}
	}
	ours, theirs := pair(r.s.T)
	defer theirs.Close()
	if err := r.live.Exec(r.s.ctx, p, theirs); err != nil {
		ours.Close()
		return nil, err
	}
	r.s.Cleanup(func() { ours.Close() })
	return &run{s: r.s, live: r.live, client: ours, out: listen(ours)}, nil
}

// output starts p and returns what it wrote to standard output, without the last
// end of line; it must succeed.
func (s *suite) output(p stratum.Plan) string {
	s.Helper()
	got := s.start(p).wait()
	if got.ended.Status != 0 {
		s.Errorf("%q ended with %+v\n%s%s", p.Main.Args, got.ended, got.stdout, got.stderr)
	}
	return strings.TrimSpace(got.stdout)
}

// exit starts p and returns how the run ended, from Wait.
func (s *suite) exit(p stratum.Plan) api.Exit {
	s.Helper()
	e, err := s.start(p).live.Wait(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return e
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if got != want {
		s.Errorf("%s is %v; want %v", what, got, want)
	}
}

func (s *suite) contains(what, text, part string) {
	s.Helper()
	if !strings.Contains(text, part) {
		s.Errorf("%s lacks %q: %q", what, part, text)
	}
}

// eventually waits until is is true.
func (s *suite) eventually(what string, is func() bool) {
	s.Helper()
	for end := time.Now().Add(s.Patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not in time: %s", what)
		}
	}
}

func pair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "program")
}

// listen collects frames until the last one.
func listen(f *os.File) chan result {
	out := make(chan result, 1)
	go func() {
		var r result
		defer func() { out <- r }()
		for frames := stream.NewReader(f); ; {
			kind, payload, err := frames.Next()
			if err != nil {
				return
			}
			switch kind {
			case stream.Stdout:
				r.stdout += string(payload)
			case stream.Stderr:
				r.stderr += string(payload)
			case stream.Failure:
				r.failure, r.whole = string(payload), true
				return
			case stream.Exit:
				r.ended, err = stream.ParseExit(payload)
				r.whole = err == nil
				return
			}
		}
	}()
	return out
}
