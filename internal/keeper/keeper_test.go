package keeper

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

func TestStatusOfTheProgramIsTheRuns(t *testing.T) {
	for _, want := range []int{0, 1, 42, 127, 255} {
		c, conn := pipe(t)
		r := launch(t, newSpec(t, "sh", "echo out; echo err >&2; exit "+strconv.Itoa(want)), conn)
		out, errs, e := c.rest()
		if string(out) != "out\n" || string(errs) != "err\n" || int(e.Status) != want || e.Signal != 0 {
			t.Errorf("exit %d: %q, %q, %+v", want, out, errs, e)
		}
		if got := r.end(); got.Status != want || got.At == 0 {
			t.Errorf("exit %d: record %+v", want, got)
		}
		wait(t, r.gone)
		if rec, err := ReadExit(r.spec.ExitFile); err != nil || rec == nil || rec.Status != want {
			t.Errorf("exit %d: ReadExit = %+v, %v", want, rec, err)
		}
		if _, err := os.Lstat(r.spec.Socket); err == nil {
			t.Error("the socket is still there")
		}
	}
}

// TestAPayloadHasTheUsualSlack keeps the keeper's own from what it starts, which may be QEMU.
func TestAPayloadHasTheUsualSlack(t *testing.T) {
	for asked, want := range map[int64]string{0: "50000\n", 7_000_000: "7000000\n"} {
		c, conn := pipe(t)
		s := newSpec(t, "sh", "exec cat /proc/self/timerslack_ns")
		s.Payload.Slack = asked
		launch(t, s, conn)
		if out, errs, _ := c.rest(); string(out) != want {
			t.Errorf("a payload that asks for %d has %s, want %s (%s)", asked, out, want, errs)
		}
	}
}

