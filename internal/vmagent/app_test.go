package vmagent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

func (g *guest) meet(t *testing.T) *streamstest.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := streamstest.Meet(ctx, g.streams)
	if err != nil {
		t.Error(err) // not Fatal: it is called beside the test as well
	}
	return c
}

func program(args ...string) wire.Process {
	return wire.Process{
		Args: args, Env: []string{"PATH=/bin", "A=b"}, WorkDir: "/", Capabilities: sandbox.Numbers(sandbox.App), NoNewPrivs: true,
		Rlimits: []wire.Rlimit{{Type: unix.RLIMIT_NOFILE, Soft: 1 << 20, Hard: 1 << 20}},
	}
}

// environment boots a guest and starts r in it.
func environment(t *testing.T, r spec.Run) (*guest, *control.Client, *streamstest.Client, error) {
	t.Helper()
	template, disk := files(t)
	g := bootGuest(t, machine{template: template, disk: disk})
	c := g.dial(t)
	if info, err := c.Info(t.Context()); err != nil || len(info.Faults) > 0 {
		t.Fatal(info, err)
	}
	answered := time.Since(g.started)
	met := make(chan *streamstest.Client, 1)
	go func() { met <- g.meet(t) }()
	begin := time.Now()
	err := g.run(t, c, r)
	t.Logf("answer after %v, run in %v", answered.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	return g, c, <-met, err // it is met also where its program could not be started
}

func inside(t *testing.T, s *streamstest.Client, p wire.Process) streamstest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Run(ctx, p, nil)
	if err != nil {
		t.Fatalf("%v: %v", p.Args, err)
	}
	return r
}

func TestTheMainProgramsEndIsTheGuests(t *testing.T) {
	r := basicRun()
	main := program("sh", "-c", "echo out; echo err >&2; exit 7")
	r.Main = &main
	g, _, s, err := environment(t, r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := s.Main().Collect(ctx)
	if err != nil || string(result.Stdout) != "out\n" || string(result.Stderr) != "err\n" || result.Exit.Status.ExitStatus() != 7 {
		t.Errorf("got %+v, %v", result, err)
	}
	s.Taken()
	begin := time.Now()
	g.wait(t)
	t.Logf("off after %v; whole %v", time.Since(begin).Round(time.Millisecond), time.Since(g.started).Round(time.Millisecond))
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	r := basicRun()
	main := program("nonesuch")
	r.Main = &main
	_, _, _, err := environment(t, r)
	if err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("got %v", err)
	}
}

func TestTheInsideIsAZones(t *testing.T) {
	r := basicRun()
	compiled, err := seccomp.Default(sandbox.App, seccomp.Version{Major: 6, Minor: 1})
	filter := compiled.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	main := program("sleep", "1000")
	main.Seccomp = filter
	r.Main = &main
	g, c, s, err := environment(t, r)
	if err != nil {
		t.Fatal(err)
	}
	sh := func(text string) streamstest.Result {
		p := program("sh", "-c", text)
		p.Seccomp = []byte(wire.MainFilter)
		return inside(t, s, p)
	}
	if got := sh("until grep ^virtio_rng /proc/modules; do sleep 0.1; done"); !strings.HasPrefix(string(got.Stdout), "virtio_rng") {
		t.Errorf("what is loaded later is not: %+v", got)
	}
	for text, want := range map[string]string{
		"hostname; cat /etc/hosts":                                        "guest\n127.0.0.1 localhost\n",
		"cat /proc/self/timerslack_ns":                                    "50000\n",
		"cat /proc/self/cgroup":                                           "0::/\n",
		"cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max":           "67108864\n64\n",
		"ls /dev | tr '\\n' ' '":                                          "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
		"cat /proc/1/comm; echo $A; id":                                   "strata-agent\nb\nuid=0(root) gid=0\n",
		"ip -o addr show eth0 | head -1":                                  "2: eth0    inet 10.9.8.7/24 brd 10.9.8.255 scope global eth0\\       valid_lft forever preferred_lft forever\n",
		"cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu":         "02:00:00:00:00:17\n1400\n",
		"ip route | head -1; ip -6 route | grep default":                  "default via 10.9.8.1 dev eth0 \ndefault via fd00::1 dev eth0  metric 1024 \n",
		"grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status":               "CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		"echo x > /proc/sys/kernel/hostname; cat /proc/keys | wc -c":      "0\n",
		"test $(($(date +%s)-$(stat -c %Y /etc/hosts))) -lt 100; echo $?": "0\n",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start":               "0\n",
		"echo a > /root/x; stat -c '%u %a' / /root/x":                     "0 755\n0 644\n",
		"mount | grep -c ' / .*overlay.*upperdir=.*redirect_dir=on'":      "1\n",
		"ls /strata /modules /init 2>/dev/null; kill -9 1; echo $?":       "0\n",
	} {
		if got := sh(text); string(got.Stdout) != want {
			t.Errorf("%s: %q %q, want %q", text, got.Stdout, got.Stderr, want)
		}
	}
	for want, filter := range map[string][]byte{"0": nil, "1": filter} { // its own, whatever the main program has
		p := program("sh", "-c", "grep Seccomp_filters: /proc/self/status")
		p.Seccomp = filter
		if got := inside(t, s, p); string(got.Stdout) != "Seccomp_filters:\t"+want+"\n" {
			t.Errorf("%d bytes of a filter: %q %q", len(filter), got.Stdout, got.Stderr)
		}
	}
	more := program("grep", "CapBnd:", "/proc/self/status") // from the thread that has lost none
	more.Capabilities = sandbox.All()
	if got := inside(t, s, more); string(got.Stdout) != "CapBnd:\t000001ffffffffff\n" {
		t.Errorf("more capabilities than others: %q %q", got.Stdout, got.Stderr)
	}
	got := sh("dd if=/dev/zero of=/dev/null bs=200M count=1; echo survived")
	if string(got.Stdout) != "survived\n" || got.Exit.OutOfMemory {
		t.Errorf("a program whose child was killed for want of memory: %+v", got)
	}
	if stats, err := c.Stats(t.Context()); err != nil || stats.OOMKills == 0 || stats.MemoryPeak < 60<<20 || stats.CPU == 0 || stats.PIDs != 1 || stats.DiskFree < 1<<20 || stats.DiskSize < stats.DiskFree {
		t.Errorf("stats: %+v, %v", stats, err)
	}
	list, _, err := c.Processes(t.Context())
	if err != nil || len(list) != 2 || list[1].Command != "sleep 1000" || list[1].User != "root" {
		t.Errorf("processes: %v, %v", list, err)
	}
	if got := inside(t, s, program("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")); !got.Exit.OutOfMemory {
		t.Errorf("a program killed for want of memory: %+v", got)
	}
	if err := c.SetLimits(t.Context(), spec.Limits{Memory: 32 << 20}); err != nil {
		t.Error(err)
	}
	if err := c.Freeze(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Thaw(t.Context()); err != nil {
		t.Error(err)
	}
	if got := sh("echo frozen > /root/y; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"); string(got.Stdout) != "33554432\nmax\n" {
		t.Errorf("%+v", got)
	}
	if err := s.Main().Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if result, err := s.Main().Collect(ctx); err != nil || !result.Exit.Status.Signaled() {
		t.Errorf("main: %+v, %v", result, err)
	}
	s.Taken()
	g.wait(t)
}
