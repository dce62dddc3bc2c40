// Package crash kills strata's processes at bad moments and proves that nothing
// is lost and nothing is left.
package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// moments is how often the daemon is killed.
const moments = 30

// known is what the users of the loops were told: "created" and "removed" are
// certain, anything in between may be either.
type known struct {
	sync.Mutex
	certain map[string]bool // true: must exist; false: must not
}

func (k *known) set(name string, exists bool) { k.Lock(); k.certain[name] = exists; k.Unlock() }
func (k *known) unsure(name string)           { k.Lock(); delete(k.certain, name); k.Unlock() }

func TestKillingTheDaemonLosesNothing(t *testing.T) {
	b := bed.New(t)
	b.Run("run", "--rm", "busybox", "true")
	b.Run("run", "-d", "--name", "bystander", "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.02; done")
	witness := inspect(t, b, "bystander")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	k := &known{certain: map[string]bool{"bystander": true}}
	for moment := range moments {
		stop := make(chan struct{})
		var loops sync.WaitGroup
		for worker := range 3 {
			loops.Go(func() { loop(b, k, fmt.Sprintf("m%d-w%d", moment, worker), stop) })
		}
		time.Sleep(require.Patience(time.Duration(random.IntN(250)) * time.Millisecond)) // within a few commands
		b.SignalDaemon(syscall.SIGKILL, true)
		close(stop)
		loops.Wait()
		b.StartDaemon()
		check(t, b, k, moment)
		if t.Failed() {
			return
		}
	}
	if now := inspect(t, b, "bystander"); now.PID != witness.PID || now.KeeperPID != witness.KeeperPID || now.State != api.Running {
		t.Errorf("the bystander was disturbed: pid %d then %d, %s", witness.PID, now.PID, now.State)
	}
}

// loop makes, starts, stops and removes environments until it is told to stop;
// commands fail when the daemon dies, which is the point.
func loop(b *bed.Bed, k *known, prefix string, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		name := fmt.Sprintf("%s-%d", prefix, i)
		k.unsure(name)
		if !here(b, "create", "--name", name, "busybox", "sleep", "1000") {
			return
		}
		k.set(name, true)
		if !here(b, "start", name) || i%2 == 0 && !here(b, "stop", "--time", "0", name) {
			return
		}
		if i%3 == 0 {
			continue
		}
		k.unsure(name)
		if !here(b, "rm", "-f", name) {
			return
		}
		k.set(name, false)
	}
}

// here runs the CLI without ever starting a daemon of its own.
func here(b *bed.Bed, args ...string) bool {
	cmd := b.Command(context.Background(), args...)
	cmd.Env = append(cmd.Env, "STRATA_AUTOSTART=no")
	return cmd.Run() == nil
}

func inspect(t *testing.T, b *bed.Bed, name string) (env api.Environment) {
	t.Helper()
	for _, one := range list(t, b) {
		if one.Name == name {
			return one
		}
	}
	t.Fatalf("%s is lost", name)
	return env
}

