package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

func TestAMachinesMainProgramIsChannelZero(t *testing.T) {
	s := newMachine(t, "warning: of no interest")
	s.Stdin = true
	c, conn := pipe(t)
	b := power(t, s, conn)
	conn.Close()
	c.send(stream.Stdin, []byte("in"))
	b.hears(port.Stdin, 0, "in")
	c.send(stream.Resize, stream.ResizePayload(3, 258))
	b.hears(port.Resize, 0, "\x00\x03\x01\x02")
	c.send(stream.Signal, []byte{15})
	b.hears(port.Signal, 0, "\x0f")
	if err := b.Signal(within10(t), syscall.Signal(38)); err != nil {
		t.Error(err)
	}
	b.hears(port.Signal, 0, "\x26")
	c.send(stream.CloseStdin, nil)
	b.hears(port.CloseStdin, 0, "")
	b.say(port.Stdout, 0, []byte("out"))
	b.say(port.Stderr, 0, []byte("err"))
	b.say(port.Exit, 0, []byte{0, 0, 7, 0, 0})
	b.hears(port.Taken, 0, "")
	b.off(unix.SIGUSR1)
	if out, errs, e := c.rest(); string(out) != "out" || string(errs) != "err" || e != (stream.Ended{Status: 7}) {
		t.Errorf("%q %q %+v", out, errs, e)
	}
	if e := b.end(); e.Status != 7 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
	wait(t, b.gone)
	if out, errs := logged(t, s.Log.Dir); out != "out" || errs != "err" {
		t.Errorf("the log holds %q and %q", out, errs)
	}
}

func TestMemoryThatRanOutInsideIsTold(t *testing.T) {
	b := power(t, newMachine(t), nil)
	b.say(port.Exit, 0, []byte{0, 0, 0, 9, 1})
	b.hears(port.Taken, 0, "")
	b.off(unix.SIGKILL)
	if e := b.end(); e.Status != 137 || e.Signal != 9 || !e.OOM || e.Crash != "" {
		t.Errorf("%+v", e)
	}
}

// A system that has written everything out is ended: to switch itself off takes longer.
func TestAMachineThatIsOverIsNotWaitedFor(t *testing.T) {
	b := power(t, newMachine(t), nil)
	b.say(port.Over, 0, nil) // too early: it means nothing
	b.say(port.Exit, 0, []byte{0, 0, 3, 0, 0})
	b.hears(port.Taken, 0, "")
	b.say(port.Over, 0, nil)
	if e := b.end(); e.Status != 3 || e.Signal != 0 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
	wait(t, b.gone)
}

// What nobody wants need not be written out: the end is told before QEMU's.
func TestAMachineWhoseProgramIsOverCanBeDropped(t *testing.T) {
	s := newMachine(t)
	s.Stdin = true
	c, conn := pipe(t)
	b := power(t, s, conn)
	conn.Close()
	if err := b.Drop(within10(t)); !fault.Is(err, fault.Conflict) {
		t.Errorf("while its program runs: %v", err)
	}
	told := make(chan struct{})
	ended := make(chan wire.ExitRecord, 1)
	go func() {
		e, err := b.Watch(within10(t), at(told, func(st wire.Status) bool { return st.Told }))
		if err != nil {
			t.Error(err)
		}
		ended <- e
	}()
	b.say(port.Stdout, 0, []byte("out"))
	b.say(port.Exit, 0, []byte{0, 0, 7, 0, 0})
	b.hears(port.Taken, 0, "")
	<-told
	if err := b.Drop(within10(t)); err != nil {
		t.Error(err)
	}
	if e := <-ended; e.Status != 7 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
	if out, _, e := c.rest(); string(out) != "out" || e != (stream.Ended{Status: 7}) {
		t.Errorf("%q %+v", out, e)
	}
	wait(t, b.gone)
	if err := unix.Kill(b.st.PID, 0); err != unix.ESRCH {
		t.Errorf("QEMU: %v", err)
	}
	if e, err := ReadExit(s.ExitFile); err != nil || e == nil || e.Status != 7 {
		t.Errorf("written: %+v, %v", e, err)
	}
}

