package keeper

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
)

func shell(script string) wire.Exec {
	return wire.Exec{Process: wire.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", "A=b"}}}
}

// exec starts a program and returns its stream.
func (r *live) exec(e wire.Exec) (*client, error) {
	c, conn := pipe(r.t)
	err := r.Exec(within10(r.t), e, conn)
	conn.Close()
	return c, err
}

func TestExecRunsInsideAsRootOfTheNamespaces(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	c, err := r.exec(shell(`for n in user pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; done
id -u; id -G; echo $A; kill -0 1; ls /proc/self/fd | tr '\n' ' '; trap '' TERM; kill -TERM $$; echo err >&2; exit 9`))
	if err != nil {
		t.Fatal(err)
	}
	out, errs, e := c.rest()
	lines := strings.Split(string(out), "\n")
	if len(lines) < 11 || string(errs) != "err\n" || e.Status != 9 {
		t.Fatalf("%q %q %+v", out, errs, e)
	}
	for i, name := range []string{"user", "pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", r.PID, name))
		if err != nil || lines[i] != want {
			t.Errorf("namespace %s: %q, the payload's is %q", name, lines[i], want)
		}
	}
	if got := lines[7:10]; got[0] != "0" || got[1] != "0" || got[2] != "b" {
		t.Errorf("ids and environment: %q", got)
	}
	if got := strings.TrimSpace(lines[10]); got != "0 1 2 3" && got != "0 1 2 3 4" {
		t.Errorf("descriptors of the program: %s", got)
	}
}

func TestExecsEnd(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	before := descriptors(t, r.KeeperPID)
	for script, want := range map[string]stream.Ended{
		"exit 0":                   {},
		"exit 255":                 {Status: 255},
		"kill -KILL $$":            {Status: 137, Signal: 9},
		"kill -ABRT $$":            {Status: 134, Signal: 6},
		"sleep 1000 & exit 4":      {Status: 4},
		"head -c 300000 /dev/zero": {},
	} {
		c, err := r.exec(shell(script))
		if err != nil {
			t.Fatal(err)
		}
		out, _, e := c.rest()
		if e != want || strings.HasPrefix(script, "head") && len(out) != 300000 {
			t.Errorf("%s: %+v with %d bytes", script, e, len(out))
		}
	}
	if _, err := r.exec(wire.Exec{Process: wire.Process{Args: []string{"/no/such"}}}); !fault.Is(err, fault.Missing) {
		t.Errorf("missing program: %v", err)
	}
	if _, err := r.exec(wire.Exec{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("empty command: %v", err)
	}
	e := shell("exit 0")
	e.Join = []string{r.dir + "/no-group"}
	if _, err := r.exec(e); err == nil {
		t.Error("a group that is not there was joined")
	}
	eventually(t, "the descriptors of before", func() bool { return descriptors(t, r.KeeperPID) <= before })
}

func TestExecJoinsGroups(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	e := shell("exit 0")
	e.Join = []string{r.dir + "/tasks"}
	if err := os.WriteFile(e.Join[0], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	c.rest()
	if b, _ := os.ReadFile(e.Join[0]); string(b) != "0" {
		t.Errorf("the group's file holds %q", b)
	}
}

func TestExecInputIsUnchangedAndEnds(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	e := shell("cat")
	e.Process.Stdin = true
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{0, 1, 255, '\n', 4}, 200_000)
	go func() {
		stream.Write(c.conn, stream.Stdin, data)
		stream.Write(c.conn, stream.CloseStdin, nil)
	}()
	if out, _, _ := c.rest(); !bytes.Equal(out, data) {
		t.Errorf("%d bytes came back of %d", len(out), len(data))
	}
}

func TestExecWithTerminal(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	e := shell("tty >/dev/null && echo terminal; read x; stty size; sleep 100")
	e.Process.TTY, e.Process.Stdin = true, true
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	c.until("terminal\r\n")
	c.send(stream.Resize, stream.ResizePayload(10, 20))
	c.send(stream.Stdin, []byte("x\n"))
	c.until("10 20\r\n")
	// Again and again: a shell that is about to start a program misses one.
	over := make(chan struct{})
	go func() {
		for stream.Write(c.conn, stream.Stdin, []byte{3}) == nil { // ^C
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	defer close(over)
	if _, _, e := c.rest(); e.Signal != uint8(syscall.SIGINT) {
		t.Errorf("%+v", e)
	}
}

func TestTwentyExecsInParallel(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	before := descriptors(t, r.KeeperPID)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			c, err := r.exec(shell(fmt.Sprintf("head -c 200000 /dev/zero; echo %d >&2; exit %d", i, i)))
			if err != nil {
				t.Error(err)
				return
			}
			if out, errs, e := c.rest(); len(out) != 200000 || string(errs) != fmt.Sprintf("%d\n", i) || int(e.Status) != i {
				t.Errorf("%d: %d bytes, %q, %+v", i, len(out), errs, e)
			}
		})
	}
	all.Wait()
	eventually(t, "the descriptors of before", func() bool { return descriptors(t, r.KeeperPID) <= before })
	eventually(t, "less than 1.5 MiB", func() bool { return anonymous(t, r.KeeperPID) < 1200 })
	t.Logf("%d KiB after 20 execs", anonymous(t, r.KeeperPID))
}

