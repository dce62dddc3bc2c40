package resource

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
	"golang.org/x/sys/unix"
)

// childVariable makes the test binary play a process in a group.
const childVariable = "STRATA_RESOURCE_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVariable); what != "" {
		child(what)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child waits for a line on its input, does what it is told and says how it went.
func child(what string) {
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	switch word, arg, _ := strings.Cut(what, " "); word {
	case "open":
		f, err := os.OpenFile(arg, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		fmt.Println(errors.Is(err, unix.EPERM), err)
	case "eat":
		mem := make([]byte, 64<<20)
		for i := 0; i < len(mem); i += 4096 {
			mem[i] = 1
		}
		fmt.Println("ate")
		runtime.KeepAlive(mem)
	case "write":
		err := os.WriteFile(arg, make([]byte, 64<<20), 0o600)
		if err == nil {
			var f *os.File
			if f, err = os.Open(arg); err == nil {
				err = f.Sync()
				f.Close()
			}
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("wrote")
		}
	case "read":
		f, err := os.Open(arg)
		if err == nil {
			_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
		}
		fmt.Println("read", err)
	case "devour":
		for mem := [][]byte{}; ; {
			mem = append(mem, bytes.Repeat([]byte{1}, 4<<20))
		}
	case "spin":
		fmt.Println("spinning")
		//lint:ignore SA5002 it is to use a processor
		for {
		}
	}
	_, _ = in.ReadString('\n')
}

var counter atomic.Int64

// realRoot makes a root of the test's own on this host and proves that nothing
// of it is left afterwards.
func realRoot(t testing.TB) *Root {
	t.Helper()
	require.Root(t)
	r, err := Open(fmt.Sprintf("strata-test-%d-%d", os.Getpid(), counter.Add(1)))
	require.Host(t, "cgroup", err == nil || !fault.Is(err, fault.Unable) && !fault.Is(err, fault.Denied), fmt.Sprint(err))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		for _, dir := range r.dirs {
			if exists(dir) {
				t.Errorf("%s is left", dir)
			}
		}
	})
	return r
}

type process struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Reader
}

// spawn starts the test binary inside the group, the way Run and OpenUnified are meant
// to be used.
func spawn(t testing.TB, g *Group, what string) *process {
	t.Helper()
	return born(t, g.OpenUnified, g.Run, what)
}

// spawnKeeper starts it in the place of the keeper.
func spawnKeeper(t testing.TB, g *Group, what string) *process {
	t.Helper()
	return born(t, g.OpenKeeper, g.RunKeeper, what)
}

func born(t testing.TB, open func() (*os.File, error), run func(func() error) error, what string) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+what, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dir, err := open(); err == nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	} else if !fault.Is(err, fault.Unable) { // there is no unified hierarchy
		t.Fatal(err)
	}
	if err := run(cmd.Start); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); w.Close() })
	return &process{cmd, w, bufio.NewReader(out)}
}