func TestAMachineThatDoesNotStart(t *testing.T) {
	for what, row := range map[string]struct {
		do   func(*box)
		kind fault.Kind
		word string
	}{
		"the program is missing": {func(b *box) {
			b.answer()
			f, _ := json.Marshal(wire.Failure{Kind: "missing", Field: "command", Message: "no such program\x1b[31m"})
			b.say(port.Failed, 0, f)
		}, fault.Missing, "no such program?[31m"},
		"QEMU fails":           {func(b *box) { b.off(unix.SIGUSR2) }, fault.Unable, "QEMU ended with exit status 1; it wrote: QEMU's output\nqemu: the reason"},
		"QEMU is killed":       {func(b *box) { b.off(unix.SIGKILL) }, fault.Unable, "QEMU was killed by signal 9"},
		"the kernel panics":    {func(b *box) { b.console.Write([]byte("Oops\n")); b.event(`{"event": "GUEST_PANICKED"}`) }, fault.Unable, "its kernel panicked; the console's last lines:\nOops"},
		"the kernel resets it": {func(b *box) { b.event(`{"event":"SHUTDOWN","data":{"reason":"guest-reset"}}`); b.off(unix.SIGUSR1) }, fault.Unable, "reset the machine"},
		"the agent lies":       {func(b *box) { b.answer(); b.say(port.Exit, 0, []byte{0, 0, 0, 0, 0}) }, fault.Internal, "broke the protocol"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newMachine(t, "qemu: the reason")
			b, err := plug(t, s, nil)
			if err != nil {
				t.Fatal(err)
			}
			started := b.goes()
			row.do(b)
			if err := <-started; !fault.Is(err, row.kind) || !strings.Contains(err.Error(), row.word) {
				t.Errorf("err = %v (%v)", err, fault.KindOf(err))
			}
			for _, f := range []string{s.Socket, s.ExitFile, s.StatusFile} {
				if _, err := os.Lstat(f); err == nil {
					t.Errorf("%s is left", f)
				}
			}
		})
	}
}

