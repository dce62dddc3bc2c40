package streams_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/vmagent/port"
	"github.com/strata-project/strata/internal/vmagent/streams/streamstest"
)

func TestAProgramGivesWhatItGivesAnywhere(t *testing.T) {
	_, c := rooted(t)
	for sentence, want := range map[string]struct {
		process     wire.Process
		stdin       string
		out, errors string
		status      int
		signal      unix.Signal
	}{
		"an exit status":             {process: shell("exit 7"), status: 7},
		"a signal":                   {process: shell("kill -TERM $$"), signal: unix.SIGTERM},
		"outputs apart":              {process: shell("echo out; echo err >&2"), out: "out\n", errors: "err\n"},
		"input and its end":          {process: with(shell("cat; echo end"), func(p *wire.Process) { p.Stdin = true }), stdin: "text\n", out: "text\nend\n"},
		"no input":                   {process: shell("cat; echo end"), out: "end\n"},
		"a working folder":           {process: with(shell("pwd"), func(p *wire.Process) { p.WorkDir = "/usr" }), out: "/usr\n"},
		"a user":                     {process: with(shell("id -u; id -g"), func(p *wire.Process) { p.User = "65534:7" }), out: "65534\n7\n"},
		"an output that ends early":  {process: shell("exec >&-; echo err >&2; exit 3"), errors: "err\n", status: 3},
		"a session of its own":       {process: shell(`[ "$(cut -d' ' -f6 /proc/$$/stat)" = $$ ] && echo yes`), out: "yes\n"},
		"descriptors only its own":   {process: shell("exec ls /proc/self/fd"), out: "0\n1\n2\n3\n"},
		"outputs opened again":       {process: with(shell("echo again >/dev/stderr"), func(p *wire.Process) { p.User = "65534" }), errors: "again\n"},
		"the program found in $PATH": {process: wire.Process{Args: []string{"echo", "hi"}, Env: []string{"PATH=/usr/bin:/bin"}}, out: "hi\n"},
	} {
		r, err := c.Run(within(t), want.process, []byte(want.stdin))
		if err != nil {
			t.Errorf("%s: %v", sentence, err)
			continue
		}
		if string(r.Stdout) != want.out || string(r.Stderr) != want.errors {
			t.Errorf("%s: got %q and %q, want %q and %q", sentence, r.Stdout, r.Stderr, want.out, want.errors)
		}
		if want.signal != 0 && r.Exit.Status.Signal() != want.signal || want.signal == 0 && r.Exit.Status.ExitStatus() != want.status {
			t.Errorf("%s: ended with %#x", sentence, int(r.Exit.Status))
		}
	}
}

func TestAProgramThatDoesNotStartIsExplained(t *testing.T) {
	_, c := rooted(t)
	for sentence, x := range map[string]struct {
		process wire.Process
		kind    string
		words   string
	}{
		"no such command":  {wire.Process{Args: []string{"nosuchthing"}}, "missing", "executable file not found in $PATH"},
		"no such file":     {wire.Process{Args: []string{"/no/such"}}, "missing", "no such file"},
		"a folder":         {wire.Process{Args: []string{"/usr"}}, "unable", "is a directory"},
		"no such user":     {wire.Process{Args: []string{"/bin/true"}, User: "nobody-here"}, "missing", "unable to find user"},
		"no such folder":   {wire.Process{Args: []string{"/bin/true"}, WorkDir: "/no/such"}, "missing", "working folder"},
		"no command":       {wire.Process{}, "invalid", "no command"},
		"quotes and lines": {wire.Process{Args: []string{"/\"\n\xff"}}, "missing", "no such file"},
		"a long name":      {wire.Process{Args: []string{"/" + strings.Repeat("\x01", 9000)}}, "unable", "exec"},
	} {
		var failed *streamstest.FailedError
		if _, err := c.Run(within(t), x.process, nil); !errors.As(err, &failed) || failed.Kind != x.kind || !strings.Contains(failed.Message, x.words) {
			t.Errorf("%s: got %v", sentence, err)
		}
	}
}

func TestInputAndOutputAreWhole(t *testing.T) {
	_, c := rooted(t)
	in := make([]byte, 5<<20)
	for i := range in {
		in[i] = byte(rand.Uint32())
	}
	r, err := c.Run(within(t), with(shell("cat"), func(p *wire.Process) { p.Stdin = true }), in)
	if err != nil || !bytes.Equal(r.Stdout, in) {
		t.Fatalf("%d of %d bytes came back: %v", len(r.Stdout), len(in), err)
	}
}

