package machine_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
	"github.com/strata-project/strata/internal/unit"
)

// inside is what a program says that runs inside.
func inside(t *testing.T, live stratum.Live, args ...string) string {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "program")
	defer ours.Close()
	err = live.Exec(t.Context(), stratum.Process{Args: args, Env: []string{"PATH=/bin:/sbin"}}, theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for frames := stream.NewReader(ours); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatalf("%v, after %q", err, said.String())
		}
		switch kind {
		case stream.Stdout, stream.Stderr, stream.Failure:
			said.Write(payload)
		}
		if kind == stream.Exit || kind == stream.Failure {
			return strings.TrimSpace(said.String())
		}
	}
}

// grown is a machine of which the test looks at its processors.
type grown struct {
	t    *testing.T
	plan stratum.Plan
	live stratum.Live
}

// has fails unless QEMU, the system inside and its programs have n processors.
func (g grown) has(when string, n string) {
	g.t.Helper()
	got := inside(g.t, g.live, "/bin/sh", "-c", "nproc; cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo")
	want := map[string]string{"1": "1 0 1", "2": "2 0-1 2"}[n]
	if have := strings.Join(strings.Fields(got), " "); have != want {
		g.t.Errorf("%s: nproc, online and /proc/cpuinfo say %s; want %s", when, have, want)
	}
	if boot := g.live.(stratum.Booter).Boot(); boot.CPUs != int(n[0]-'0') {
		g.t.Errorf("%s: the machine says that it has %d processors; want %s", when, boot.CPUs, n)
	}
}

// set gives it so many processors.
func (g *grown) set(cpus unit.CPUs) error {
	r := g.plan.Resources
	r.CPUs = cpus
	err := g.live.(stratum.Limiter).SetLimits(g.t.Context(), r)
	if err == nil {
		g.plan.Resources = r
	}
	return err
}

func (g *grown) must(cpus unit.CPUs) {
	g.t.Helper()
	begun := time.Now()
	if err := g.set(cpus); err != nil {
		g.t.Fatal(err)
	}
	g.t.Logf("came to %s processors in %v", cpus, time.Since(begun).Round(time.Millisecond))
}

func TestProcessorsArePluggedInAndTakenOut(t *testing.T) {
	require.Host(t, "two processors", runtime.NumCPU() >= 2, "a board has room for as many as the host has")
	r := virtualtest.New(t, "linux-image-amd64")
	d := newDriver(t, r)
	g := &grown{t: t, plan: r.Plan(t)}
	g.plan.Resources = api.Resources{CPUs: 500}
	g.plan.Main = stratum.Process{Env: []string{"PATH=/bin"}, Args: []string{"/bin/sleep", "1000"}}
	start := func() {
		t.Helper()
		begun := time.Now()
		var err error
		if g.live, err = d.Start(t.Context(), g.plan, stratum.StartOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Logf("started in %v", time.Since(begun).Round(time.Millisecond))
	}
	end := func(ctx context.Context) {
		t.Helper()
		if err := g.live.Kill(ctx); err != nil {
			t.Error(err)
		}
		if e, err := g.live.Wait(ctx); err != nil || e.Crash != "" {
			t.Errorf("it ended with %+v, %v", e, err)
		}
		if _, err := d.Clean(ctx, g.plan.ID); err != nil {
			t.Error(err)
		}
	}
	start()
	t.Cleanup(func() { end(context.Background()) }) // the test's context is over
	g.has("as built", "1")
	if err := g.set(unit.CPUs(1000 * (runtime.NumCPU() + 1))); !fault.Is(err, fault.Conflict) || fault.All(err)[0].Field != "resources.cpus" {
		t.Errorf("more than there is room for: %v", err)
	}
	g.must(2000)
	g.has("grown", "2")
	g.must(1000)
	g.has("shrunk", "1")
	g.must(1500)
	g.has("grown again", "2")

	adopted, err := newDriver(t, r).Adopt(t.Context(), g.plan.ID)
	if err != nil {
		t.Fatal(err)
	}
	g.live = adopted
	g.has("adopted", "2")

	dir := filepath.Join(t.TempDir(), "suspended")
	if err := g.live.(stratum.Suspender).Suspend(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	end(t.Context())
	g.plan.Saved = dir
	start()
	g.plan.Saved = ""
	g.has("gone on", "2")
	g.must(1000)
	g.has("shrunk after it went on", "1")
	g.must(2000)
	g.has("grown after it went on", "2")
	end(t.Context())
	start()
	g.has("started anew", "2")
}
