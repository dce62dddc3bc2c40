package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"

	"golang.org/x/sys/unix"
)

// program plays a further program on its own duplicate of conn, as a keeper does.
func program(t *testing.T, play func(conn *os.File)) func(*enginetest.Run, stratum.Process, *os.File) error {
	return func(_ *enginetest.Run, _ stratum.Process, conn *os.File) error {
		fd, err := unix.Dup(int(conn.Fd()))
		if err != nil {
			return err
		}
		own := os.NewFile(uintptr(fd), "program")
		go func() {
			defer own.Close()
			play(own)
		}()
		return nil
	}
}

func exits(conn io.Writer, status uint8) {
	_ = stream.Write(conn, stream.Exit, stream.ExitPayload(stream.Ended{Status: status}))
}

func TestHealth(t *testing.T) {
	l := newLab(t)
	var status atomic.Int64
	status.Store(1)
	var args atomic.Value
	l.host.Exec = func(r *enginetest.Run, p stratum.Process, conn *os.File) error {
		args.Store(strings.Join(p.Args, " "))
		return program(t, func(conn *os.File) {
			_ = stream.Write(conn, stream.Stdout, bytes.Repeat([]byte("x"), 60000))
			exits(conn, uint8(status.Load()))
		})(r, p, conn)
	}
	events := l.Subscribe(t.Context(), engine.Filter{Types: []string{"environment"}})
	check := &api.Health{Test: []string{"CMD-SHELL", "test -e /well"}, Interval: unit.Duration(5 * time.Millisecond), Retries: 2}
	env := l.run(api.Spec{Name: "web", Health: check})
	if env.Ready || env.Health != "starting" {
		t.Errorf("before any check: ready %v, %s", env.Ready, env.Health)
	}
	l.until("it is unhealthy", func() bool { return l.get("web").Health == "unhealthy" })
	status.Store(0)
	l.until("it is well", func() bool { env := l.get("web"); return env.Health == "healthy" && env.Ready && env.Failing == 0 })
	if args.Load() != "/bin/sh -c test -e /well" {
		t.Errorf("the check ran %q", args.Load())
	}
	var said []string
	for ev := range events {
		if ev.Action == "health_status" {
			said = append(said, ev.Detail["health"])
			if n := len(ev.Detail["output"]); n != 4096 {
				t.Errorf("%d bytes of output", n)
			}
		}
		if len(said) == 2 {
			break
		}
	}
	if strings.Join(said, " ") != "unhealthy healthy" {
		t.Errorf("events: %v", said)
	}
}

// TestWhatAHealthCheckSaysSteersNoTerminal, neither what it writes nor why it did not run.
func TestWhatAHealthCheckSaysSteersNoTerminal(t *testing.T) {
	l := newLab(t)
	var fails atomic.Bool
	run := program(t, func(conn *os.File) {
		_ = stream.Write(conn, stream.Stdout, []byte("all\tis\r\nwell\n\x1b]0;x\x07\u009b2J\xff\n"))
		exits(conn, 0)
	})
	l.host.Exec = func(r *enginetest.Run, p stratum.Process, conn *os.File) error {
		if fails.Load() {
			return errors.New("no\nshell\x1b[2J" + strings.Repeat("x", 10000))
		}
		return run(r, p, conn)
	}
	events := l.Subscribe(t.Context(), engine.Filter{Types: []string{"environment"}})
	l.run(api.Spec{Name: "web", Health: &api.Health{Test: []string{"CMD", "x"}, Interval: unit.Duration(5 * time.Millisecond), Retries: 1}})
	for ev := range events {
		if ev.Action != "health_status" {
			continue
		}
		said := ev.Detail["output"]
		if fails.Load() {
			if !strings.HasPrefix(said, "no shell?[2Jxx") || len(said) > 5000 {
				t.Errorf("%.100q (%d bytes)", said, len(said))
			}
			return
		}
		if said != "all is  well ?]0;x??2J?" {
			t.Errorf("%q", said)
		}
		fails.Store(true)
	}
}

func TestHealthTimesOut(t *testing.T) {
	l := newLab(t)
	killed := make(chan byte, 10)
	l.host.Exec = program(t, func(conn *os.File) {
		kind, payload, err := stream.NewReader(conn).Next()
		if err == nil && kind == stream.Signal {
			killed <- payload[0]
		}
	})
	l.run(api.Spec{Name: "web", Health: &api.Health{Test: []string{"CMD", "hang"}, Interval: unit.Duration(time.Millisecond), Timeout: unit.Duration(20 * time.Millisecond), Retries: 1}})
	l.until("it is unhealthy", func() bool { return l.get("web").Health == "unhealthy" })
	if sig := <-killed; sig != byte(syscall.SIGKILL) {
		t.Errorf("the check got signal %d", sig)
	}
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
}

