package keeper

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// The tests of this file have the agent's own end of the port behind it.

func script(text string) *wire.Process {
	return &wire.Process{Args: []string{"/bin/sh", "-c", text}, Env: []string{"PATH=/usr/bin:/bin"}, WorkDir: "/", NoNewPrivs: true}
}

// run runs a program beside the main one.
func (b *box) run(text string, stdin bool) (*client, error) {
	p := script(text)
	p.Stdin = stdin
	return b.exec(wire.Exec{Process: *p})
}

func TestTenMiBBothWaysThroughAPort(t *testing.T) {
	s := newMachine(t)
	s.Stdin = true
	c, conn := pipe(t)
	p := script("cat")
	p.Stdin = true
	b := inhabit(t, s, conn, p)
	conn.Close()
	data := bytes.Repeat([]byte{0, 1, 255, '\n', 7}, 2<<20)
	begun := time.Now()
	go func() {
		stream.Write(c.conn, stream.Stdin, data)
		stream.Write(c.conn, stream.CloseStdin, nil)
	}()
	if out, _, e := c.rest(); !bytes.Equal(out, data) || e.Status != 0 {
		t.Errorf("%d bytes came back of %d, %+v", len(out), len(data), e)
	}
	t.Logf("in %v", time.Since(begun))
	if e := b.end(); e.Status != 0 || e.Crash != "" {
		t.Errorf("%+v", e)
	}
}

func TestExecsThroughAPort(t *testing.T) {
	b := inhabit(t, newMachine(t), nil, nil)
	for text, want := range map[string]stream.Ended{
		"exit 0":                              {},
		"exit 255":                            {Status: 255},
		"kill -KILL $$":                       {Status: 137, Signal: 9},
		"sleep 1000 >/dev/null 2>&1 & exit 4": {Status: 4},
		"head -c 3000000 /dev/zero":           {},
	} {
		c, err := b.run(text, false)
		if err != nil {
			t.Fatal(err)
		}
		if out, _, e := c.rest(); e != want || strings.HasPrefix(text, "head") && len(out) != 3000000 {
			t.Errorf("%s: %+v with %d bytes", text, e, len(out))
		}
	}
	if _, err := b.exec(wire.Exec{Process: wire.Process{Args: []string{"/no/such"}, WorkDir: "/"}}); !fault.Is(err, fault.Missing) {
		t.Errorf("missing program: %v", err)
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			c, err := b.run(fmt.Sprintf("head -c 700000 /dev/zero; echo %d >&2; exit %d", i, i), false)
			if err != nil {
				t.Error(err)
				return
			}
			if out, errs, e := c.rest(); len(out) != 700000 || string(errs) != fmt.Sprintf("%d\n", i) || int(e.Status) != i {
				t.Errorf("%d: %d bytes, %q, %+v", i, len(out), errs, e)
			}
		})
	}
	all.Wait()
	eventually(t, "less than 1.5 MiB", func() bool { return anonymous(t, b.KeeperPID) < 1200 })
	t.Logf("%d KiB after 20 execs", anonymous(t, b.KeeperPID))
}

func TestAClientThatIsBehindHoldsUpItsOwnProgramOnly(t *testing.T) {
	b := inhabit(t, newMachine(t), nil, nil)
	slow, err := b.run("head -c 5000000 /dev/zero; touch "+b.dir+"/through; exit 3", false)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := b.run("head -c 5000000 /dev/zero", false)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, e := quick.rest(); len(out) != 5000000 || e.Status != 0 {
		t.Errorf("%d bytes, %+v", len(out), e)
	}
	if _, err := os.Lstat(b.dir + "/through"); err == nil {
		t.Error("a program did not wait for its client")
	}
	if n := anonymous(t, b.KeeperPID); n > 2048 {
		t.Errorf("the keeper holds %d KiB", n)
	}
	if out, _, e := slow.rest(); len(out) != 5000000 || e.Status != 3 {
		t.Errorf("%d bytes, %+v", len(out), e)
	}
	// A client that goes leaves its program to end.
	gone, err := b.run("cat; head -c 5000000 /dev/zero; touch "+b.dir+"/alone", true)
	if err != nil {
		t.Fatal(err)
	}
	gone.conn.Close()
	eventually(t, "the end of a program without client", func() bool { _, err := os.Lstat(b.dir + "/alone"); return err == nil })
}

func TestAProgramThatTakesNoInputHoldsUpItsOwnClientOnly(t *testing.T) {
	b := inhabit(t, newMachine(t), nil, nil)
	deaf, err := b.run("sleep 1000", true)
	if err != nil {
		t.Fatal(err)
	}
	deaf.conn.SetWriteDeadline(time.Now().Add(time.Second))
	var sent int64
	for deaf.conn != nil {
		n, err := deaf.conn.Write(append([]byte{byte(stream.Stdin), 0, 0, 4, 0}, make([]byte, 1024)...))
		if sent += int64(n); err != nil {
			break
		}
	}
	if sent > 4<<20 {
		t.Errorf("%d bytes were taken for a program that reads nothing", sent)
	}
	c, err := b.run("cat", true)
	if err != nil {
		t.Fatal(err)
	}
	c.send(stream.Stdin, []byte("through"))
	c.send(stream.CloseStdin, nil)
	if out, _, _ := c.rest(); string(out) != "through" {
		t.Errorf("%q", out)
	}
	deaf.conn.Close()
}

