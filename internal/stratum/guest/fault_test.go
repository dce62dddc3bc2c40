package guest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/unit"
)

// sleeping is a plan whose program only waits.
func (r *root) sleeping(t *testing.T) stratum.Plan {
	p := r.Plan(t)
	p.Main = stratum.Process{Args: []string{"sleep", "999"}, Env: []string{"PATH=/bin"}}
	return p
}

func (r *root) start(t *testing.T, p stratum.Plan) stratum.Live {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	live, err := r.driver.Start(ctx, p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		live.Kill(context.Background()) // it may be over
		end, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		live.Wait(end) // nobody writes into its folder then
		if _, err := r.driver.Clean(context.Background(), p.ID); err != nil {
			t.Error(err)
		}
	})
	return live
}

func ended(t *testing.T, live stratum.Live) api.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := live.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// machine returns the process of QEMU itself in the control group of a run.
func (r *root) machine(id string) (pid int, found bool) {
	status, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range status {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), r.Places.Name("stratatest")+"/"+id) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if strings.Contains(string(line), "qemu-system") {
			return pid, true
		}
	}
	return 0, false
}

// left fails where the host does not get back to how it was.
func (r *root) left(t *testing.T, before string) {
	t.Helper()
	var after string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if after = r.host(t); after == before {
			return
		}
	}
	t.Errorf("the host has\n%s\nand had\n%s", after, before)
}

func TestAMachineThatDiesWhileItBootsFailsTheStart(t *testing.T) {
	r := newRoot(t)
	before := r.host(t)
	p := r.sleeping(t)
	p.Cold = true // one that was saved would be booted after all
	go func() {
		for ; t.Context().Err() == nil; time.Sleep(time.Millisecond) {
			if pid, ok := r.machine(p.ID); ok {
				time.Sleep(300 * time.Millisecond) // it takes a second on an idle host
				syscall.Kill(pid, syscall.SIGKILL)
				return
			}
		}
	}()
	live, err := r.driver.Start(t.Context(), p, stratum.StartOptions{})
	if err == nil {
		live.Kill(t.Context())
		t.Fatal("it was started")
	}
	if fault.KindOf(err) != fault.Unable || !strings.Contains(err.Error(), "the machine ended before its program started: QEMU was killed by signal 9") {
		t.Errorf("the start failed with: %v", err)
	}
	r.left(t, before)
}