func TestStartPeriod(t *testing.T) {
	l := newLab(t)
	var checks atomic.Int64
	l.host.Exec = program(t, func(conn *os.File) { checks.Add(1); exits(conn, 1) })
	l.run(api.Spec{Name: "web", Health: &api.Health{Test: []string{"CMD", "x"}, Interval: unit.Duration(time.Millisecond), StartPeriod: unit.Duration(time.Hour), Retries: 1}})
	l.until("it was checked", func() bool { return checks.Load() > 3 })
	if env := l.get("web"); env.Health != "starting" || env.Failing != 0 {
		t.Errorf("%s, %d failed", env.Health, env.Failing)
	}
}

func TestSystemIsReadyWhenBooted(t *testing.T) {
	l := newLab(t)
	env := l.run(api.Spec{Name: "os", Template: "debian"})
	if env.Ready || env.Kind != "system" || env.Command[0] != "/sbin/init" {
		t.Errorf("%+v", env)
	}
	close(l.host.Run(env.ID).Booted)
	l.until("it is ready", func() bool { return l.get("os").Ready })
}

func TestCopy(t *testing.T) {
	l := newLab(t)
	var seen atomic.Value
	l.host.Exec = func(r *enginetest.Run, p stratum.Process, conn *os.File) error {
		seen.Store(p)
		return program(t, func(conn *os.File) {
			switch p.Args[0] {
			case "tar-create":
				_ = stream.Write(conn, stream.Stdout, bytes.Repeat([]byte("tar"), 100000))
				exits(conn, 0)
			case "tar-extract":
				n, frames := 0, stream.NewReader(conn)
				for {
					kind, payload, err := frames.Next()
					if err != nil || kind == stream.CloseStdin {
						break
					}
					n += len(payload)
				}
				if n != 300000 {
					_ = stream.Write(conn, stream.Stderr, []byte("short"))
					exits(conn, 1)
					return
				}
				exits(conn, 0)
			case "stat":
				if p.Args[1] == "/none" {
					_ = stream.Write(conn, stream.Stderr, []byte(`{"kind":"missing","message":"there is no /none"}`))
					exits(conn, 1)
					return
				}
				if ended, ok := killed[p.Args[1]]; ok {
					_ = stream.Write(conn, stream.Exit, stream.ExitPayload(ended))
					return
				}
				if said := hostile[p.Args[1]]; said != "" {
					_ = stream.Write(conn, stream.Stderr, []byte(said))
					exits(conn, 1)
					return
				}
				_ = stream.Write(conn, stream.Stdout, []byte(`{"name":"etc","type":"folder"}`))
				exits(conn, 0)
			}
		})(r, p, conn)
	}
	l.create(api.Spec{Name: "web", Volumes: []api.Volume{{Source: "/tmp", Target: "/v"}}})
	check := func(want api.State) {
		t.Helper()
		var out bytes.Buffer
		l.must(l.CopyOut(t.Context(), "web", "/etc/../etc/", &out))
		if out.Len() != 300000 {
			t.Errorf("%d bytes came out", out.Len())
		}
		if p := seen.Load().(stratum.Process); !p.Agent || p.Args[1] != "/etc" || p.User != "0:0" {
			t.Errorf("%+v", p)
		}
		l.must(l.CopyIn(t.Context(), "web", "/tmp", bytes.NewReader(out.Bytes())))
		err := l.CopyIn(t.Context(), "web", "/tmp", io.MultiReader(bytes.NewReader(out.Bytes()), failing{}))
		if !errors.Is(err, errBroken) {
			t.Errorf("a broken stream: %v", err)
		}
		stat, err := l.StatPath(t.Context(), "web", "/etc")
		if err != nil || stat.Type != "folder" {
			t.Errorf("%+v, %v", stat, err)
		}
		_, err = l.StatPath(t.Context(), "web", "/none")
		kindIs(t, err, fault.Missing, "there is no /none")
		_, err = l.StatPath(t.Context(), "web", "/killed")
		kindIs(t, err, fault.Conflict, "the agent was killed")
		_, err = l.StatPath(t.Context(), "web", "/large")
		kindIs(t, err, fault.Unable, "for want of memory")
		for path := range hostile {
			_, err = l.StatPath(t.Context(), "web", path)
			all := fault.All(err)
			if len(all) != 1 || !strings.Contains(err.Error(), "some words") || len(all[0].Message+all[0].Hint) > 5000 || strings.ContainsFunc(all[0].Message+all[0].Hint, unicode.IsControl) {
				t.Errorf("%s: %.200q", path, err)
			}
		}
		l.stateIs("web", want)
	}
	check(api.Created)
	l.until("nothing runs", func() bool { return len(l.host.Runs()) == 0 })
	l.must(l.Start(t.Context(), "web", nil))
	check(api.Running)
	_, err := l.StatPath(t.Context(), "web", "etc")
	kindIs(t, err, fault.Invalid, "absolute")
}