func TestATerminal(t *testing.T) {
	_, c := rooted(t)
	x, err := c.Exec(with(shell("tty; stty size; read line; stty size; echo got $line; trap 'echo int; exit 9' INT; echo wait; while :; do sleep 0.1; done"),
		func(p *wire.Process) { p.TTY, p.Stdin, p.Rows, p.Cols = true, true, 24, 80 }))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, x.Stdout, "/dev/pts/", "24 80")
	x.Resize(40, 132)
	x.CloseStdin() // means nothing
	x.Write([]byte("word\r"))
	expect(t, x.Stdout, "40 132", "got word", "wait")
	x.Write([]byte{3}) // ^C
	expect(t, x.Stdout, "int")
	if exit, err := x.Wait(within(t)); err != nil || exit.Status.ExitStatus() != 9 {
		t.Errorf("ended with %#x, %v", int(exit.Status), err)
	}
}

// expect reads r until each of words has come, in this order.
func expect(t *testing.T, r io.Reader, words ...string) {
	t.Helper()
	var all []byte
	buf := make([]byte, 1024)
	for _, w := range words {
		for {
			if at := bytes.Index(all, []byte(w)); at >= 0 {
				all = all[at+len(w):]
				break
			}
			n, err := r.Read(buf)
			if err != nil {
				t.Fatalf("%q did not come: %v after %q", w, err, all)
			}
			all = append(all, buf[:n]...)
		}
	}
}

func TestALastWordOnATerminalIsNotLost(t *testing.T) {
	_, c := rooted(t)
	for range 30 {
		r, err := c.Run(within(t), with(shell("seq 300; echo last"), func(p *wire.Process) { p.TTY = true }), nil)
		if err != nil || !bytes.HasSuffix(r.Stdout, []byte("300\r\nlast\r\n")) {
			t.Fatalf("got %d bytes that end in %q: %v", len(r.Stdout), r.Stdout[max(0, len(r.Stdout)-20):], err)
		}
	}
}

