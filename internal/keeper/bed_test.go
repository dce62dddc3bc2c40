package keeper

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
	"golang.org/x/sys/unix"
)

// live is one keeper under test.
type live struct {
	*Keeper
	t    testing.TB
	dir  string
	spec wire.Spec
	gone <-chan struct{}
}

func within10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), require.Patience(20*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// spec returns a spec of a payload in the given mode.
func newSpec(t testing.TB, mode string, args ...string) wire.Spec {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return wire.Spec{
		ID: "e1", Socket: dir + "/keeper.sock", ExitFile: dir + "/exit.json", StatusFile: dir + "/status.json",
		Log:   wire.Log{Dir: dir, Size: 1 << 20, Files: 3},
		Owner: uint32(os.Geteuid()),
		TTY:   mode == "tty",
		Payload: wire.Payload{
			Path: self, Args: append([]string{"payload", mode}, args...), Env: os.Environ(),
		},
		Exec: wire.ExecPath{Agent: self},
	}
}

// inside puts the payload into namespaces of its own.
func inside(t testing.TB, s wire.Spec) wire.Spec {
	require.Root(t)
	s.Payload.CloneFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS |
		unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	s.Payload.IDBase, s.Payload.IDCount = 1<<20, 65536
	s.Owner = 1 << 20
	s.Exec.Join = true
	// The test's program is reached by descriptors: its folder need not be open to others.
	return s
}

// begin starts a keeper up to Go, with conn as its first client.
func begin(t testing.TB, s wire.Spec, conn *os.File) (*Starting, error) {
	o := Options{Binary: binary, Spec: s, Attach: conn}
	self, err := os.Open(s.Payload.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	o.Files = []*os.File{self}
	o.Spec.Payload.Path = "/proc/self/fd/" + strconv.Itoa(wire.PayloadSyncFD+1)
	return Start(within10(t), o)
}

// launch starts a keeper and lets it run.
func launch(t testing.TB, s wire.Spec, conn *os.File) *live {
	t.Helper()
	st, err := begin(t, s, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(st.PID, unix.SIGKILL); wait(t, st.gone) })
	k, err := st.Go(within10(t))
	if err != nil {
		t.Fatal(err)
	}
	return &live{Keeper: k, t: t, dir: filepath.Dir(s.Socket), spec: s, gone: st.gone}
}

func wait(t testing.TB, gone <-chan struct{}) {
	t.Helper()
	select {
	case <-gone:
	case <-time.After(require.Patience(20 * time.Second)):
		t.Error("the keeper did not end")
	}
}

// at returns what closes c at the first status that is as wanted.
func at(c chan struct{}, is func(wire.Status) bool) func(wire.Status) {
	var once sync.Once
	return func(st wire.Status) {
		if is(st) {
			once.Do(func() { close(c) })
		}
	}
}

func isReady(st wire.Status) bool { return st.Ready }

// end waits for the run's end.
func (r *live) end() wire.ExitRecord {
	r.t.Helper()
	e, err := r.Watch(within10(r.t), func(wire.Status) {})
	if err != nil {
		rec, rerr := ReadExit(r.spec.ExitFile)
		if rec == nil {
			r.t.Fatal(err, rerr)
		}
		return *rec
	}
	return e
}

// client is a test's end of a stream.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *stream.Reader
}

// pipe returns a client and the end for a keeper.
func pipe(t testing.TB) (*client, *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[0]), "client")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(require.Patience(20 * time.Second)))
	theirs := os.NewFile(uintptr(pair[1]), "conn")
	t.Cleanup(func() { conn.Close(); theirs.Close() })
	return &client{t, conn, stream.NewReader(conn)}, theirs
}

// rest reads until the exit frame.
func (c *client) rest() (stdout, stderr []byte, e stream.Ended) {
	c.t.Helper()
	var out, errs bytes.Buffer
	for {
		typ, p, err := c.r.Next()
		if err != nil {
			c.t.Fatalf("the stream ended without an exit status: %v (output %q)", err, cut(out.Bytes()))
		}
		switch typ {
		case stream.Stdout:
			out.Write(p)
		case stream.Stderr:
			errs.Write(p)
		case stream.Exit:
			if e, err = stream.ParseExit(p); err != nil {
				c.t.Fatal(err)
			}
			return out.Bytes(), errs.Bytes(), e
		}
	}
}

// until reads output until it holds word.
func (c *client) until(word string) string {
	c.t.Helper()
	var got []byte
	for !bytes.Contains(got, []byte(word)) {
		typ, p, err := c.r.Next()
		if err != nil || typ == stream.Exit {
			c.t.Fatalf("%q did not come: %v %v, got %q", word, typ, err, cut(got))
		}
		got = append(got, p...)
	}
	return string(got)
}

func (c *client) send(t stream.Type, p []byte) {
	c.t.Helper()
	if err := stream.Write(c.conn, t, p); err != nil {
		c.t.Fatal(err)
	}
}

func cut(b []byte) []byte { return b[:min(len(b), 300)] }

// anonymous returns the memory of a process that is its own alone, in KiB: what its
// proportional set size comes to where many run the same program.
func anonymous(t testing.TB, pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "Pss_Anon:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	t.Fatal("no Pss_Anon")
	return 0
}

// descriptors returns how many a process has.
func descriptors(t testing.TB, pid int) int {
	list, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(require.Patience(20 * time.Second)); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came: " + what)
		}
	}
}
