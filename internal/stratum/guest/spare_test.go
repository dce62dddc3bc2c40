package guest_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
	"github.com/strata-project/strata/internal/unit"
)

// standbyChild names the root of a driver that a test wants to be killed.
const standbyChild = "STRATA_TEST_STANDBY"

// standing changes options to those of a driver that keeps a spare.
func standing(o *guest.Options) {
	o.Standby, o.Log = 1, slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// spares waits until there are n.
func spares(t testing.TB, d *guest.Driver, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got, images, bytes := d.Standby()
		if got == n && (bytes > 0) == (n+images > 0) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("there are %d spares with %d bytes, and not %d, after %v", got, bytes, n, patience)
		}
	}
}

// runOnce runs a guest to its end, and tells whether it began as a spare.
func runOnce(t testing.TB, d *guest.Driver, p stratum.Plan, args ...string) (standby, warm bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.Main = stratum.Process{Args: args, Env: []string{"PATH=/bin"}}
	live, err := d.Start(ctx, p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	exit, err := live.Wait(ctx)
	if err != nil || exit.Status != 0 || exit.Crash != "" {
		t.Fatalf("%+v, %v", exit, err)
	}
	if _, err := d.Clean(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	boot := live.(stratum.Booter).Boot()
	return boot.Standby, boot.Warm
}

// untilSpare runs guests until there is a saved system, and a spare of it.
func untilSpare(t testing.TB, d *guest.Driver, plan func() stratum.Plan) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		if _, warm := runOnce(t, d, plan(), "busybox", "true"); warm {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no system was saved")
		}
	}
	spares(t, d, 1)
}

func TestASpareIsTakenUsedAndRefilled(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t, standing)
	empty := r.host(t)
	untilSpare(t, d, func() stratum.Plan { return r.Plan(t) })
	before := r.host(t)
	if ids, err := d.Runs(t.Context()); err != nil || len(ids) > 0 {
		t.Errorf("spares are no runs: %v, %v", ids, err)
	}
	p := r.Plan(t)
	// Nothing of the rehearsal is there: no mount, no address, no group, no host name, no process.
	script := `echo kept >/file; test $(hostname) = virtual && test ! -e /rehearsal && test ! -e /sys/class/net/eth0 &&
		! grep -q 192.0.2 /proc/net/fib_trie /proc/net/route && ! grep -q ^20010db8 /proc/net/if_inet6 && ! ps | grep -q [s]trata-agent-reh`
	if standby, _ := runOnce(t, d, p, "sh", "-c", script); !standby {
		t.Error("a guest was started without the spare")
	}
	spares(t, d, 1)
	// The same environment, by another spare: it has its own disk, and nobody else's.
	if standby, _ := runOnce(t, d, p, "grep", "kept", "/file"); !standby {
		t.Error("a guest was started without the spare")
	}
	spares(t, d, 1)
	if standby, _ := runOnce(t, d, r.Plan(t), "test", "!", "-e", "/file"); !standby {
		t.Error("a guest was started without the spare")
	}
	spares(t, d, 1)
	if after := r.host(t); strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("with a spare there was\n%s\nand is after three starts\n%s", before, after)
	}
	if err := d.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if left := r.host(t); left != empty {
		t.Errorf("the end leaves\n%s", left)
	}
}

// untilImage runs guests until one was written down.
func untilImage(t testing.TB, d *guest.Driver, plan func() stratum.Plan) {
	t.Helper()
	for end := time.Now().Add(2 * patience); ; time.Sleep(200 * time.Millisecond) {
		if _, images, bytes := d.Standby(); images == 1 && bytes > 0 {
			return
		}
		runOnce(t, d, plan(), "busybox", "true")
		if time.Now().After(end) {
			t.Fatal("no machine was written down")
		}
	}
}

// begin starts a guest and tells how.
func begin(t *testing.T, d *guest.Driver, p stratum.Plan) (stratum.Live, api.Boot) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	live, err := d.Start(ctx, p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { live.Kill(context.Background()) }) // it may be over
	return live, live.(stratum.Booter).Boot()
}

// end waits for the end of a guest that is to end well.
func end(t *testing.T, d *guest.Driver, p stratum.Plan, live stratum.Live) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if exit, err := live.Wait(ctx); err != nil || exit.Status != 0 || exit.Crash != "" {
		t.Errorf("%+v, %v: %q", exit, err, logged(t, p))
	}
	if _, err := d.Clean(ctx, p.ID); err != nil {
		t.Error(err)
	}
}