func list(t *testing.T, b *bed.Bed) (all []api.Environment) {
	t.Helper()
	if err := json.Unmarshal([]byte(b.Run("ls", "-a", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// check holds what the daemon says, what users were told and what is on the host together.
func check(t *testing.T, b *bed.Bed, k *known, moment int) {
	t.Helper()
	// What was half done when the daemon was killed is being finished.
	settles(t, fmt.Sprintf("moment %d: transitions", moment), func() (left []string) {
		for _, env := range list(t, b) {
			if env.State != api.Running && env.State != api.Stopped && env.State != api.Created {
				left = append(left, fmt.Sprintf("%s is %s", env.Name, env.State))
			}
		}
		return left
	})
	all := list(t, b)
	var names, ids, running []string
	addresses := map[string]string{}
	for _, env := range all {
		names = append(names, env.Name)
		ids = append(ids, env.ID)
		if env.State == api.Running {
			running = append(running, env.ID)
		}
		if other, taken := addresses[env.Network.IPv4]; taken {
			t.Errorf("moment %d: %s and %s share %s", moment, env.Name, other, env.Network.IPv4)
		}
		addresses[env.Network.IPv4] = env.Name
	}
	for name, exists := range k.certain {
		if exists != slices.Contains(names, name) {
			t.Errorf("moment %d: %s should exist: %v, does: %v", moment, name, exists, !exists)
		}
	}
	folders, _ := filepath.Glob(b.Places.State + "/environments/*")
	for _, folder := range folders {
		if !slices.Contains(ids, filepath.Base(folder)) {
			t.Errorf("moment %d: a folder of nothing: %s", moment, folder)
		}
	}
	settles(t, fmt.Sprintf("moment %d: run folders", moment), func() []string { return unknown(b.Places.Run+"/env/*", running) })
	settles(t, fmt.Sprintf("moment %d: cgroups", moment), func() []string {
		name := b.Places.Name("strata")
		// At the top of cgroup v2, or of each hierarchy of v1.
		groups := append(unknown("/sys/fs/cgroup/"+name+"/*", running), unknown("/sys/fs/cgroup/*/"+name+"/*", running)...)
		return slices.DeleteFunc(groups, func(g string) bool { return filepath.Base(g) == "keepers" || !isDir(g) })
	})
	settles(t, fmt.Sprintf("moment %d: links", moment), func() (left []string) {
		b.Host(func() {
			links, _ := netlink.LinkList()
			n := 0
			for _, link := range links {
				if link.Type() == "veth" {
					n++
				}
			}
			if n != len(running) {
				left = append(left, fmt.Sprintf("%d links for %d running", n, len(running)))
			}
		})
		return left
	})
	// Records of those that stay are removed now and then, so that the rounds stay small.
	for _, env := range all {
		if env.Name != "bystander" && len(all) > 12 {
			b.Run("rm", "-f", env.Name)
			k.set(env.Name, false)
		}
	}
}

func isDir(path string) bool { info, err := os.Stat(path); return err == nil && info.IsDir() }

// unknown returns the paths that match pattern and whose last part contains none of ids.
func unknown(pattern string, ids []string) (left []string) {
	paths, _ := filepath.Glob(pattern)
	for _, path := range paths {
		if !slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(filepath.Base(path), id) }) {
			left = append(left, path)
		}
	}
	return left
}

// settles waits until left is empty: the kernel takes things down in its own time.
func settles(t *testing.T, what string, left func() []string) {
	t.Helper()
	for deadline := time.Now().Add(require.Patience(5 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		rest := left()
		if len(rest) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: left: %v", what, rest)
			return
		}
	}
}

func TestKillingAKeeperIsACrashOfThatEnvironmentOnly(t *testing.T) {
	b := bed.New(t)
	b.Run("run", "-d", "--name", "one", "busybox", "sleep", "1000")
	b.Run("run", "-d", "--name", "two", "busybox", "sleep", "1000")
	one := inspect(t, b, "one")
	if err := syscall.Kill(one.KeeperPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	settles(t, "the crash is reported", func() []string {
		if env := inspect(t, b, "one"); env.State != api.Stopped || env.Exit == nil || env.Exit.Crash == "" {
			return []string{fmt.Sprintf("%s %+v", env.State, env.Exit)}
		}
		return nil
	})
	if env := inspect(t, b, "two"); env.State != api.Running {
		t.Errorf("two is %s", env.State)
	}
	settles(t, "no process of the environment lives on without its keeper", func() []string {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", one.PID))
		if _, rest, _ := strings.Cut(string(state), ") "); err != nil || strings.HasPrefix(rest, "Z") {
			return nil // gone, or only not yet reaped by the host's init
		}
		return []string{string(state)}
	})
	b.Run("start", "one")
	b.Run("exec", "one", "true")
}

func TestAnAttachedRunOutlivesTheDaemon(t *testing.T) {
	b := bed.New(t)
	cmd := b.Command(context.Background(), "run", "--name", "long", "busybox", "sh", "-c", "echo up; while [ ! -e /go ]; do sleep 0.05; done; echo end; exit 7")
	out := new(strings.Builder)
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	settles(t, "it runs", func() []string {
		if b.Try("exec", "long", "true").Status == 0 {
			return nil
		}
		return []string{"not yet"}
	})
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	b.Run("exec", "long", "touch", "/go")
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 7 || out.String() != "up\nend\n" {
		t.Errorf("exit status %d, output %q; want 7 and both lines", cmd.ProcessState.ExitCode(), out)
	}
}

func TestADaemonThatStopsLeavesEnvironmentsAlone(t *testing.T) {
	b := bed.New(t)
	b.Run("run", "-d", "--name", "one", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.05; done")
	b.Run("run", "-d", "--name", "two", "busybox", "sleep", "1000")
	before := inspect(t, b, "one")
	b.SignalDaemon(syscall.SIGTERM, true)
	lines := strings.Count(readLog(b, before.ID), "tick")
	settles(t, "output is kept without a daemon", func() []string {
		if strings.Count(readLog(b, before.ID), "tick") > lines {
			return nil
		}
		return []string{"nothing new"}
	})
	b.StartDaemon()
	if after := inspect(t, b, "one"); after.PID != before.PID || after.State != api.Running {
		t.Errorf("pid %d then %d, %s", before.PID, after.PID, after.State)
	}
	if out := b.Try("exec", "one", "ping", "-c", "1", "-W", "5", "two"); out.Status != 0 {
		t.Errorf("the network does not work after a restart of the daemon: %s%s", out.Stdout, out.Stderr)
	}
}

func TestNetworkingGoesOnWithoutADaemon(t *testing.T) {
	b := bed.New(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	b.Run("run", "-d", "--name", "served", "-p", "18090:80", "busybox", "sh", "-c", "while :; do echo served | nc -l -p 80; done")
	b.Run("run", "-d", "--name", "asker", "-v", dir+":/v", "busybox", "sh", "-c",
		"while :; do { nslookup served && ping -c 1 -W 2 served && echo reached; } > /v/new 2>&1; mv /v/new /v/out; sleep 0.05; done")
	b.SignalDaemon(syscall.SIGKILL, true)
	out := filepath.Join(dir, "out")
	os.Remove(out)
	settles(t, "names and addresses work without a daemon", func() []string {
		if data, _ := os.ReadFile(out); strings.HasSuffix(string(data), "reached\n") {
			return nil
		}
		return []string{"not reached"}
	})
	settles(t, "the published port works without a daemon", func() (left []string) {
		b.Host(func() {
			if got := bed.Fetch("127.0.0.1:18090"); got != "served\n" {
				left = append(left, fmt.Sprintf("got %q", got))
			}
		})
		return left
	})
	b.StartDaemon()
}

func TestTwoRootsSideBySide(t *testing.T) {
	one := bed.New(t)
	two := bed.NewBeside(t, one)
	for _, b := range []*bed.Bed{one, two} {
		b.Run("run", "-d", "--name", "same", "busybox", "sh", "-c", "while :; do echo "+b.Places.Tag+" | nc -l -p 80; done")
	}
	first, second := inspect(t, one, "same"), inspect(t, two, "same")
	if first.Network.IPv4 == second.Network.IPv4 || first.IDBase == second.IDBase || first.ID == second.ID {
		t.Errorf("two roots share something: %+v %d, %+v %d", first.Network, first.IDBase, second.Network, second.IDBase)
	}
	for b, env := range map[*bed.Bed]api.Environment{one: first, two: second} {
		settles(t, "each answers at its own address", func() (left []string) {
			b.Host(func() {
				if got := bed.Fetch(env.Network.IPv4 + ":80"); got != b.Places.Tag+"\n" {
					left = append(left, fmt.Sprintf("got %q", got))
				}
			})
			return left
		})
	}
	two.Run("system", "reset", "--force")
	if env := inspect(t, one, "same"); env.State != api.Running {
		t.Errorf("the reset of one root disturbed the other: %s", env.State)
	}
	one.Run("exec", "same", "true")
}

func readLog(b *bed.Bed, id string) string {
	var all strings.Builder
	files, _ := filepath.Glob(b.Places.State + "/environments/" + id + "/log/*")
	for _, file := range files {
		data, _ := os.ReadFile(file)
		all.Write(data)
	}
	return all.String()
}

func TestTwoDaemonsOnOneStateFolder(t *testing.T) {
	b := bed.New(t)
	cmd := b.Daemon()
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprint(b.DaemonPID())) {
		t.Errorf("a second daemon: %v, %s; want a refusal that names pid %d", err, out, b.DaemonPID())
	}
	b.Run("info")
}