// hostile is what a command says that root inside has put in the agent's place, by path.
var hostile = map[string]string{
	"/fault": `{"kind":"missing","message":"some words\u001b]0;\u0007\u009b2J","hint":"\u001b[2J` + strings.Repeat("x", 3000) + `"}`,
	"/words": "some words\x1b[2J\xff\x9b" + strings.Repeat("x", 4000),
	"/blank": `{"message":" \n","hint":"some words\u001b"}`,
}

// killed is how a command was ended from outside, by path.
var killed = map[string]stream.Ended{"/killed": {Status: 137, Signal: 9}, "/large": {Status: 137, Signal: 9, OOM: true}}

var errBroken = errors.New("the connection broke")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

// TestACopyTakesOneRun, with what is asked before it; whatever else is wanted of the environment
// ends it first.
func TestACopyTakesOneRun(t *testing.T) {
	for sentence, c := range map[string]struct {
		then   func(*lab) error
		starts int
	}{
		"copied in":  {func(l *lab) error { return l.CopyIn(t.Context(), "web", "/etc", strings.NewReader("tar")) }, 1},
		"copied out": {func(l *lab) error { return l.CopyOut(t.Context(), "web", "/etc", io.Discard) }, 1},
		"broken off": {func(l *lab) error {
			err := l.CopyIn(t.Context(), "web", "/etc", failing{})
			if !errors.Is(err, errBroken) {
				t.Errorf("copied: %v", err)
			}
			return nil
		}, 1},
		"started and stopped": {func(l *lab) error {
			return errors.Join(l.Start(t.Context(), "web", nil), l.Stop(t.Context(), "web", engine.StopOptions{}))
		}, 2},
		"renamed": {func(l *lab) error { return l.Rename(t.Context(), "web", "other") }, 1},
		"removed": {func(l *lab) error { return l.Remove(t.Context(), "web", false) }, 1},
		"closed":  {func(l *lab) error { return l.Engine.Close(t.Context()) }, 1},
	} {
		t.Run(sentence, func(t *testing.T) {
			l := newLab(t)
			l.host.Exec = func(r *enginetest.Run, p stratum.Process, conn *os.File) error {
				return program(t, func(conn *os.File) {
					switch p.Args[len(p.Args)-1] {
					case "/none":
						_ = stream.Write(conn, stream.Stderr, []byte(`{"kind":"missing","message":"there is no /none"}`))
						exits(conn, 1)
						return
					case "/":
						_ = stream.Write(conn, stream.Stdout, []byte(`{"name":"/","type":"folder"}`))
					default:
						for frames := stream.NewReader(conn); p.Args[0] == "tar-extract"; {
							if kind, _, err := frames.Next(); err != nil || kind == stream.CloseStdin {
								break
							}
						}
					}
					exits(conn, 0)
				})(r, p, conn)
			}
			l.create(api.Spec{Name: "web"})
			_, err := l.StatPath(t.Context(), "web", "/none")
			kindIs(t, err, fault.Missing, "there is no /none")
			_, err = l.StatPath(t.Context(), "web", "/")
			l.must(err)
			l.must(c.then(l))
			if runs := l.host.Runs(); len(runs) != 0 || l.host.Starts() != c.starts {
				t.Errorf("it took %d runs, and left %v", l.host.Starts(), runs)
			}
		})
	}
}