func TestWhoElseHoldsTheOutputsIsNotWaitedFor(t *testing.T) {
	_, c := rooted(t)
	for sentence, script := range map[string]string{
		"one that is silent": "sleep 100 & echo $!",
		"one that floods":    "yes flood & echo $!",
	} {
		x, err := c.Exec(shell("echo begin; " + script))
		if err != nil {
			t.Fatal(err)
		}
		r, err := x.Collect(within(t))
		if err != nil || !bytes.HasPrefix(r.Stdout, []byte("begin\n")) {
			t.Errorf("%s: got %.30q, %v", sentence, r.Stdout, err)
		}
		for line := range strings.Lines(string(r.Stdout)) {
			var pid int
			if _, err := fmt.Sscan(line, &pid); err == nil {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	_, c := rooted(t)
	flood, err := c.Exec(shell("exec yes flood"))
	if err != nil {
		t.Fatal(err)
	}
	errs, err := c.Exec(shell("exec yes flood >&2"))
	if err != nil {
		t.Fatal(err)
	}
	deaf, err := c.Exec(with(shell("exec sleep 1000"), func(p *wire.Process) { p.Stdin = true }))
	if err != nil {
		t.Fatal(err)
	}
	go deaf.Write(make([]byte, 1<<20)) // ends with the connection
	for flood.Unread() < port.InitialWindow || errs.Unread() < port.InitialWindow {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		if r, err := c.Run(within(t), shell("echo hi"), nil); err != nil || string(r.Stdout) != "hi\n" {
			t.Fatalf("got %q, %v", r.Stdout, err)
		}
	}
	if n := flood.Unread(); n != port.InitialWindow {
		t.Errorf("%d bytes came, %d were granted", n, port.InitialWindow)
	}
	for _, x := range []*streamstest.Program{flood, errs, deaf} {
		x.Signal(unix.SIGKILL)
		r, err := x.Collect(within(t))
		if err != nil || r.Exit.Status.Signal() != unix.SIGKILL {
			t.Errorf("ended with %#x, %v", int(r.Exit.Status), err)
		}
	}
}

func TestHundredsOfProgramsAtOnce(t *testing.T) {
	b, c := rooted(t)
	const many = 300
	before := descriptors(t)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			text := fmt.Sprintln(i)
			r, err := c.Run(within(t), with(shell("cat; exit "+fmt.Sprint(i%200)), func(p *wire.Process) { p.Stdin = true }), []byte(text))
			if err != nil || string(r.Stdout) != text || r.Exit.Status.ExitStatus() != i%200 {
				t.Errorf("program %d: got %q, %#x, %v", i, r.Stdout, int(r.Exit.Status), err)
			}
		})
	}
	all.Wait()
	if n := b.starter.alive.Load(); n != 0 {
		t.Errorf("%d programs are not reaped", n)
	}
	for end := time.Now().Add(patience); descriptors(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
	}
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestASignalMayComeBeforeTheProgram(t *testing.T) {
	_, c := rooted(t)
	x, err := c.Exec(shell("exec sleep 100"))
	if err != nil {
		t.Fatal(err)
	}
	x.Signal(unix.SIGUSR1)
	x.Signal(0)   // is none
	x.Signal(200) // is none
	if exit, err := x.Wait(within(t)); err != nil || exit.Status.Signal() != unix.SIGUSR1 {
		t.Errorf("ended with %#x, %v", int(exit.Status), err)
	}
}

func TestTheMainProgramMayBeOlderThanTheHost(t *testing.T) {
	b, first := rooted(t)
	p := with(shell("read a; echo $a; read b; echo $b; exit 5"), func(p *wire.Process) { p.Stdin = true })
	if err := b.server.Start(&p); err != nil {
		t.Fatal(err)
	}
	b.server.Ready()
	first.Main().Write([]byte("one\n"))
	expect(t, first.Main().Stdout, "one")
	first.Close()
	second := b.host()
	if err := second.Main().Ready(within(t)); err != nil {
		t.Fatalf("ready is not said again: %v", err)
	}
	second.Main().Write([]byte("two\n"))
	r, err := second.Main().Collect(within(t))
	if err != nil || string(r.Stdout) != "two\n" || r.Exit.Status.ExitStatus() != 5 {
		t.Fatalf("got %q, %#x, %v", r.Stdout, int(r.Exit.Status), err)
	}
	second.Close()
	third := b.host()
	if exit, err := third.Main().Wait(within(t)); err != nil || exit.Status.ExitStatus() != 5 {
		t.Fatalf("the exit is not said again: %#x, %v", int(exit.Status), err)
	}
	select {
	case <-b.server.Taken():
		t.Error("it was not taken yet")
	default:
	}
	third.Taken()
	select {
	case <-b.server.Taken():
	case <-within(t).Done():
		t.Error("it was taken, and is not known to be")
	}
}

func TestAMainProgramThatFailsIsToldToALaterHost(t *testing.T) {
	b := newBed(t)
	b.server.Fail(root.Fail(root.Unable, "volumes", "no such device"))
	var failed *streamstest.FailedError
	if err := b.host().Main().Started(within(t)); !errors.As(err, &failed) || failed.Field != "volumes" {
		t.Errorf("got %v", err)
	}
}

func TestAHelloInBetweenBringsANewHost(t *testing.T) {
	b, first := rooted(t)
	p := shell("exec sleep 1000")
	if err := b.server.Start(&p); err != nil {
		t.Fatal(err)
	}
	x, err := first.Exec(with(shell("cat >/dev/null; echo over; echo over >&2"), func(p *wire.Process) { p.Stdin = true }))
	if err != nil || x.Started(within(t)) != nil {
		t.Fatal(err)
	}
	h, a := pair(t)
	first.Close()
	b.ports <- a
	h.Write([]byte("junk that stood in the port\xf5strata-streams"))
	h.Write(port.Append(nil, port.Hello, 0, port.HelloPayload(1))) // of a host that went at once
	second := b.meet(h)
	defer func() {
		second.Main().Signal(unix.SIGKILL)
		second.Main().Wait(within(t))
	}()
	if err := second.Main().Started(within(t)); err != nil {
		t.Fatal(err)
	}
	// The first host's program ends, since its input has, and nobody hears of it.
	for end := time.Now().Add(patience); b.starter.alive.Load() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program of a host that has gone has its input still")
		}
	}
	if r, err := second.Run(within(t), shell("echo hi"), nil); err != nil || string(r.Stdout) != "hi\n" {
		t.Errorf("got %q, %v", r.Stdout, err)
	}
	if err := second.Err(); err != nil {
		t.Error(err)
	}
}