func TestGuestsAreCopiesOfOneThatWaits(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t)
	untilImage(t, d, func() stratum.Plan { return r.Plan(t) })
	before := r.host(t)
	drawn := map[string]bool{}
	for range 3 {
		p := r.Plan(t)
		p.Main = stratum.Process{Env: []string{"PATH=/bin"}, Args: []string{"sh", "-c",
			"grep -q rdrand /proc/cpuinfo && echo all copies would draw the same; for i in 1 2; do head -c 16 /dev/urandom | od -An -tx1; done; cat /proc/sys/kernel/random/boot_id; test ! -e /file && echo kept >/file && read line"}, Stdin: true}
		live, boot := begin(t, d, p)
		if !boot.Copied || !boot.Warm || boot.Standby {
			t.Errorf("it was started as %+v", boot)
		}
		pid := live.PID()
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatalf("it has no process: %v", err)
		}
		// It is confined as any QEMU, and its user the environment's.
		for _, want := range []string{fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", p.IDBase), "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("it lacks %q: %q", want, status)
			}
		}
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, _ := os.Readlink(link); strings.Contains(to, "checkpoint") {
				t.Errorf("it holds %s", to)
			}
		}
		for end := time.Now().Add(patience); strings.Count(logged(t, p), "\n") < 3 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if err := live.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		live.Wait(t.Context())
		if _, err := d.Clean(t.Context(), p.ID); err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(logged(t, p)), "\n")
		if len(lines) != 3 {
			t.Errorf("it says %q", lines)
		}
		for _, l := range lines {
			if drawn[l] {
				t.Errorf("two have drawn %s", l)
			}
			drawn[l] = true
		}
	}
	r.left(t, before)
}

func TestACopyThatDoesNotGoOnIsReplaced(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t)
	untilImage(t, d, func() stratum.Plan { return r.Plan(t) })
	before := r.host(t)
	if err := d.Break(); err != nil {
		t.Fatal(err)
	}
	p := r.Plan(t)
	p.Main = stratum.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}}
	live, boot := begin(t, d, p)
	if boot.Copied || !boot.Warm {
		t.Errorf("it was started as %+v", boot)
	}
	end(t, d, p, live)
	if _, images, _ := d.Standby(); images != 0 {
		t.Error("the image is kept")
	}
	r.left(t, before)
}

func TestDisksOfAnySizeAreGivenToSpares(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t, standing)
	untilSpare(t, d, func() stratum.Plan { return r.Plan(t) })
	for _, size := range []unit.Size{64 * unit.MiB, 20 * unit.GiB} {
		p := r.Plan(t)
		p.Disk += ".other"
		if err := r.Pool.Create(t.Context(), p.Disk, size); err != nil {
			t.Fatal(err)
		}
		sectors := strconv.FormatInt(int64(size/512), 10)
		if standby, _ := runOnce(t, d, p, "sh", "-c", "test $(cat /sys/block/vdb/size) = "+sectors+" && dd if=/dev/zero of=/file bs=1M count=20 && sync"); !standby {
			t.Error("a guest was started without the spare")
		}
		spares(t, d, 1)
	}
}

// Two clones of one image that rehearse draw other numbers: those of the image would be the same.
func TestSparesDrawNumbersOfTheirOwn(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t, standing)
	untilSpare(t, d, func() stratum.Plan { return r.Plan(t) })
	drawn := map[string]bool{}
	for range 2 {
		p := r.Plan(t)
		if standby, _ := runOnce(t, d, p, "sh", "-c", "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id; date +%s"); !standby {
			t.Error("a guest was started without the spare")
		}
		lines := strings.Split(strings.TrimSpace(logged(t, p)), "\n")
		if len(lines) != 3 || drawn[lines[0]] || drawn[lines[1]] {
			t.Errorf("drawn again, or not at all: %q after %v", lines, drawn)
		}
		drawn[lines[0]], drawn[lines[1]] = true, true
		now, err := strconv.ParseInt(lines[2], 10, 64)
		if age := time.Since(time.Unix(now, 0)); err != nil || age < -2*time.Second || age > patience {
			t.Errorf("its clock says %s", lines[2])
		}
		spares(t, d, 1)
	}
}