func TestTooManyExecsAreRefused(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	for i := range 65 {
		_, err := r.exec(shell("sleep 100"))
		if i < 64 && err != nil || i == 64 && !fault.Is(err, fault.Busy) {
			t.Fatalf("exec %d: %v", i, err)
		}
	}
	// The end of the payload is the end of them all.
	start := time.Now()
	r.Signal(within10(t), syscall.SIGKILL)
	if e := r.end(); e.Signal != 9 {
		t.Errorf("%+v", e)
	}
	wait(t, r.gone)
	t.Logf("ended in %v", time.Since(start))
}

func TestClientOfAnExecThatGoesEndsItsInputOnly(t *testing.T) {
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	e := shell("cat; head -c 1000000 /dev/zero; touch " + "/proc/self/nothing; echo over >/dev/null; exit 0")
	e.Process.Stdin = true
	before := descriptors(t, r.KeeperPID)
	c, err := r.exec(e)
	if err != nil {
		t.Fatal(err)
	}
	c.conn.Close()
	eventually(t, "the exec's end", func() bool { return descriptors(t, r.KeeperPID) <= before })
	if st, err := r.Status(within10(t)); err != nil || st.Ended != nil {
		t.Errorf("%+v %v", st, err)
	}
}

// What nobody takes at all is read no faster, however many programs write it.
func TestAFloodOfExecsWhoseClientsHaveGoneIsHeldUp(t *testing.T) {
	const least = 900 * time.Millisecond // for 24 MiB, of which 8 are read at once and the rest at 16 a second
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	before := descriptors(t, r.KeeperPID)
	began := time.Now()
	for range 3 {
		c, err := r.exec(shell("head -c 8388608 /dev/zero"))
		if err != nil {
			t.Fatal(err)
		}
		c.conn.Close()
	}
	eventually(t, "the execs' end", func() bool { return descriptors(t, r.KeeperPID) <= before })
	if took := time.Since(began); took < least {
		t.Errorf("they were read in %s", took)
	}
}

func TestMemoryComesBackAfterTenMiB(t *testing.T) {
	c, conn := pipe(t)
	r := launch(t, newSpec(t, "sh", "head -c 10485760 /dev/zero; sleep 100"), conn)
	conn.Close()
	for n := 0; n < 10<<20; {
		_, p, err := c.r.Next()
		if err != nil {
			t.Fatal(err)
		}
		n += len(p)
	}
	eventually(t, "less than 1.5 MiB", func() bool { return anonymous(t, r.KeeperPID) < 1200 })
	t.Logf("%d KiB after 10 MiB", anonymous(t, r.KeeperPID))
}

func TestAnExecBesideTheEndIsNoFailureOfTheKeeper(t *testing.T) {
	for i := range 40 {
		r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			r.Signal(within10(t), 9)
		}()
		_, err := r.exec(shell("sleep 100"))
		<-ended
		if err != nil && !fault.Is(err, fault.Conflict) {
			t.Fatalf("after %d00 µs: %v, %v", i, fault.KindOf(err), err)
		}
		wait(t, r.gone)
	}
}

// TestAnExecIntoWhatTakesLongToEndIsToldSo has a process inside that the kernel cannot end:
// it is frozen, in a hierarchy where that keeps even a kill waiting.
func TestAnExecIntoWhatTakesLongToEndIsToldSo(t *testing.T) {
	require.Root(t)
	group := "/sys/fs/cgroup/freezer/strata-keeper-test-" + strconv.Itoa(os.Getpid())
	err := os.Mkdir(group, 0o755)
	require.Host(t, "cgroup-v1", err == nil, "no group can be made in the freezer hierarchy of cgroup v1")
	set := func(file, text string) {
		if err := os.WriteFile(group+"/"+file, []byte(text), 0); err != nil {
			t.Error(err)
		}
	}
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100 & wait")), nil)
	defer func() {
		set("freezer.state", "THAWED")
		wait(t, r.gone)
		eventually(t, "the end of the group's last process", func() bool { return os.Remove(group) == nil })
	}()
	child := ""
	eventually(t, "a process inside", func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/status")
		for _, file := range all {
			if b, _ := os.ReadFile(file); strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", r.PID)) {
				child = filepath.Base(filepath.Dir(file))
			}
		}
		return child != ""
	})
	set("tasks", child)
	set("freezer.state", "FROZEN")
	r.Signal(within10(t), 9)
	eventually(t, "the first process has no namespaces any more", func() bool {
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", r.PID))
		return err != nil
	})
	if _, err := r.exec(shell("true")); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v, %v", fault.KindOf(err), err)
	}
}