func TestATerminalThroughAPort(t *testing.T) {
	s := newMachine(t)
	s.TTY, s.Stdin = true, true
	c, conn := pipe(t)
	p := script("stty size; read x; stty size; echo read $x; trap 'exit 7' INT; echo set; while :; do sleep 0.05; done")
	p.TTY, p.Stdin = true, true
	inhabit(t, s, conn, p)
	c.until("0 0\r\n")
	c.send(stream.Resize, stream.ResizePayload(33, 101))
	c.send(stream.Stdin, []byte("hello\n"))
	if out := c.until("set\r\n"); !strings.Contains(out, "33 101\r\nread hello\r\n") {
		t.Errorf("%q", out)
	}
	c.send(stream.Stdin, []byte{3}) // ^C
	if _, _, e := c.rest(); e.Status != 7 {
		t.Errorf("%+v", e)
	}
}

func TestAnotherDaemonGoesOnWithAMachine(t *testing.T) {
	s := newMachine(t)
	s.Stdin = true
	p := script("trap 'echo got; exit 9' USR1; while read x; do echo x $x; done")
	p.Stdin = true
	inhabit(t, s, nil, p)
	k, err := Open(within10(t), s.Socket, s.StatusFile)
	if err != nil {
		t.Fatal(err)
	}
	c, conn := pipe(t)
	if err := k.Attach(within10(t), conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	c.send(stream.Stdin, []byte("one\n"))
	c.until("x one\n")
	if err := k.Signal(within10(t), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	c.send(stream.Stdin, []byte("\n")) // a shell that reads acts on signals then
	if out, _, e := c.rest(); !bytes.Contains(out, []byte("got")) || e.Status != 9 {
		t.Errorf("%q %+v", out, e)
	}
	if e, err := k.Watch(within10(t), func(wire.Status) {}); err == nil && e.Status != 9 {
		t.Errorf("%+v", e)
	}
}

func TestTheEndOfAMachineIsThatOfItsPrograms(t *testing.T) {
	b := inhabit(t, newMachine(t), nil, nil)
	c, err := b.run("echo up; sleep 5", false)
	if err != nil {
		t.Fatal(err)
	}
	c.until("up\n")
	b.off(syscall.SIGKILL)
	if _, _, e := c.rest(); e != (stream.Ended{Status: 137, Signal: 9}) {
		t.Errorf("%+v", e)
	}
	if e := b.end(); !strings.HasPrefix(e.Crash, "QEMU was killed by signal 9") {
		t.Errorf("%+v", e)
	}
	if _, err := io.ReadAll(c.conn); err != nil {
		t.Errorf("the client's stream: %v", err)
	}
}

// beside is a program beside QEMU.
func beside(text string, files ...*os.File) Beside {
	return Beside{Name: "server", Path: "/bin/sh", Args: []string{"sh", "-c", text}, Files: files}
}

func TestWhatIsBesideAMachineEndsWithIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := power(t, newMachine(t), nil, beside("echo up >&3; exec sleep 1000 2>/dev/null", w))
	w.Close()
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, 3)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "up\n" {
		t.Fatalf("%q %v", got, err)
	}
	b.off(syscall.SIGUSR1)
	b.end()
	if _, err := io.ReadAll(r); err != nil { // nobody has the other side any more
		t.Errorf("it is still there: %v", err)
	}
}

func TestAMachineEndsWithWhatIsBesideIt(t *testing.T) {
	const words = "server beside QEMU ended with exit status 3; it wrote: QEMU's output\nno such folder"
	told := t.TempDir() + "/told"
	early := beside("until [ -e " + told + " ]; do sleep 0.05; done; echo no such folder >&2; exit 3")
	tell := func(b *box) {
		b.spoke()
		if err := os.WriteFile(told, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := plug(t, newMachine(t), nil, early)
	if err != nil {
		t.Fatal(err)
	}
	started := b.goes()
	tell(b)
	if err := <-started; err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("before its start: %v", err)
	}
	os.Remove(told)
	b = power(t, newMachine(t), nil, early)
	tell(b)
	if e := b.end(); e.Crash != words {
		t.Errorf("while it runs: %+v", e)
	}
	_, err = plug(t, newMachine(t), nil, beside("sleep 1000"), Beside{Path: "/no/such"})
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("one that is missing: %v", err)
	}
}

func TestIdleMachinesKeeperIsSmall(t *testing.T) {
	b := power(t, newMachine(t), nil)
	eventually(t, "at most 1.5 MiB", func() bool { return anonymous(t, b.KeeperPID) <= 1200 })
	time.Sleep(2500 * time.Millisecond)
	z := launch(t, newSpec(t, "sh", "sleep 100"), nil)
	time.Sleep(2500 * time.Millisecond)
	t.Logf("%d KiB of its own; a zone's %d", anonymous(t, b.KeeperPID), anonymous(t, z.KeeperPID))
}
