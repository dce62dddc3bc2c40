package vmagent_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

// initScript is a template's init that says what it sees, is ready, and ends the
// system when it gets a signal.
const initScript = `#!/bin/sh
trap 'echo bye; sync; poweroff -f' USR1
echo "init $$ on $(tty)"
cat /proc/self/cgroup
notify
while :; do sleep 0.1; done
`

func root(args ...string) wire.Process {
	return wire.Process{Args: args, Env: []string{"PATH=/bin"}, WorkDir: "/", Capabilities: sandbox.All()}
}

// system boots a guest with an init and returns clients of the agent beside it.
func system(t *testing.T, template, disk string, r spec.Run) (*guest, *control.Client, *streamstest.Client) {
	t.Helper()
	g := bootGuest(t, machine{template: template, disk: disk})
	met := make(chan *streamstest.Client, 1)
	go func() { met <- g.meet(t) }()
	c := g.dial(t)
	begin := time.Now()
	if err := g.run(t, c, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("run in %v", time.Since(begin).Round(time.Millisecond))
	c.Close()
	c = g.dial(t)
	t.Logf("met the companion after %v", time.Since(begin).Round(time.Millisecond))
	s := <-met
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Main().Started(ctx); err != nil {
		t.Fatal(err)
	}
	return g, c, s
}

func TestAnInitTakesTheAgentsPlace(t *testing.T) {
	template, disk := filesWith(t, func(tree string) {
		cmd := exec.Command(require.Tool(t, "go"), "build", "-o", filepath.Join(tree, "bin/notify"), "./testdata/notify")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.WriteFile(filepath.Join(tree, "bin/start"), []byte(initScript), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	r := basicRun()
	r.System = true
	main := root("/bin/start")
	main.TTY = true
	r.Main = &main
	g, c, s := system(t, template, disk, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Main().Ready(ctx); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	heard := make(chan struct{})
	go func() { io.Copy(&said, s.Main().Stdout); close(heard) }()
	info, err := c.Info(t.Context())
	if err != nil || info.State != control.State_RUNNING {
		t.Errorf("info: %v, %v", info, err)
	}
	for text, want := range map[string]string{
		"cat /proc/1/comm; cat /proc/self/cgroup":                                  "start\n0::/strata.exec\n",
		"cat /sys/fs/cgroup/cgroup.procs | head -1; cat /sys/fs/cgroup/memory.max": "1\n67108864\n",
		"grep CapEff /proc/self/status":                                            "CapEff:\t000001ffffffffff\n",
		"ls -d /dev/vda /dev/null /dev/pts/ptmx /proc/sys":                         "/dev/null\n/dev/pts/ptmx\n/dev/vda\n/proc/sys\n",
		"echo x > /proc/sys/kernel/hostname; hostname":                             "x\n",
		"ps | grep -c '[s]trata-agent-beside'":                                     "1\n",
	} {
		if got := inside(t, s, root("sh", "-c", text)); string(got.Stdout) != want {
			t.Errorf("%s: %q %q, want %q", text, got.Stdout, got.Stderr, want)
		}
	}
	if list, _, err := c.Processes(t.Context()); err != nil || len(list) == 0 || list[0].Pid != 1 {
		t.Errorf("processes: %v, %v", list, err)
	}
	if err := s.Main().Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	g.wait(t)
	g.streams.Close()
	<-heard
	if want := "init 1 on /dev/pts/0\r\n0::/\r\nbye\r\n"; !strings.HasPrefix(said.String(), want) && !strings.Contains(said.String(), "init 1 on /dev/console") {
		t.Errorf("the init said %q", said.String())
	}
	t.Logf("%q", said.String())
}

func TestAnInitThatIsNotThereIsNamed(t *testing.T) {
	template, disk := files(t)
	r := basicRun()
	r.System = true
	main := root("/sbin/init")
	main.TTY = true
	r.Main = &main
	g := bootGuest(t, machine{template: template, disk: disk})
	c := g.dial(t)
	met := make(chan *streamstest.Client, 1)
	go func() { met <- g.meet(t) }()
	if err := g.run(t, c, r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := <-met
	if err := s.Main().Started(ctx); err == nil || !strings.Contains(err.Error(), "/sbin/init") {
		t.Errorf("got %v", err)
	}
	s.Taken()
	g.wait(t)
}