// TestForceEndsACopy: rm -f does not wait for somebody who reads slowly.
func TestForceEndsACopy(t *testing.T) {
	l := newLab(t)
	begun := make(chan struct{}, 1)
	l.host.Exec = program(t, func(conn *os.File) {
		begun <- struct{}{}
		_, _, _ = stream.NewReader(conn).Next()
	})
	l.create(api.Spec{Name: "web"})
	copied := make(chan error, 1)
	go func() { copied <- l.CopyOut(context.Background(), "web", "/", io.Discard) }()
	<-begun
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	kindIs(t, l.Start(short, "web", nil), fault.Busy, "web")
	l.must(l.Remove(t.Context(), "web", true))
	kindIs(t, <-copied, fault.Conflict, "being removed")
	l.until("nothing is left", l.nothingLeft)
}

// TestForceEndsACopyThatStarts has one whose system takes long to come up.
func TestForceEndsACopyThatStarts(t *testing.T) {
	l := newLab(t)
	l.host.Slow = time.Minute
	l.create(api.Spec{Name: "web"})
	copied := make(chan error, 1)
	go func() { copied <- l.CopyOut(context.Background(), "web", "/", io.Discard) }()
	l.until("it starts", func() bool { return l.host.Begun() == 1 })
	l.must(l.Remove(t.Context(), "web", true))
	kindIs(t, <-copied, fault.Conflict, "being removed")
	l.until("nothing is left", l.nothingLeft)
}

func TestExec(t *testing.T) {
	l := newLab(t)
	var seen atomic.Value
	l.host.Exec = func(_ *enginetest.Run, p stratum.Process, _ *os.File) error { seen.Store(p); return nil }
	l.run(api.Spec{Name: "web", Env: []string{"A=1"}, WorkDir: "/srv", User: "7"})
	l.must(l.Exec(t.Context(), "web", api.Process{Command: []string{"id"}, Env: []string{"A=2", "B=3"}, TTY: true}, nil))
	p := seen.Load().(stratum.Process)
	if p.WorkDir != "/srv" || p.User != "7" || p.Agent || strings.Join(p.Env[1:], " ") != "HOSTNAME=web A=2 TERM=xterm B=3" {
		t.Errorf("%+v", p)
	}
	kindIs(t, l.Exec(t.Context(), "web", api.Process{}, nil), fault.Invalid, "command")
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	kindIs(t, l.Exec(t.Context(), "web", api.Process{Command: []string{"id"}}, nil), fault.Conflict, "stopped")
	kindIs(t, l.Attach(t.Context(), "web", nil), fault.Conflict, "stopped")
}

func TestEvents(t *testing.T) {
	l := newLab(t)
	ctx := engine.WithOperation(t.Context(), "op-7")
	live := l.Subscribe(t.Context(), engine.Filter{Names: []string{"web"}})
	began := time.Now()
	if _, err := l.Create(ctx, api.Spec{Name: "web", Template: "busybox"}); err != nil {
		t.Fatal(err)
	}
	l.create(api.Spec{Name: "other"})
	l.must(l.Start(t.Context(), "web", nil))
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.must(l.Remove(engine.WithOperation(t.Context(), "op-8"), "web", false))
	want := "create start die stop destroy"
	collect := func(ch <-chan api.Event) string {
		var actions []string
		for range strings.Fields(want) {
			select {
			case ev := <-ch:
				actions = append(actions, ev.Action)
			case <-time.After(5 * time.Second):
				return strings.Join(actions, " ") + " …"
			}
		}
		return strings.Join(actions, " ")
	}
	if got := collect(live); got != want {
		t.Errorf("live: %s", got)
	}
	if got := collect(l.Subscribe(t.Context(), engine.Filter{Names: []string{"web"}, Since: began})); got != want {
		t.Errorf("past: %s", got)
	}
	if ev := <-l.Subscribe(t.Context(), engine.Filter{Since: began, Operations: []string{"op-7"}}); ev.Action != "create" || ev.Operation != "op-7" {
		t.Errorf("of the operation: %+v", ev)
	}
	either := l.Subscribe(t.Context(), engine.Filter{Since: began, Operations: []string{"op-8", "op-7"}})
	if one, other := <-either, <-either; one.Operation != "op-7" || other.Operation != "op-8" {
		t.Errorf("of two operations: %+v, %+v", one, other)
	}
	done, cancel := context.WithCancel(t.Context())
	ch := l.Subscribe(done, engine.Filter{})
	cancel()
	if _, open := <-ch; open {
		t.Error("the channel is open")
	}
}

