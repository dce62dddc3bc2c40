package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"

	"github.com/strata-project/strata/test/bed"
)

func init() {
	promise(
		row{"address", address},
		row{"dns", dns},
		row{"published-port", publishedPort},
		row{"network-rate", networkRate},
		row{"network-none", networkNone},
		row{"clock", clock},
		row{"ready", ready},
		row{"stop-signal", stopSignal},
		row{"restart-policy", restartPolicy},
		row{"logs", logs},
		row{"pause", pause},
		row{"auto-remove", autoRemove},
	)
}

func address(t *testing.T, a at) {
	name := a.start(t, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	before := a.show(t, name).Network
	check := func() {
		t.Helper()
		out := a.exec(t, name, "ip addr show eth0").Stdout
		says(t, out, before.IPv4, before.IPv6, before.MAC)
	}
	check()
	a.Run("stop", name)
	a.Run("start", name)
	if after := a.show(t, name).Network; after != before {
		t.Errorf("address changed from %+v to %+v", before, after)
	}
	check()
}

func dns(t *testing.T, a at) {
	one, two := a.still(), a.start(t, "sleep 1000")
	ip := a.show(t, two).Network.IPv4
	says(t, a.exec(t, one, "nslookup "+two).Stdout, ip)
	expect(t, a.exec(t, one, "ping -c 1 -W 5 "+two+" >/dev/null"), 0, "")
	renamed := a.name(t)
	a.Run("rename", two, renamed)
	until(t, "the new name answers", 10*time.Second, func() bool { return strings.Contains(a.exec(t, one, "nslookup "+renamed).Stdout, ip) })
	if out := a.exec(t, one, "nslookup "+two); strings.Contains(out.Stdout, ip) {
		t.Errorf("the old name still answers: %s", out.Stdout)
	}
	if out := a.exec(t, one, "nslookup no-such-environment"); out.Status == 0 {
		t.Errorf("a name that does not exist answers: %s", out.Stdout)
	}
}

func publishedPort(t *testing.T, a at) {
	port := 20000 + os.Getpid()%10000
	times := 2
	if a.boots() {
		times = 1
	}
	for i := range times {
		port := strconv.Itoa(port + i)
		a.start(t, "while :; do echo served | nc -l -p 80; done", "-p", port+":80")
		var got string
		until(t, "the port answers on the loopback", 10*time.Second, func() bool {
			a.Host(func() { got = bed.Fetch("127.0.0.1:" + port) })
			return got == "served\n"
		})
		out := a.sh(t, "true", "-p", port+":80")
		if out.Status != 125 {
			t.Errorf("a port that is taken gives status %d; want 125", out.Status)
		}
		says(t, out.Stderr, port, "published-port-")
	}
}

func networkNone(t *testing.T, a at) {
	expect(t, a.sh(t, "ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1", "--network", "none"), 0, "1\n1")
}

func clock(t *testing.T, a at) {
	name := a.start(t, "sleep 1000")
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
	name := a.start(t, "sleep 1000", "--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "2")
	if env := a.show(t, name); env.Ready || env.State != "running" {
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
	polite := a.start(t, "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.05; done")
	until(t, "it is up", 10*time.Second, func() bool { return a.Run("logs", polite) == "up" })
	a.Run("stop", polite)
	if exit := a.show(t, polite).Exit; exit == nil || exit.Status != 5 {
		t.Errorf("after stop: %+v; want status 5", exit)
	}
	says(t, a.Run("logs", polite), "asked")
	other := a.start(t, "trap 'exit 6' USR2; echo up; while :; do sleep 0.05; done", "--stop-signal", "USR2")
	until(t, "it is up", 10*time.Second, func() bool { return a.Run("logs", other) == "up" })
	a.Run("stop", other)
	if exit := a.show(t, other).Exit; exit == nil || exit.Status != 6 {
		t.Errorf("after stop: %+v; want status 6", exit)
	}
	deaf := a.start(t, "trap '' TERM; echo up; while :; do sleep 0.05; done")
	until(t, "it is up", 10*time.Second, func() bool { return a.Run("logs", deaf) == "up" })
	out := a.Try("stop", "--time", "1", deaf)
	if exit := a.show(t, deaf).Exit; exit == nil || exit.Status != 137 {
		t.Errorf("after the grace: %+v; want status 137", exit)
	}
	if out.Took < time.Second || out.Took > time.Second+require.Patience(5*time.Second) {
		t.Errorf("stop took %v; the grace is 1 s", out.Took)
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
	well := a.start(t, "exit 0", "--restart", "on-failure")
	until(t, "it stopped", 10*time.Second, func() bool { return a.show(t, well).State == "stopped" })
	if n := a.show(t, well).Restarts; n != 0 {
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
	name := a.name(t)
	a.run("--name", name, "busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2; kill -9 $$")
	out := a.Try("logs", name)
	lines := strings.Split(strings.TrimSuffix(out.Stdout, "\n"), "\n")
	if len(lines) != 20000 || lines[0] != "line 0" || lines[19999] != "line 19999" || out.Stderr != "last\n" {
		t.Errorf("%d lines from %q to %q, error %q", len(lines), lines[0], lines[len(lines)-1], out.Stderr)
	}
	if got := a.Run("logs", "--tail", "3", name); !strings.HasSuffix(got, "line 19999") || strings.Count(got, "\n") > 2 {
		t.Errorf("--tail 3 gives %q", got)
	}
	live := a.start(t, "echo early; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late")
	until(t, "it wrote", 10*time.Second, func() bool { return a.Run("logs", live) == "early" })
	since := time.Now().UTC().Format(time.RFC3339Nano)
	go func() { a.exec(t, live, "touch /tmp/go") }()
	expect(t, a.Try("logs", "-f", live), 0, "early\nlate")
	expect(t, a.Try("logs", "--since", since, live), 0, "late")
}

func pause(t *testing.T, a at) {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	name := a.start(t, "i=0; while :; do i=$((i+1)); echo $i > /v/n.new; mv /v/n.new /v/n; sleep 0.01; done", "-v", dir+":/v")
	read := func() string { data, _ := os.ReadFile(filepath.Join(dir, "n")); return string(data) }
	until(t, "it counts", 10*time.Second, func() bool { return read() != "" })
	a.Run("pause", name)
	still := read()
	time.Sleep(300 * time.Millisecond) // that nothing happens takes a while to see
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
	a.Run("pause", name)
	a.Run("rm", "-f", name)
}

func autoRemove(t *testing.T, a at) {
	name := a.name(t)
	gone := func() bool { return a.Try("show", name).Status == 3 }
	expect(t, a.run("--rm", "--name", name, "busybox", "echo", "once"), 0, "once")
	if !gone() {
		t.Error("it is still there after the run")
	}
	if out := a.run("-d", "--rm", "--name", name, "busybox", "sleep", "0.2"); out.Status != 0 {
		t.Fatalf("its name is not free: %s", out.Stderr)
	}
	until(t, "it is gone", 10*time.Second, gone)
}