func TestDeathBySignalIsTold(t *testing.T) {
	c, conn := pipe(t)
	launch(t, newSpec(t, "sh", "kill -SEGV $$"), conn)
	if _, _, e := c.rest(); e != (stream.Ended{Status: 139, Signal: 11}) {
		t.Errorf("%+v", e)
	}
	// Without the payload's word its own end counts.
	r := launch(t, newSpec(t, "sh", "sleep 100"), nil)
	if err := r.Signal(within10(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := r.end(); e.Status != 137 || e.Signal != 9 || e.OOM {
		t.Errorf("%+v", e)
	}
}

func TestTenMiBBothWaysAreUnchanged(t *testing.T) {
	s := newSpec(t, "sh", "cat")
	s.Stdin = true
	c, conn := pipe(t)
	r := launch(t, s, conn)
	conn.Close()
	data := make([]byte, 10<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	go func() {
		stream.Write(c.conn, stream.Stdin, data)
		stream.Write(c.conn, stream.CloseStdin, nil)
	}()
	out, _, e := c.rest()
	if !bytes.Equal(out, data) || e.Status != 0 {
		t.Errorf("%d bytes came back, status %d", len(out), e.Status)
	}
	r.end()
}

func TestStartThatFails(t *testing.T) {
	for what, row := range map[string]struct {
		mode string
		kind fault.Kind
		word string
	}{
		"the payload says why":             {"fail", fault.Missing, "no such program"},
		"the payload dies before it runs":  {"die early", fault.Internal, "exit status 42; it wrote: the?[2J reason"},
		"the payload's program is missing": {"nothing", fault.Internal, "no such file"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSpec(t, row.mode)
			c, conn := pipe(t)
			var st *Starting
			var err error
			if row.mode == "nothing" {
				s.Payload.Path = "/nothing"
				_, err = Start(within10(t), Options{Binary: binary, Spec: s, Attach: conn})
			} else if st, err = begin(t, s, conn); err == nil {
				_, err = st.Go(within10(t))
			}
			if !fault.Is(err, row.kind) || !strings.Contains(err.Error(), row.word) {
				t.Errorf("err = %v (%v)", err, fault.KindOf(err))
			}
			conn.Close()
			if _, _, err := c.r.Next(); err == nil {
				t.Error("the client got a frame")
			}
			for _, f := range []string{s.Socket, s.ExitFile, s.StatusFile} {
				if _, err := os.Lstat(f); err == nil {
					t.Errorf("%s is left", f)
				}
			}
		})
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	s := newSpec(t, "sh", "sleep 100")
	st, err := begin(t, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Abort(within10(t)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(st.PID, 0); err != unix.ESRCH {
		t.Errorf("payload: %v", err)
	}
	if _, err := os.Lstat(s.Socket); err == nil {
		t.Error("the socket is left")
	}
	// A daemon that dies before go says nothing at all.
	if st, err = begin(t, newSpec(t, "sh", "sleep 100"), nil); err != nil {
		t.Fatal(err)
	}
	st.conn.Close()
	wait(t, st.gone)
}

func TestAKeeperThatIsKilledAtItsStartIsToldAsLost(t *testing.T) {
	st, err := begin(t, newSpec(t, "sh", "sleep 100"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(st.PID, unix.SIGKILL) })
	unix.Kill(st.KeeperPID, unix.SIGKILL)
	wait(t, st.gone)
	if _, err := st.Go(within10(t)); !errors.Is(err, ErrLost) || !strings.HasPrefix(err.Error(), "the keeper was lost") {
		t.Errorf("%v", err)
	}
}

func TestAbortAfterGoDoesNothing(t *testing.T) {
	st, err := begin(t, newSpec(t, "sh", "sleep 100"), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := st.Go(within10(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(st.PID, unix.SIGKILL); wait(t, st.gone) })
	began := time.Now()
	if err := st.Abort(within10(t)); err != nil || time.Since(began) > abortWithin/2 {
		t.Errorf("%v, after %s", err, time.Since(began))
	}
	if _, err := k.Status(within10(t)); err != nil {
		t.Errorf("the keeper is gone: %v", err)
	}
}

func TestAttachAndDetach(t *testing.T) {
	s := newSpec(t, "sh", "while read x; do echo got $x; done; echo end")
	s.Stdin = true
	r := launch(t, s, nil)
	a, conn := pipe(t)
	if err := r.Attach(within10(t), conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	a.send(stream.Stdin, []byte("one\n"))
	a.until("got one\n")
	b, conn := pipe(t)
	if err := r.Attach(within10(t), conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	b.send(stream.Stdin, []byte("two\n"))
	a.until("got two\n")
	b.until("got two\n")
	a.conn.Close()
	b.send(stream.Stdin, []byte("three\n"))
	b.until("got three\n")
	b.send(stream.CloseStdin, nil)
	if out, _, e := b.rest(); string(out) != "end\n" || e.Status != 0 {
		t.Errorf("%q %+v", out, e)
	}
	r.end()
}

func TestTerminal(t *testing.T) {
	s := newSpec(t, "tty", "stty size; read x; stty size; echo read $x; exit 7")
	s.Stdin = true
	c, conn := pipe(t)
	launch(t, s, conn)
	c.until("0 0\r\n")
	c.send(stream.Resize, stream.ResizePayload(33, 101))
	c.send(stream.Stdin, []byte("hello\n"))
	if out := c.until("read hello\r\n"); !strings.Contains(out, "33 101\r\n") {
		t.Errorf("%q", out)
	}
	if _, _, e := c.rest(); e.Status != 7 {
		t.Errorf("%+v", e)
	}
}

func TestAProgramIsStoppedAndItsEndIsSeen(t *testing.T) {
	c, conn := pipe(t)
	r := launch(t, newSpec(t, "sh", "echo $$; exec sleep 100"), conn)
	pid, err := strconv.Atoi(strings.TrimSpace(c.until("\n")))
	if err != nil {
		t.Fatal(err)
	}
	c.send(stream.Signal, []byte{byte(syscall.SIGSTOP)})
	eventually(t, "the program is stopped", func() bool { return state(pid) == "T" })
	if got := state(r.PID); got == "T" {
		t.Error("so is process 1")
	}
	syscall.Kill(pid, syscall.SIGKILL)
	if e := r.end(); e.Signal != 9 {
		t.Errorf("%+v", e)
	}
}

// state is a process's, as proc(5) has it: T where it is stopped.
func state(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:min(1, len(rest))]
}

func TestProcessOneIsNotStopped(t *testing.T) {
	s := newSpec(t, "sh", "sleep 100")
	s.System = true
	r := launch(t, s, nil)
	if err := r.Signal(within10(t), syscall.SIGSTOP); !fault.Is(err, fault.Unable) || fault.All(err)[0].Field != "signal" {
		t.Errorf("%v", err)
	}
}

func TestSignalFrameReachesTheProgram(t *testing.T) {
	c, conn := pipe(t)
	launch(t, newSpec(t, "sh", "trap 'echo usr1; exit 5' USR1; echo set; while :; do sleep 0.02; done"), conn)
	c.until("set\n")
	c.send(stream.Signal, []byte{byte(syscall.SIGUSR1)})
	if out, _, e := c.rest(); string(out) != "usr1\n" || e.Status != 5 {
		t.Errorf("%q %+v", out, e)
	}
}

func TestSlowClientSlowsTheProgramAndLosesNothing(t *testing.T) {
	c, conn := pipe(t)
	r := launch(t, newSpec(t, "sh", "i=0; while [ $i -lt 400 ]; do head -c 10000 /dev/zero; i=$((i+1)); done; echo done >&2"), conn)
	conn.Close()
	time.Sleep(300 * time.Millisecond)
	if st, err := r.Status(within10(t)); err != nil || st.Ended != nil {
		t.Fatalf("the program did not wait for its client: %+v %v", st, err)
	}
	if n := anonymous(t, r.KeeperPID); n > 1536 {
		t.Errorf("the keeper holds %d KiB for a client that reads nothing", n)
	}
	out, errs, _ := c.rest()
	if len(out) != 4_000_000 || string(errs) != "done\n" {
		t.Errorf("%d bytes, %q", len(out), errs)
	}
}

func TestClientThatIsGoneHoldsNobodyUp(t *testing.T) {
	c, conn := pipe(t)
	r := launch(t, newSpec(t, "sh", "head -c 4000000 /dev/zero"), conn)
	conn.Close()
	c.conn.Close()
	if e := r.end(); e.Status != 0 {
		t.Errorf("%+v", e)
	}
}

func TestDaemonDiesAndAnotherAdopts(t *testing.T) {
	s := newSpec(t, "notify")
	r := launch(t, s, nil)
	k, err := Open(within10(t), s.Socket, s.StatusFile)
	if err != nil || k.PID != r.PID || k.KeeperPID != r.KeeperPID {
		t.Fatalf("Open = %+v, %v", k, err)
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
	select {
	case <-ready:
		t.Fatal("it is ready before it said so")
	case <-time.After(50 * time.Millisecond):
	}
	k.Signal(within10(t), syscall.SIGUSR1)
	<-ready
	if st, err := k.Status(within10(t)); err != nil || !st.Ready {
		t.Errorf("%+v %v", st, err)
	}
	k.Signal(within10(t), syscall.SIGUSR1)
	if e := <-ended; e.Status != 0 {
		t.Errorf("%+v", e)
	}
	wait(t, r.gone)
	if _, err := Open(within10(t), s.Socket, s.StatusFile); !fault.Is(err, fault.Missing) {
		t.Errorf("Open after the end: %v", err)
	}
}

// TestAKeeperWithoutAStatusFileIsFound: the disk was full when its program began.
func TestAKeeperWithoutAStatusFileIsFound(t *testing.T) {
	s := newSpec(t, "notify")
	s.StatusFile = filepath.Join(t.TempDir(), "no", "status.json") // where nothing can be written
	st, err := begin(t, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(st.PID, unix.SIGKILL); wait(t, st.gone) })
	if _, err := Open(within10(t), s.Socket, s.StatusFile); !fault.Is(err, fault.Missing) {
		t.Errorf("before its program has begun: %v", err)
	}
	r, err := st.Go(within10(t))
	if err != nil {
		t.Fatal(err)
	}
	if k, err := Open(within10(t), s.Socket, s.StatusFile); err != nil || k.PID != r.PID || k.KeeperPID != r.KeeperPID {
		t.Fatalf("Open = %+v, %v; want %+v", k, err, r)
	}
	unix.Kill(st.PID, unix.SIGKILL)
	wait(t, st.gone)
	if _, err := Open(within10(t), s.Socket, s.StatusFile); !fault.Is(err, fault.Missing) {
		t.Errorf("after the end: %v", err)
	}
}

func TestKeeperThatIsKilledIsLost(t *testing.T) {
	r := launch(t, newSpec(t, "sh", "sleep 100"), nil)
	lost := make(chan error, 1)
	up := make(chan struct{})
	go func() {
		_, err := r.Watch(context.Background(), at(up, isReady))
		lost <- err
	}()
	<-up
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGINT} {
		unix.Kill(r.KeeperPID, sig)
	}
	if _, err := r.Status(within10(t)); err != nil {
		t.Errorf("a signal meant for another ended the keeper: %v", err)
	}
	unix.Kill(r.KeeperPID, unix.SIGKILL)
	if err := <-lost; !errors.Is(err, ErrLost) {
		t.Errorf("err = %v", err)
	}
	if _, err := Open(within10(t), r.spec.Socket, r.spec.StatusFile); !fault.Is(err, fault.Missing) {
		t.Errorf("Open: %v", err)
	}
}

func TestHostilePayload(t *testing.T) {
	s := newSpec(t, "hostile")
	s.TTY = true
	st, err := begin(t, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := st.Go(ctx); !fault.Is(err, fault.Busy) {
		t.Errorf("err = %v", err)
	}
	wait(t, st.gone)
	r := launch(t, newSpec(t, "chatter"), nil)
	if e := r.end(); e.Status != 3 {
		t.Errorf("%+v", e)
	}
}

func TestGrandchildThatHoldsTheOutputDoesNotHoldUpTheEnd(t *testing.T) {
	c, conn := pipe(t)
	launch(t, newSpec(t, "sh", "sleep 1000 & echo $!; exit 3"), conn)
	out, _, e := c.rest()
	if pid, err := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || pid < 2 || e.Status != 3 {
		t.Errorf("%q %+v", out, e)
	} else {
		unix.Kill(pid, unix.SIGKILL)
	}
}

// What nobody reads is kept at the speed of a log; who is attached gets it as fast as it comes.
func TestAFloodForTheLogIsHeldUp(t *testing.T) {
	const bytes, least = 24 << 20, 900 * time.Millisecond // of it 8 MiB at once, the rest at 16 MiB a second
	began := time.Now()
	r := launch(t, newSpec(t, "sh", "head -c 25165824 /dev/zero; echo done"), nil)
	if e := r.end(); e.Status != 0 {
		t.Errorf("%+v", e)
	}
	if took := time.Since(began); took < least {
		t.Errorf("%d bytes were read in %s", bytes, took)
	}
	if out, _ := logged(t, r.spec.Log.Dir); !strings.HasSuffix(out, "\x00done\n") {
		t.Error("the log does not hold the end")
	}
	c, conn := pipe(t)
	launch(t, newSpec(t, "sh", "head -c 25165824 /dev/zero"), conn)
	conn.Close()
	if out, _, e := c.rest(); len(out) != bytes || e.Status != 0 {
		t.Errorf("attached: %d bytes, %+v", len(out), e)
	}
}