// What is written down of a spare goes on in a machine that never was one, as its owner.
func TestAGuestThatBeganAsASpareIsSuspended(t *testing.T) {
	r := &root{Root: virtualtest.New(t, kernelName)}
	d := r.newDriver(t, standing)
	untilSpare(t, d, func() stratum.Plan { return r.Plan(t) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	p := r.Plan(t)
	p.Main = stratum.Process{Env: []string{"PATH=/bin"}, Args: []string{"sh", "-c",
		"trap 'cat /file; exit $kept' TERM; echo on the disk >/file; kept=42; echo begun; while :; do sleep 0.1; done"}}
	var live stratum.Live
	for round := range 3 { // the last two of what has been written down once already
		var err error
		if live, err = d.Start(ctx, p, stratum.StartOptions{}); err != nil {
			t.Fatalf("start %d: %v", round, err)
		}
		if boot := live.(stratum.Booter).Boot(); !boot.Standby {
			t.Fatal("it did not begin as a spare")
		}
		for !strings.Contains(logged(t, p), "begun") {
			if ctx.Err() != nil {
				t.Fatal("the program does not begin")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if round == 2 {
			break
		}
		p.Saved = filepath.Join(t.TempDir(), "suspended")
		if err := live.(stratum.Suspender).Suspend(ctx, p.Saved); err != nil {
			t.Fatalf("suspend %d: %v", round, err)
		}
		if err := live.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := live.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Clean(ctx, p.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := live.Signal(ctx, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := live.Wait(ctx); err != nil || exit.Status != 42 || exit.Crash != "" {
		t.Errorf("it ended with %+v, %v", exit, err)
	}
	if all := logged(t, p); strings.Count(all, "begun") != 1 || !strings.Contains(all, "on the disk") {
		t.Errorf("it wrote %q", all)
	}
}

func TestSparesEndWithADaemonThatIsKilled(t *testing.T) {
	if root := os.Getenv(standbyChild); root != "" {
		stand(t, root)
		return
	}
	r := newRoot(t)
	p := r.Plan(t)
	empty := r.host(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestSparesEndWithADaemonThatIsKilled$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), standbyChild+"="+r.Places.Root, "STRATA_TEST_DISK="+p.Disk, "STRATA_TEST_KERNELS="+r.KernelDir, "STRATA_TEST_LAYER="+p.Whole.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	said := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) == "standing" {
				said <- true
				return
			}
			t.Log(lines.Text())
		}
		said <- false
	}()
	if !<-said {
		t.Fatal("it has no spare")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	end := time.Now().Add(patience)
	for strings.Contains(r.host(t), "socket ") {
		if time.Now().After(end) {
			t.Fatalf("a keeper or QEMU goes on:\n%s", r.host(t))
		}
		time.Sleep(10 * time.Millisecond)
	}
	// What is left of them is nobody's run to the next daemon, which cleans up.
	ids, err := r.driver.Runs(t.Context())
	if err != nil || len(ids) == 0 {
		t.Fatalf("%v, %v", ids, err)
	}
	for _, id := range ids {
		if _, err := r.driver.Clean(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if left := r.host(t); left != empty {
		t.Errorf("it leaves\n%s", left)
	}
}

// stand is a daemon with a spare, until it is killed.
func stand(t *testing.T, root string) {
	places, err := place.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	kernels, err := kernel.Open(os.Getenv("STRATA_TEST_KERNELS"), nil)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := resource.Open(places.Name("stratatest"))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := disk.OpenPool(t.Context(), filepath.Join(root, "child-pool"), disk.Options{Size: 256 << 20, Reserve: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	o := guest.Options{Places: places, Kernels: kernels, Pool: pool, Resources: groups}
	standing(&o)
	d, err := guest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "child")
	n := 0
	layer := stratum.LayerFile{Digest: "sha256:b05b0c", Path: os.Getenv("STRATA_TEST_LAYER")}
	logs := stratum.LogPlan{Dir: dir, Size: 1 << 20, Files: 2}
	untilSpare(t, d, func() stratum.Plan {
		n++
		return stratum.Plan{
			ID: fmt.Sprint("child", n), Name: "guest", Hostname: "guest", IDBase: 1 << 30, Disk: os.Getenv("STRATA_TEST_DISK"),
			Layers: []stratum.LayerFile{layer}, Whole: layer, Log: logs, Console: stratum.LogPlan{Dir: dir + "-console", Size: 1 << 20, Files: 2},
		}
	})
	os.Stdout.WriteString("standing\n")
	time.Sleep(patience)
}

// logged is what a run has written.
func logged(t *testing.T, p stratum.Plan) string {
	t.Helper()
	var text strings.Builder
	err := logfile.Read(t.Context(), p.Log.Dir, logfile.Options{}, func(l logfile.Record) error {
		text.Write(l.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}