func TestAMachineThatDiesIsACrash(t *testing.T) {
	r := newRoot(t)
	before := r.host(t)
	p := r.sleeping(t)
	live := r.start(t, p)
	pid, ok := r.machine(p.ID)
	if !ok {
		t.Fatal("there is no QEMU")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	e := ended(t, live)
	if e.Status != 137 || e.Signal != 9 || !strings.Contains(e.Crash, "QEMU was killed") {
		t.Errorf("the run ended with %+v", e)
	}
	if written, err := r.driver.Clean(t.Context(), p.ID); err != nil || written == nil || written.Crash != e.Crash {
		t.Errorf("Clean = %+v, %v", written, err)
	}
	r.left(t, before)
}

// TestAMachineThatEndsWhileSomethingIsAskedOfItSaysSo: each has its answer still to come when QEMU
// is killed.
func TestAMachineThatEndsWhileSomethingIsAskedOfItSaysSo(t *testing.T) {
	for word, ask := range map[string]func(context.Context, stratum.Live, string) error{
		"pause": func(ctx context.Context, live stratum.Live, _ string) error { return live.(stratum.Pauser).Pause(ctx) },
		"suspend": func(ctx context.Context, live stratum.Live, dir string) error {
			return live.(stratum.Suspender).Suspend(ctx, dir)
		},
	} {
		t.Run(word, func(t *testing.T) {
			r := newRoot(t)
			p := r.sleeping(t)
			live := r.start(t, p)
			pid, ok := r.machine(p.ID)
			if !ok {
				t.Fatal("there is no QEMU")
			}
			syscall.Kill(pid, syscall.SIGSTOP)
			asked := make(chan error)
			go func() { asked <- ask(t.Context(), live, filepath.Join(t.TempDir(), "suspended")) }()
			time.Sleep(100 * time.Millisecond)
			syscall.Kill(pid, syscall.SIGKILL)
			if err := <-asked; !fault.Is(err, fault.Conflict) || !strings.HasSuffix(err.Error(), "the system has ended") || len(fault.All(err)) != 1 {
				t.Errorf("%s says: %v", word, err)
			}
		})
	}
}

// TestASuspendedSystemThatQEMUDoesNotTakeSaysWhy, by QEMU's own last words, and is kept.
func TestASuspendedSystemThatQEMUDoesNotTakeSaysWhy(t *testing.T) {
	r := newRoot(t)
	p := r.sleeping(t)
	live := r.start(t, p)
	p.Saved = filepath.Join(t.TempDir(), "suspended")
	if err := live.(stratum.Suspender).Suspend(t.Context(), p.Saved); err != nil {
		t.Fatal(err)
	}
	if err := live.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended(t, live)
	if _, err := r.driver.Clean(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	state, err := os.OpenFile(filepath.Join(p.Saved, "state"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if _, err := state.WriteAt([]byte("none"), 0); err != nil {
		t.Fatal(err)
	}
	before := r.host(t)
	for range 3 { // whether its keeper has seen the end yet is up to the host
		again, err := r.driver.Start(t.Context(), p, stratum.StartOptions{})
		if err == nil {
			again.Kill(t.Context())
			t.Fatal("it goes on")
		}
		if fault.KindOf(err) != fault.Unable || !strings.Contains(err.Error(), "QEMU ended with exit status 1; it wrote: ") {
			t.Errorf("it says: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(p.Saved, "state")); err != nil {
		t.Error(err)
	}
	r.left(t, before)
}

func TestAKeeperThatDiesIsACrash(t *testing.T) {
	r := newRoot(t)
	before := r.host(t)
	p := r.sleeping(t)
	live := r.start(t, p)
	syscall.Kill(live.KeeperPID(), syscall.SIGKILL)
	if e := ended(t, live); e.Signal != 9 || e.Crash != "the keeper was lost" {
		t.Errorf("the run ended with %+v", e)
	}
	if _, err := r.driver.Clean(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	if _, there := r.machine(p.ID); there {
		t.Error("QEMU goes on without its keeper")
	}
	r.left(t, before)
}

// tell runs a program inside, without waiting for its end.
func tell(t *testing.T, live stratum.Live, args ...string) *os.File {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "program")
	t.Cleanup(func() { ours.Close() })
	defer theirs.Close()
	if err := live.Exec(t.Context(), stratum.Process{Args: args, Env: []string{"PATH=/bin"}}, theirs); err != nil {
		t.Fatalf("exec %q: %v", args, err)
	}
	return ours
}

// output is all that a program has written that tell has started.
func output(t *testing.T, f *os.File) string {
	t.Helper()
	var all []byte
	for frames := stream.NewReader(f); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case stream.Stdout:
			all = append(all, payload...)
		case stream.Exit:
			return string(all)
		}
	}
}

// status waits for the end of a program that tell has started.
func status(t *testing.T, f *os.File) int {
	t.Helper()
	for frames := stream.NewReader(f); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == stream.Exit {
			e, _ := stream.ParseExit(payload)
			return int(e.Status)
		}
	}
}

func TestAKernelThatPanicsIsACrashWithItsLastWords(t *testing.T) {
	r := newRoot(t)
	before := r.host(t)
	p := r.Plan(t)
	// The init of a system may do all that its kernel can.
	p.System, p.Main = true, stratum.Process{Args: []string{"/bin/sh", "-c", "while :; do sleep 1; done"}}
	live := r.start(t, p)
	began := time.Now()
	tell(t, live, "sh", "-c", "sleep 0.3; echo c >/proc/sysrq-trigger") // an answer comes first
	e := ended(t, live)
	t.Logf("seen after %s: %+v", time.Since(began), e)
	if !strings.Contains(e.Crash, "its kernel panicked") || !strings.Contains(e.Crash, "sysrq triggered crash") || e.Status == 0 {
		t.Errorf("the run ended with %+v", e)
	}
	if _, err := r.driver.Clean(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	r.left(t, before)
}

func TestADiskIsOneMachinesAtATime(t *testing.T) {
	r := newRoot(t)
	first := r.sleeping(t)
	live := r.start(t, first)
	before := r.host(t)
	for _, cold := range []bool{false, true} {
		second := r.sleeping(t)
		second.Disk, second.Cold = first.Disk, cold
		_, err := r.driver.Start(t.Context(), second, stratum.StartOptions{})
		if err == nil {
			t.Fatal("two machines have the same disk")
		}
		got := fault.All(err)[0]
		if got.Kind != fault.Conflict || got.Field != "disk" {
			t.Errorf("the fault is %s at %q: %v", got.Kind, got.Field, err)
		}
		r.left(t, before)
	}
	if status(t, tell(t, live, "touch", "/root/still")) != 0 {
		t.Error("the first cannot write any more")
	}
}

// limited tells what the kernel inside keeps the environment's programs to.
func limited(t *testing.T, live stratum.Live) string {
	t.Helper()
	return output(t, tell(t, live, "sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | tr '\\n' ' '"))
}

func TestADaemonAdoptsAMachine(t *testing.T) {
	r := newRoot(t)
	before := r.host(t)
	p := r.sleeping(t)
	p.Resources = api.Resources{Memory: 32 * unit.MiB, PIDs: 40}
	// A daemon that ends lets go of what it asks machines by.
	d, err := guest.New(r.options())
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.Start(t.Context(), p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Kill(context.Background()) }) // it is over, but where the test fails
	if err := first.(stratum.Limiter).SetLimits(t.Context(), api.Resources{Memory: 24 * unit.MiB, PIDs: 41}); err != nil {
		t.Fatal(err)
	}
	adopt := func() stratum.Live {
		t.Helper()
		err := d.Close()
		if err != nil {
			t.Fatal(err)
		}
		if d, err = guest.New(r.options()); err != nil {
			t.Fatal(err)
		}
		live, err := d.Adopt(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		return live
	}
	live := adopt()
	if s, err := live.Stats(t.Context()); err != nil || s.PIDs < 1 || s.MemoryLimit != 24*unit.MiB || s.PIDsLimit != 41 {
		t.Errorf("Stats = %+v, %v; want the limits that were set", s, err)
	}
	if got, want := limited(t, live), fmt.Sprint(24*unit.MiB, " 41 "); got != want {
		t.Errorf("inside the limits are %q; want %q", got, want)
	}
	if b := live.(stratum.Booter).Boot(); b.Release == "" || b.Accelerator == "" {
		t.Errorf("Boot = %+v", b)
	}
	// Limits change as before, and within what the machine has.
	limits := live.(stratum.Limiter)
	if err := limits.SetLimits(t.Context(), api.Resources{Memory: 28 * unit.MiB, PIDs: 42}); err != nil {
		t.Errorf("another daemon cannot change the limits: %v", err)
	}
	if err := limits.SetLimits(t.Context(), api.Resources{Memory: unit.GiB}); !fault.Is(err, fault.Conflict) || fault.All(err)[0].Field != "resources.memory" {
		t.Errorf("more memory than the machine has: %v", err)
	}
	if err := live.(stratum.Pauser).Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if live = adopt(); !live.(interface{ Paused() bool }).Paused() {
		t.Error("it is not known to be paused")
	}
	if s, err := live.Stats(t.Context()); err != nil || s.MemoryLimit != 28*unit.MiB || s.PIDsLimit != 42 {
		t.Errorf("Stats = %+v, %v; want the limits that another daemon set", s, err)
	}
	if err := live.(stratum.Pauser).Resume(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := limited(t, live), fmt.Sprint(28*unit.MiB, " 42 "); got != want {
		t.Errorf("inside the limits are %q; want %q", got, want)
	}
	if err := live.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	if e := ended(t, live); e.Signal != 9 || e.Crash != "" {
		t.Errorf("the run ended with %+v", e)
	}
	if _, err := d.Clean(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	r.left(t, before)
}