func (p *process) step(t testing.TB) string {
	t.Helper()
	fmt.Fprintln(p.in)
	line, err := p.out.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func create(t testing.TB, r *Root, id string, l Limits, owner uint32) *Group {
	t.Helper()
	g, err := r.Create(t.Context(), id, l, DefaultDevices(), owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Kill(context.Background())
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return g
}

func TestLimitsAreWhatTheGroupSays(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{Memory: 64 * unit.MiB, CPUs: 500, PIDs: 20}, 0)
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 64*unit.MiB || s.PIDs.Limit != 20 {
		t.Errorf("got %+v", s)
	}
	if err := g.Set(Limits{}); err != nil {
		t.Fatal(err)
	}
	if s, _ = g.Stats(); s.Memory.Limit != Unlimited || s.PIDs.Limit != Unlimited {
		t.Errorf("limits are left: %+v", s)
	}
	for _, size := range []unit.Size{128 * unit.MiB, 32 * unit.MiB, 256 * unit.MiB} {
		if err := g.Set(Limits{Memory: size}); err != nil {
			t.Fatal(err)
		}
		if s, _ = g.Stats(); s.Memory.Limit != int64(size) {
			t.Errorf("limit is %d, want %d", s.Memory.Limit, size)
		}
	}
}

func TestNamesAndConflicts(t *testing.T) {
	r := realRoot(t)
	create(t, r, "a", Limits{}, 0)
	if _, err := r.Create(t.Context(), "a", Limits{}, nil, 0); !fault.Is(err, fault.Conflict) {
		t.Errorf("the second group of a name: %v", err)
	}
	if ids, err := r.List(); err != nil || !slices.Equal(ids, []string{"a"}) {
		t.Errorf("listed %v, %v", ids, err)
	}
	if _, err := r.Find("a"); err != nil {
		t.Error(err)
	}
	if _, err := r.Find("b"); !fault.Is(err, fault.Missing) {
		t.Errorf("found what is not there: %v", err)
	}
	for _, id := range []string{"", "..", "a/b", "../x", "-a", strings.Repeat("x", 65)} {
		if _, err := r.Create(t.Context(), id, Limits{}, nil, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestAFailedCreateLeavesNothing(t *testing.T) {
	r := realRoot(t)
	// Take the name in the last hierarchy only: the ones before are made and must go.
	last := r.dirs[len(r.dirs)-1] + "/a"
	if err := os.Mkdir(last, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(t.Context(), "a", Limits{}, nil, 0); !fault.Is(err, fault.Conflict) {
		t.Fatalf("got %v", err)
	}
	for _, dir := range r.dirs[:len(r.dirs)-1] {
		if exists(dir + "/a") {
			t.Errorf("%s/a is left", dir)
		}
	}
	if !exists(last) {
		t.Error("what was there before is gone")
	}
}

func TestDevicesAreClosedUnlessAllowed(t *testing.T) {
	r := realRoot(t)
	t.Logf("by BPF: %v", r.programs != nil)
	g := create(t, r, "a", Limits{}, 0)
	dir := t.TempDir()
	for _, c := range []struct {
		name         string
		major, minor uint32
		refused      bool
	}{{"null", 1, 3, false}, {"urandom", 1, 9, false}, {"mem", 1, 1, true}, {"loop-control", 10, 237, true}, {"kmsg", 1, 11, true}} {
		path := filepath.Join(dir, c.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(c.major, c.minor))); err != nil {
			t.Fatal(err)
		}
		got := spawn(t, g, "open "+path).step(t)
		if strings.HasPrefix(got, "true") != c.refused {
			t.Errorf("%s: refused is %s", c.name, got)
		}
	}
}

func TestTooMuchMemoryIsCountedAsAKill(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{Memory: 32 * unit.MiB, Swap: new(unit.Size)}, 0)
	p := spawn(t, g, "eat")
	if got := p.step(t); got == "ate" {
		t.Fatal("64M went into 32M")
	}
	err := p.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("ended with %v", err)
	}
	s, err := g.Stats()
	if err != nil || s.Memory.Kills != 1 {
		t.Errorf("counted %d kills, %v", s.Memory.Kills, err)
	}
	file, key := g.OOMSource()
	counts, err := keys(filepath.Dir(file), filepath.Base(file))
	if err != nil || counts[key] != 1 {
		t.Errorf("%s of %s is %d, %v", key, file, counts[key], err)
	}
}

func TestALimitBelowWhatIsHeldIsBusy(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{Memory: 200 * unit.MiB, Swap: new(unit.Size)}, 0)
	p := spawn(t, g, "eat")
	if got := p.step(t); got != "ate" {
		t.Fatal(got)
	}
	err := g.Set(Limits{Memory: 16 * unit.MiB, Swap: new(unit.Size)})
	if !fault.Is(err, fault.Busy) {
		t.Errorf("got %v", err)
	}
	t.Log(err)
	if s, _ := g.Stats(); s.Memory.Limit != 200*unit.MiB || s.Memory.Anon < 64*unit.MiB {
		t.Errorf("got %+v", s.Memory)
	}
}

func TestFreezeHoldsAndKillReachesEverybody(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{}, 0)
	var all []*process
	for range 3 {
		p := spawn(t, g, "spin")
		p.step(t)
		all = append(all, p)
	}
	pids, err := g.Processes()
	if err != nil || len(pids) != 3 {
		t.Fatalf("%v, %v", pids, err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if on, err := g.Frozen(); !on || err != nil {
		t.Errorf("frozen is %v, %v", on, err)
	}
	before, _ := g.Stats()
	time.Sleep(30 * time.Millisecond) // real time must pass for the clock to stand still in
	after, _ := g.Stats()
	if before.CPU.Usage == 0 || after.CPU.Usage-before.CPU.Usage > int64(10*time.Millisecond) { // they would take 30 or more
		t.Errorf("used %d ns before and %d while frozen", before.CPU.Usage, after.CPU.Usage-before.CPU.Usage)
	}
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		_ = p.Wait()
	}
	if pids, err := g.Processes(); err != nil || len(pids) != 0 {
		t.Errorf("%v, %v are left", pids, err)
	}
}

func TestKillWithoutTheUnifiedHierarchy(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{}, 0)
	p := spawn(t, g, "spin")
	p.step(t)
	if err := g.killEach(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
}

func TestRemoveWaitsAndSaysWhoStays(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{}, 0)
	p := spawn(t, g, "wait")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !fault.Is(err, fault.Busy) {
		t.Errorf("removed a group with a process: %v", err)
	}
	dead := make(chan error)
	go func() { _ = g.Kill(context.Background()); dead <- p.Wait() }()
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	<-dead
	if err := g.Remove(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Errorf("kill of a gone group: %v", err)
	}
	if _, err := g.Stats(); !fault.Is(err, fault.Missing) {
		t.Errorf("figures of a gone group: %v", err)
	}
}

