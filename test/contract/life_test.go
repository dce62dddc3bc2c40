package contract

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

func init() {
	promise(
		row{name: "address", life: address()},
		row{name: "dns", test: dns},
		row{name: "published-port", test: publishedPort},
		row{name: "network-rate", test: networkRate},
		row{name: "network-none", test: networkNone},
		row{name: "clock", test: clock},
		row{name: "ready", test: ready},
		row{name: "stop-signal", test: stopSignal, life: &chapter{stopped: stoppedPolitely, deaf: stoppedDeaf}},
		row{name: "restart-policy", test: restartPolicy},
		row{name: "logs", test: logs},
		row{name: "pause", test: pause},
		row{name: "auto-remove", test: autoRemove},
	)
}

func address() *chapter {
	var before api.Address
	check := func(t looker, a at, name string) {
		t.Helper()
		says(t, a.exec(t, name, "ip addr show eth0").Stdout, before.IPv4, before.IPv6, before.MAC)
	}
	return &chapter{
		running: func(t looker, a at, name string) {
			before = a.show(t, name).Network
			check(t, a, name)
		},
		again: func(t looker, a at, name string) {
			if after := a.show(t, name).Network; after != before {
				t.Errorf("address changed from %+v to %+v", before, after)
			}
			check(t, a, name)
		},
	}
}

func dns(t *testing.T, a at) {
	one, two := a.still(), a.shared.alone.of(t, a)
	ip := a.show(t, two).Network.IPv4
	says(t, a.exec(t, one, "nslookup "+two).Stdout, ip)
	expect(t, a.exec(t, one, "ping -c 1 -W 5 "+two+" >/dev/null"), 0, "")
	const renamed = "other-name"
	a.Run("rename", two, renamed)
	defer a.Run("rename", renamed, two)
	until(t, "the new name answers", 10*time.Second, func() bool { return strings.Contains(a.exec(t, one, "nslookup "+renamed).Stdout, ip) })
	if out := a.exec(t, one, "nslookup "+two); strings.Contains(out.Stdout, ip) {
		t.Errorf("the old name still answers: %s", out.Stdout)
	}
	if out := a.exec(t, one, "nslookup no-such-environment"); out.Status == 0 {
		t.Errorf("a name that does not exist answers: %s", out.Stdout)
	}
}

func publishedPort(t *testing.T, a at) {
	check := func(name, port string) {
		t.Helper()
		var got string
		until(t, "the port answers on the loopback", 10*time.Second, func() bool {
			a.Host(func() { got = bed.Fetch("127.0.0.1:" + port) })
			return got == "served\n"
		})
		out := a.sh(t, "true", "-p", port+":80")
		if out.Status != 125 {
			t.Errorf("a port that is taken gives status %d; want 125", out.Status)
		}
		says(t, out.Stderr, port, name)
	}
	served := a.shared.served(a)
	check(served.name, served.port)
	if !a.boots() {
		port := freePort()
		check(a.start(t, "while :; do echo served | nc -l -p 80; done", "-p", port+":80"), port)
	}
}

// ports counts those that freePort gave.
var ports atomic.Int32

// freePort is a port of a bed's host that no other row has.
func freePort() string { return strconv.Itoa(20000 + os.Getpid()%10000 + int(ports.Add(1))) }

func networkNone(t *testing.T, a at) {
	if got := a.shared.plain(a).part["network"]; got != "1\n1" {
		t.Errorf("links and the loopback's addresses: %q", got)
	}
}

func clock(t *testing.T, a at) {
	name := a.shared.alone.of(t, a)
	near := func() {
		t.Helper()
		before := time.Now().Add(-50 * time.Millisecond).Truncate(time.Second) // date reads a coarser clock
		text := a.exec(t, name, "date +%s").Stdout
		at, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if inside := time.Unix(at, 0); err != nil || inside.Before(before) || inside.After(time.Now()) {
			t.Errorf("the clock inside says %q, asked between %d and %d, %v", text, before.Unix(), time.Now().Unix(), err)
		}
	}
	near()
	a.Run("pause", name)
	time.Sleep(2 * time.Second) // the pause itself is what is tested
	a.Run("resume", name)
	near()
}

func ready(t *testing.T, a at) {
	served := a.shared.served(a)
	name := served.name
	if env := served.first; env.Ready || env.State != "running" {
		t.Errorf("before any check: %s, ready %v", env.State, env.Ready)
	}
	until(t, "it is unhealthy", 10*time.Second, func() bool { return a.show(t, name).Health == "unhealthy" })
	a.exec(t, name, "touch /tmp/well")
	until(t, "it is ready", 10*time.Second, func() bool { env := a.show(t, name); return env.Ready && env.Health == "healthy" })
	plain := a.still()
	if env := a.show(t, plain); !env.Ready || env.Health != "" {
		t.Errorf("without a check: ready %v, health %q", env.Ready, env.Health)
	}
}