func TestAHostThatBreaksTheProtocolIsLeft(t *testing.T) {
	for sentence, b := range map[string][]byte{
		"no frame":             []byte("nonsense that is no frame at all"),
		"a frame of an agent":  port.Append(nil, port.Ready, 0, nil),
		"a channel used twice": port.Append(nil, port.Exec, 0, []byte("{}")),
		"input without a window": bytes.Repeat(port.Append(nil, port.Stdin, 0, make([]byte, port.MaxPayload)),
			port.InitialWindow/port.MaxPayload+1),
	} {
		bed := newBed(t)
		c := bed.host()
		_ = c.Raw(b)
		for end := time.Now().Add(patience); c.Err() == nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: it is not left", sentence)
			}
		}
		if err := bed.host().Err(); err != nil {
			t.Errorf("%s: the next one: %v", sentence, err)
		}
	}
}

func TestAnotherVersionGetsAnAnswerAndNothingElse(t *testing.T) {
	bed := newBed(t)
	h, a := pair(t)
	bed.ports <- a
	hello := port.Append(nil, port.Hello, 0, port.HelloPayload(7))
	other := bytes.Clone(hello)
	other[port.HeaderSize+len(port.Magic)] = 99
	h.Write(other)
	got := make([]byte, len(hello))
	if _, err := io.ReadFull(h, got); err != nil || !bytes.Equal(got, hello) {
		t.Fatalf("got %q, %v", got, err)
	}
	bed.meet(h)
}

func TestAnAgentsCommandIsExecutedByDescriptor(t *testing.T) {
	b, c := rooted(t)
	f, err := os.Open(require.Tool(t, "echo"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b.starter.birth = func(birth *program.Birth) { birth.Agent = int(f.Fd()) }
	r, err := c.Run(within(t), wire.Process{Args: []string{"strata-vmagent", "stat"}, Agent: true}, nil)
	if err != nil || string(r.Stdout) != "stat\n" {
		t.Errorf("got %q, %v", r.Stdout, err)
	}
}

func TestOutOfMemoryIsSaidOfWhoWasKilled(t *testing.T) {
	b, c := rooted(t)
	b.starter.oom = true
	for script, want := range map[string]bool{"kill -KILL $$": true, "exit 137": false, "kill -TERM $$": false} {
		if r, err := c.Run(within(t), shell(script), nil); err != nil || r.Exit.OutOfMemory != want {
			t.Errorf("%s: got %v, %v", script, r.Exit.OutOfMemory, err)
		}
	}
}

func TestATerminalOfAnInitIsAttached(t *testing.T) {
	b, c := rooted(t)
	term, err := program.OpenTerminal(&wire.Process{Rows: 10, Cols: 20}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan unix.WaitStatus, 1)
	slave, err := unix.Dup(term.Slave)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(slave)
	b.server.Attach(term, &child{pid: 1 << 30, ended: ended})
	unix.Write(slave, []byte("login: "))
	expect(t, c.Main().Stdout, "login: ")
	c.Main().Write([]byte("root\r"))
	expect(t, c.Main().Stdout, "root")
	buf := make([]byte, 16)
	if n, err := unix.Read(slave, buf); err != nil || string(buf[:n]) != "root\n" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	ended <- 0
	if _, err := c.Main().Wait(within(t)); err != nil {
		t.Error(err)
	}
}

func TestASignalEndsWhoIsIdle(t *testing.T) {
	b, c := rooted(t)
	b.server.Idle(nobody{make(chan unix.WaitStatus, 1)})
	if err := c.Main().Started(within(t)); err != nil {
		t.Fatal(err)
	}
	c.Main().Write([]byte("nobody reads this"))
	c.Main().Signal(unix.SIGHUP)
	c.Main().Signal(unix.SIGTERM)
	if exit, err := c.Main().Wait(within(t)); err != nil || exit.Status != 0 {
		t.Errorf("ended with %#x, %v", int(exit.Status), err)
	}
}

func BenchmarkExec(b *testing.B) {
	_, c := rooted(b)
	for b.Loop() {
		if _, err := c.Run(context.Background(), wire.Process{Args: []string{"/bin/true"}}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOutput(b *testing.B) {
	_, c := rooted(b)
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		x, err := c.Exec(shell("head -c 67108864 /dev/zero"))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, x.Stdout)
		if err != nil || n != size {
			b.Fatal(n, err)
		}
	}
}
