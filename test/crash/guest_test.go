package crash

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// boots is how long it may take until a guest that ended is up again.
const boots = 90 * time.Second

// becomes waits until the environment is as is wants it, which returns what is wrong.
func becomes(t *testing.T, b *bed.Bed, name string, is func(api.Environment) string) api.Environment {
	t.Helper()
	for deadline := time.Now().Add(require.Patience(boots)); ; time.Sleep(50 * time.Millisecond) {
		env := inspect(t, b, name)
		wrong := is(env)
		if wrong == "" {
			return env
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s: it is %s, ended %+v, restarted %d times", name, wrong, env.State, env.Exit, env.Restarts)
		}
	}
}

func crashed(words string) func(api.Environment) string {
	return func(env api.Environment) string {
		if env.State != api.Stopped || env.Exit == nil || env.Exit.Status != 137 || !strings.Contains(env.Exit.Crash, words) {
			return "it has not crashed with " + words
		}
		return ""
	}
}

// again is a run after the one of before.
func again(before api.Environment) func(api.Environment) string {
	return func(env api.Environment) string {
		if env.State != api.Running || env.PID == before.PID || env.Restarts != before.Restarts+1 {
			return "it was not started again"
		}
		return ""
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill: %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// cut takes away the bed's links of a kind, and returns their names.
func cut(t *testing.T, b *bed.Bed, kind string) (names []string) {
	t.Helper()
	b.Host(func() {
		links, err := netlink.LinkList()
		if err != nil {
			t.Error(err)
		}
		for _, link := range links {
			if link.Type() != kind {
				continue
			}
			if err := netlink.LinkDel(link); err != nil {
				t.Error(err)
			}
			names = append(names, link.Attrs().Name)
		}
	})
	if len(names) == 0 {
		t.Fatalf("there is no link of type %s", kind)
	}
	return names
}

func TestGuests(t *testing.T) {
	require.Root(t)
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	b := bed.New(t)
	bed.Kernel(t, b)
	start := func(t *testing.T, name string, flags ...string) api.Environment {
		t.Helper()
		t.Cleanup(func() { b.Run("rm", "-f", name) })
		b.Run(append(append([]string{"run", "-d", "--stratum", "guest", "--name", name}, flags...), "busybox", "sleep", "1000")...)
		return inspect(t, b, name)
	}
	reaches := func(t *testing.T, name string) {
		t.Helper()
		if out := b.Try("exec", name, "sh", "-c", "ping -c 1 -W 5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')"); out.Status != 0 {
			t.Errorf("%s has no network: %s%s", name, out.Stdout, out.Stderr)
		}
	}

	t.Run("QEMU that dies is a crash of that environment only", func(t *testing.T) {
		one, other := start(t, "one"), start(t, "other")
		kill(t, one.PID)
		becomes(t, b, "one", crashed("QEMU was killed by signal 9"))
		if now := inspect(t, b, "other"); now.PID != other.PID || now.State != api.Running {
			t.Errorf("the other is %s", now.State)
		}
		b.Run("start", "one")
		reaches(t, "one")
	})
	t.Run("what crashed is started again as its policy says", func(t *testing.T) {
		one := start(t, "one", "--restart", "on-failure:1")
		kill(t, one.PID)
		next := becomes(t, b, "one", again(one))
		reaches(t, "one")
		kill(t, next.PID)
		if env := becomes(t, b, "one", crashed("QEMU was killed")); env.Restarts != 1 {
			t.Errorf("it was started again %d times; want once", env.Restarts)
		}
	})
	t.Run("a keeper that dies takes QEMU with it", func(t *testing.T) {
		one := start(t, "one")
		kill(t, one.KeeperPID)
		becomes(t, b, "one", crashed("keeper was lost"))
		settles(t, "QEMU ends", func() []string {
			state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", one.PID))
			if _, rest, _ := strings.Cut(string(state), ") "); err != nil || strings.HasPrefix(rest, "Z") {
				return nil
			}
			return []string{string(state)}
		})
		b.Run("start", "one")
		b.Run("exec", "one", "true")
	})
	t.Run("a daemon that is killed disturbs nothing, and limits still change", func(t *testing.T) {
		one := start(t, "one", "--memory", "100M")
		limit := func(want string) {
			t.Helper()
			if got := b.Run("exec", "one", "cat", "/sys/fs/cgroup/memory.max"); got != want {
				t.Errorf("inside the limit is %s; want %s", got, want)
			}
		}
		for _, set := range []struct{ flag, bytes string }{{"120M", "125829120"}, {"80M", "83886080"}} {
			b.SignalDaemon(syscall.SIGKILL, true)
			b.StartDaemon()
			if now := inspect(t, b, "one"); now.PID != one.PID || now.State != api.Running {
				t.Errorf("it is %s, with pid %d", now.State, now.PID)
			}
			b.Run("set", "one", "memory="+set.flag)
			limit(set.bytes)
		}
		if out := b.Try("set", "one", "memory=2G"); out.Status != 4 || !strings.Contains(out.Stderr, "stop it first") {
			t.Errorf("more than its machine has: exit status %d, %s", out.Status, out.Stderr)
		}
		reaches(t, "one")
	})
	t.Run("QEMU that dies without a daemon is a crash for the next one", func(t *testing.T) {
		one, two := start(t, "one"), start(t, "two", "--restart", "on-failure")
		b.SignalDaemon(syscall.SIGKILL, true)
		kill(t, one.PID)
		kill(t, two.PID)
		b.StartDaemon()
		becomes(t, b, "one", crashed("QEMU was killed by signal 9"))
		becomes(t, b, "two", func(env api.Environment) string {
			if env.State != api.Running || env.PID == two.PID {
				return "it was not started again"
			}
			return ""
		})
	})
	t.Run("a guest goes on without its tap, and its next start has another", func(t *testing.T) {
		one := start(t, "one")
		cut(t, b, "tuntap")
		b.Run("exec", "one", "true")
		if now := inspect(t, b, "one"); now.PID != one.PID || now.State != api.Running {
			t.Errorf("it is %s", now.State)
		}
		b.Run("restart", "one")
		reaches(t, "one")
	})
	t.Run("a guest goes on without its bridge, and a start makes that anew", func(t *testing.T) {
		one := start(t, "one")
		cut(t, b, "bridge")
		b.Run("exec", "one", "true")
		if now := inspect(t, b, "one"); now.PID != one.PID || now.State != api.Running {
			t.Errorf("it is %s", now.State)
		}
		start(t, "two")
		reaches(t, "two")
		b.Run("restart", "one")
		reaches(t, "one")
	})
}