// TestAKeeperIsInTheGroupButNotItsPayload has a keeper outlive what the group's limits and
// kills are for, and the group itself.
func TestAKeeperIsInTheGroupButNotItsPayload(t *testing.T) {
	r := realRoot(t)
	canPin(t, r)
	ctx := t.Context()
	g := create(t, r, "a", Limits{Memory: 32 * unit.MiB}, 0)
	payload, keeper := spawn(t, g, "wait"), spawnKeeper(t, g, "eat")
	if got := keeper.step(t); got != "ate" { // twice the limit
		t.Fatalf("the keeper says %q", got)
	}
	s, err := g.Stats()
	if err != nil || s.Memory.Current > 32*unit.MiB || s.Memory.Kills != 0 {
		t.Errorf("the payload: %+v, %v", s.Memory, err)
	}
	if held, most, err := g.Whole(); err != nil || held < 64*unit.MiB || most != 0 && most < held {
		t.Errorf("both hold %d, at most %d, %v", held, most, err)
	}
	if err := g.Set(Limits{CPUSet: "0"}); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*process{payload, keeper} {
		if got := runsOn(t, one.Process.Pid); got != "0" {
			t.Errorf("%d runs on %s", one.Process.Pid, got)
		}
	}
	if pids, err := g.Processes(); err != nil || !slices.Equal(pids, []int{payload.Process.Pid}) {
		t.Errorf("the payload is %v, %v", pids, err)
	}
	if err := g.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	_ = payload.Wait()
	if err := g.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Find("a"); !fault.Is(err, fault.Missing) {
		t.Errorf("with a keeper that stays the group is there: %v", err)
	}
	if ids, err := r.List(); err != nil || len(ids) != 0 {
		t.Errorf("listed are %v, %v", ids, err)
	}
	if got := keeper.step(t); got != "EOF" { // it went on until it was told to end
		t.Errorf("the keeper says %q", got)
	}
	_ = keeper.Wait()

	g = create(t, r, "a", Limits{}, 0)
	keeper = spawnKeeper(t, g, "wait")
	if err := r.Remove(ctx); err != nil {
		t.Error(err)
	}
	if err := keeper.Wait(); err == nil {
		t.Error("a keeper was left by the end of all")
	}
}

func TestAnOwnerMayDivideButNotWiden(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "a", Limits{Memory: 64 * unit.MiB}, 100000)
	require.Host(t, "cgroup-unified", g.unified() != "", "there is no unified hierarchy")
	dir := g.leaf(initLeaf)
	var st unix.Stat_t
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Stat(filepath.Join(dir, file), &st); err != nil || st.Uid != 100000 {
			t.Errorf("%s belongs to %d, %v", file, st.Uid, err)
		}
	}
	for _, file := range []string{"cgroup.max.descendants", "cgroup.freeze", "cgroup.kill"} {
		if unix.Stat(filepath.Join(dir, file), &st) == nil && st.Uid != 0 {
			t.Errorf("%s was handed over", file)
		}
	}
	for _, below := range []string{"/x", "/x/y", "/z"} {
		if err := os.Mkdir(dir+below, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestARootIsTakenOver(t *testing.T) {
	r := realRoot(t)
	create(t, r, "a", Limits{}, 0)
	again, err := Open(r.name)
	if err != nil {
		t.Fatal(err)
	}
	if ids, _ := again.List(); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("listed %v", ids)
	}
	t.Logf("%+v in %v", again.Layout(), again.dirs)
}

func BenchmarkCreateRemove(b *testing.B) {
	r := realRoot(b)
	var made, removed []time.Duration
	for b.Loop() {
		start := time.Now()
		g, err := r.Create(b.Context(), "x", Limits{Memory: unit.GiB, CPUs: 1000, PIDs: 100}, DefaultDevices(), 0)
		if err != nil {
			b.Fatal(err)
		}
		mid := time.Now()
		if err := g.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		made, removed = append(made, mid.Sub(start)), append(removed, time.Since(mid))
	}
	slices.Sort(made)
	slices.Sort(removed)
	b.ReportMetric(float64(made[len(made)/2].Microseconds()), "create-median-µs")
	b.ReportMetric(float64(removed[len(removed)/2].Microseconds()), "remove-median-µs")
}