// TestSlowReaderLosesTheOldest: publishing never waits, and the reader is told.
func TestAllThatIsPastCanBeRead(t *testing.T) {
	l := newLab(t)
	began := time.Now()
	for range 2000 {
		l.must(l.TagTemplate(t.Context(), "busybox", "again"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	past := l.Subscribe(ctx, engine.Filter{Since: began})
	l.must(l.TagTemplate(t.Context(), "busybox", "last"))
	got := 0
	for ev := range past {
		if ev.Action == "dropped" {
			t.Fatalf("%+v", ev)
		}
		if got++; got == 1025 { // as many are kept, and the last
			break
		}
	}
}

func TestSlowReaderLosesTheOldest(t *testing.T) {
	l := newLab(t)
	ch := l.Subscribe(t.Context(), engine.Filter{Types: []string{"template"}})
	for range 2000 {
		l.must(l.TagTemplate(t.Context(), "busybox", "again"))
	}
	got, lost := 0, false
	for end := time.After(200 * time.Millisecond); ; {
		select {
		case ev := <-ch:
			got++
			lost = lost || ev.Action == "dropped" && ev.Detail["events"] != ""
			continue
		case <-end:
		}
		break
	}
	if !lost || got > 600 || got < 100 {
		t.Errorf("%d events; told of a loss: %v", got, lost)
	}
}

func TestTemplatesInUse(t *testing.T) {
	l := newLab(t)
	l.create(api.Spec{Name: "web"})
	_, err := l.RemoveTemplate(t.Context(), "busybox", true)
	kindIs(t, err, fault.Conflict, "web")
	if one, err := l.Template(t.Context(), "busybox"); err != nil || len(one.UsedBy) != 1 {
		t.Errorf("%+v, %v", one, err)
	}
	if freed, err := l.PruneTemplates(t.Context(), true); err != nil || len(freed.Removed) != 1 || freed.Removed[0] != "sha256:b1" {
		t.Errorf("%+v, %v", freed, err)
	}
	l.must(l.Remove(t.Context(), "web", false))
	if _, err := l.RemoveTemplate(t.Context(), "busybox", false); err != nil {
		t.Error(err)
	}
	_, err = l.PullTemplate(t.Context(), api.PullRequest{Ref: "x"})
	kindIs(t, err, fault.Unable)
}

func TestNetworks(t *testing.T) {
	l := newLab(t)
	if _, err := l.CreateNetwork(t.Context(), api.Network{Name: "back"}); err != nil {
		t.Fatal(err)
	}
	_, err := l.CreateNetwork(t.Context(), api.Network{Name: "none"})
	kindIs(t, err, fault.Invalid, "none")
	l.create(api.Spec{Name: "web", Network: "back"})
	kindIs(t, l.RemoveNetwork(t.Context(), "back"), fault.Conflict, "web")
	if n, err := l.Network(t.Context(), "back"); err != nil || len(n.UsedBy) != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	l.must(l.Remove(t.Context(), "web", false))
	l.must(l.RemoveNetwork(t.Context(), "back"))
	env := l.run(api.Spec{Name: "alone", Network: "none"})
	if env.Network.Network != "" || len(l.network.Names()) != 0 {
		t.Errorf("%+v", env.Network)
	}
}

func TestANetworkThatIsMadeAgainHasItsAddresses(t *testing.T) {
	l := newLab(t)
	if _, err := l.CreateNetwork(t.Context(), api.Network{Name: "back"}); err != nil {
		t.Fatal(err)
	}
	l.create(api.Spec{Name: "web", Network: "back"})
	l.create(api.Spec{Name: "other"})
	l.restart() // there the network is gone
	if got := l.network.Names(); !slices.Equal(got, []string{"other"}) {
		t.Fatal(got)
	}
	if _, err := l.CreateNetwork(t.Context(), api.Network{Name: "back"}); err != nil {
		t.Fatal(err)
	}
	if got := l.network.Names(); !slices.Equal(got, []string{"other", "web"}) {
		t.Errorf("addresses are held by %v", got)
	}
}

func TestEventsUntilATimeAreAllThereHoweverLateTheyAreRead(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "one", Template: "busybox"})
	before := time.Now()
	events := l.Subscribe(t.Context(), engine.Filter{Since: before.Add(-time.Minute), Until: before, Names: []string{"one"}})
	l.must(l.Kill(t.Context(), "one", "KILL"))
	time.Sleep(50 * time.Millisecond) // the reader is slow
	var actions []string
	for e := range events {
		actions = append(actions, e.Action)
	}
	if !slices.Contains(actions, "start") || slices.Contains(actions, "kill") {
		t.Errorf("the events until then are %v", actions)
	}
}