func stopSignal(t *testing.T, a at) {
	out := a.shared.signalled(a)
	if exit := a.show(t, "signalled").Exit; out.Status != 6 || exit == nil || exit.Status != 6 || exit.Signal != 0 {
		t.Errorf("after its own stop signal: exit status %d, %+v; want 6", out.Status, exit)
	}
	says(t, out.Stdout, "asked")
}

func stoppedPolitely(t looker, a at, name string) {
	if exit := a.show(t, name).Exit; exit == nil || exit.Status != 5 {
		t.Errorf("after stop: %+v; want status 5", exit)
	}
	says(t, a.Run("logs", name), "asked")
}

func stoppedDeaf(t looker, a at, name string, out bed.Output) {
	if exit := a.show(t, name).Exit; exit == nil || exit.Status != 137 {
		t.Errorf("after the grace: %+v; want status 137", exit)
	}
	if out.Status != 0 || out.Took < time.Second || out.Took > time.Second+require.Patience(5*time.Second) {
		t.Errorf("stop took %v with status %d; the grace is 1 s\n%s", out.Took, out.Status, out.Stderr)
	}
}

func restartPolicy(t *testing.T, a at) {
	bound := 2
	if a.boots() {
		bound = 1
	}
	name := a.start(t, "exit 9", "--restart", fmt.Sprint("on-failure:", bound))
	until(t, "it gave up", a.boot(20*time.Second), func() bool {
		env := a.show(t, name)
		return env.State == "stopped" && env.Restarts == bound && env.Exit != nil && env.Exit.Status == 9
	})
	if n := a.shared.well(a).env.Restarts; n != 0 {
		t.Errorf("a good end was restarted %d times", n)
	}
	// The first run crashes, the second ends well: both are followed by another.
	always := a.start(t, "trap 'exit 0' TERM; test -e /crashed || { touch /crashed; sync; exit 1; }; echo up; while :; do sleep 0.1; done", "--restart", "always")
	up := func(restarts int) {
		t.Helper()
		until(t, fmt.Sprintf("it is up again, the %d. time", restarts), a.boot(20*time.Second), func() bool {
			env := a.show(t, always)
			return env.State == "running" && env.Restarts == restarts && strings.Count(a.Run("logs", always), "up") == restarts
		})
	}
	up(1)
	a.Try("exec", always, "kill", "-TERM", "1")
	up(2)
	a.Run("kill", always)
	a.Run("stop", always)
	if env := a.show(t, always); env.State != "stopped" {
		t.Errorf("after stop by the user: %s", env.State)
	}
}

func logs(t *testing.T, a at) {
	const name = "crashed"
	a.shared.crashed(a)
	out := a.Try("logs", name)
	lines := strings.Split(strings.TrimSuffix(out.Stdout, "\n"), "\n")
	if len(lines) != 20000 || lines[0] != "line 0" || lines[19999] != "line 19999" || out.Stderr != "last\n" {
		t.Errorf("%d lines from %q to %q, error %q", len(lines), lines[0], lines[len(lines)-1], out.Stderr)
	}
	if got := a.Run("logs", "--tail", "3", name); !strings.HasSuffix(got, "line 19999") || strings.Count(got, "\n") > 2 {
		t.Errorf("--tail 3 gives %q", got)
	}
	well := a.shared.well(a)
	expect(t, well.follow, 0, "early\nlate")
	expect(t, well.since, 0, "late")
}

func pause(t *testing.T, a at) {
	name := a.shared.alone.of(t, a)
	read := func() string { data, _ := os.ReadFile(a.shared.counts); return string(data) }
	until(t, "it counts", 10*time.Second, func() bool { return read() != "" })
	a.Run("pause", name)
	still := read()
	time.Sleep(2 * time.Second) // that nothing happens takes a while to see
	if now := read(); now != still {
		t.Errorf("it went on from %s to %s while paused", still, now)
	}
	if env := a.show(t, name); env.State != "paused" {
		t.Errorf("state is %s", env.State)
	}
	if out := a.exec(t, name, "true"); out.Status == 0 {
		t.Error("exec works in a paused environment")
	}
	a.Run("resume", name)
	until(t, "it goes on", 10*time.Second, func() bool { return read() != still })
}

func autoRemove(t *testing.T, a at) {
	a.shared.told(a)
	a.shared.plain(a)
	for _, name := range []string{"told", "plain"} {
		if a.Try("show", name).Status != 3 {
			t.Errorf("%s is still there after the run", name)
		}
	}
	out := a.run("-d", "--rm", "--name", "plain", "busybox", "sleep", "0.2")
	if out.Status != 0 {
		t.Fatalf("its name is not free: %s", out.Stderr)
	}
	until(t, "it is gone", 10*time.Second, func() bool { return a.Try("show", "plain").Status == 3 })
}