// A busy host may hear a short program's end before the daemon's go.
func TestAProgramThatIsOverBeforeTheGoHasRun(t *testing.T) {
	for what, late := range map[string]bool{"before the machine's end": false, "after it": true} {
		t.Run(what, func(t *testing.T) {
			b, err := plug(t, newMachine(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			b.answer()
			b.say(port.Started, 0, nil)
			b.say(port.Stdout, 0, []byte("out"))
			b.say(port.Exit, 0, []byte{0, 0, 3, 0, 0})
			b.hears(port.Taken, 0, "")
			if late {
				b.off(unix.SIGUSR1)
				wait(t, b.gone)
			}
			started := b.goes()
			if !late {
				time.Sleep(50 * time.Millisecond) // until it is heard
				b.off(unix.SIGUSR1)
			}
			if err := <-started; err != nil {
				t.Fatal(err)
			}
			if e := b.end(); e.Status != 3 || e.Crash != "" {
				t.Errorf("%+v", e)
			}
			if out, _ := logged(t, b.spec.Log.Dir); out != "out" {
				t.Errorf("the log holds %q", out)
			}
		})
	}
}

func TestADaemonThatGoesBeforeAMachineHasStartedEndsIt(t *testing.T) {
	b, err := plug(t, newMachine(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.st.say(wire.Go); err != nil {
		t.Fatal(err)
	}
	b.answer()
	b.st.conn.Close()
	wait(t, b.gone)
	if err := unix.Kill(b.st.PID, 0); err != unix.ESRCH {
		t.Errorf("QEMU: %v", err)
	}
}

func TestAnInitIsReadyWhenItSaysSo(t *testing.T) {
	s := newMachine(t)
	s.System, s.TTY, s.Stdin = true, true, true
	b := power(t, s, nil)
	k, err := Open(within10(t), s.Socket, s.StatusFile)
	if err != nil || k.PID != b.st.PID {
		t.Fatalf("%+v %v", k, err)
	}
	ready := make(chan struct{})
	ended := make(chan wire.ExitRecord, 1)
	go func() {
		e, err := k.Watch(context.Background(), at(ready, isReady))
		if err != nil {
			t.Error(err)
		}
		ended <- e
	}()
	if st, err := k.Status(within10(t)); err != nil || st.Ready {
		t.Errorf("%+v %v", st, err)
	}
	b.say(port.Ready, 0, nil)
	<-ready
	b.event(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
	b.off(unix.SIGUSR1)
	if e := <-ended; e.Status != 0 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
}

func TestCrashesAreReported(t *testing.T) {
	panicked := strings.Repeat("line\r\n", 100) + "Kernel panic - not syncing: \x1b[31mVFS\n---[ end ]---\n"
	for what, row := range map[string]struct {
		do   func(*box)
		want string
	}{
		"QEMU is killed": {func(b *box) { b.off(unix.SIGKILL) }, "QEMU was killed by signal 9; it wrote: QEMU's output\nlast words"},
		"the kernel panics": {func(b *box) {
			b.console.Write([]byte(panicked))
			b.event(`{"event": "GUEST_PANICKED", "data": {"action": "poweroff"}}`)
		}, "its kernel panicked; the console's last lines:\n" + strings.Repeat("line\n", 18) + "Kernel panic - not syncing: ?[31mVFS\n---[ end ]---"},
		"it switches itself off": {func(b *box) {
			b.event(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`)
			b.off(unix.SIGUSR1)
		}, "the system inside ended before its program; the console is empty"},
		"the agent sends too much": {func(b *box) {
			b.streams.Write(bytes.Repeat(port.Append(nil, port.Window, 0, []byte{0, 1, 0, 0}), 10))
		}, "the agent inside broke the protocol: it takes more than it was sent"},
		"the agent floods": {func(b *box) {
			b.streams.Write(bytes.Repeat(port.Append(nil, port.Started, 0, nil), 20_000))
		}, "the agent inside broke the protocol: it floods the port with what means nothing"},
	} {
		t.Run(what, func(t *testing.T) {
			b := power(t, newMachine(t, "last words"), nil)
			begun := time.Now()
			go row.do(b)
			if e := b.end(); e.Status != 137 || e.Signal != 9 || e.Crash != row.want {
				t.Errorf("%+v", e)
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if e, err := ReadExit(b.spec.ExitFile); err != nil || e == nil || e.Crash != row.want {
				t.Errorf("%+v %v", e, err)
			}
		})
	}
}

func TestConsole(t *testing.T) {
	b := power(t, newMachine(t), nil)
	b.console.Write([]byte("early\n"))
	eventually(t, "the log", func() bool { out, _ := logged(t, b.log); return out == "early\n" })
	attach := func() *client {
		c, conn := pipe(t)
		if err := b.Console(within10(t), conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		return c
	}
	one, two, stuck := attach(), attach(), attach()
	one.send(stream.Stdin, []byte("root\n"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(b.console, got); err != nil || string(got) != "root\n" {
		t.Errorf("%q %v", got, err)
	}
	b.console.Write([]byte("Password: "))
	one.until("Password: ")
	two.until("Password: ")
	two.conn.Close()
	// Who takes nothing is dropped, and holds up neither machine nor others.
	for i := range 48 { // one is seen to take each part, on however busy a host
		mark := fmt.Sprintf("#%d#", i)
		b.console.Write(append(bytes.Repeat([]byte("x"), 64<<10), mark...))
		one.until(mark)
	}
	b.say(port.Exit, 0, []byte{0, 0, 0, 0, 0})
	b.hears(port.Taken, 0, "")
	b.off(unix.SIGUSR1)
	one.rest()
	for {
		if _, _, err := stuck.r.Next(); err != nil {
			break
		}
	}
	if e := b.end(); e.Status != 0 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
	wait(t, b.gone)
	var size int64
	list, _ := os.ReadDir(b.log)
	for _, f := range list {
		if i, err := f.Info(); err == nil {
			size += i.Size()
		}
	}
	if size > 2<<20+4096 {
		t.Errorf("the console's log takes %d bytes", size)
	}
	z := launch(t, newSpec(t, "sh", "sleep 100"), nil)
	_, conn := pipe(t)
	if err := z.Console(within10(t), conn); !fault.Is(err, fault.Unable) {
		t.Errorf("a zone's console: %v", err)
	}
}

func TestAMachineThatIsHeldStillCostsNoMemory(t *testing.T) {
	b := power(t, newMachine(t), nil)
	// Nobody reads the port.
	c, conn := pipe(t)
	if err := b.Attach(within10(t), conn); err != nil {
		t.Fatal(err)
	}
	for range 200_000 {
		c.send(stream.Resize, stream.ResizePayload(1, 1))
	}
	eventually(t, "the refusal of a signal", func() bool { return fault.Is(b.Signal(within10(t), syscall.SIGTERM), fault.Busy) })
	if n := anonymous(t, b.KeeperPID); n > 2048 {
		t.Errorf("the keeper holds %d KiB", n)
	}
	b.off(unix.SIGKILL)
	b.end()
}
