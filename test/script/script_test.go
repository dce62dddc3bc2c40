// Package script tests the CLI from outside: each file of testdata is a session
// as a user would type it, against a real daemon.
//
// Besides the commands of testscript there are:
//
//	status N COMMAND...   the command must end with exactly this exit status
//	archive KIND FILE     write a template archive that is broken in some way
//	occupy PORT           a server of the host's takes a TCP port
//	nobody COMMAND...     the command as an ordinary user, with its status in $status
package script

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/test/bed"
)

func TestScript(t *testing.T) {
	b := bed.New(t)
	b.Run("run", "--rm", "busybox", "true")
	testscript.Run(t, sessions(b, "testdata"))
}

// sessions are the files of a folder, on b.
func sessions(b *bed.Bed, dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv(place.RootVariable, b.Places.Root)
			env.Setenv("ROOT", b.Places.Root)
			env.Setenv("PATH", filepath.Dir(b.Program("strata"))+":"+os.Getenv("PATH"))
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  status,
			"archive": archive,
			"nobody":  nobody,
			"occupy":  func(ts *testscript.TestScript, _ bool, args []string) { occupy(ts, b, args) },
		},
	}
}

// status runs a command and compares its exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v: exit status %d; want %d", args[1:], got, want)
	}
}

// nobody runs the CLI as user 65534 and prints what it says.
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), bed.Patience)
	defer cancel()
	path, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], args[0]))
	ts.Check(err)
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env = []string{place.RootVariable + "=" + ts.Getenv(place.RootVariable), "PATH=" + ts.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := cmd.Run(); err == nil != !neg {
		ts.Fatalf("%v: %v", args, err)
	}
}

// occupy listens on a port of the bed's host until the script ends.
func occupy(ts *testscript.TestScript, b *bed.Bed, args []string) {
	var l net.Listener
	var err error
	b.Host(func() { l, err = net.Listen("tcp4", ":"+args[0]) })
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

func TestAFullHostDiskIsSaidBeforeAnythingIsMade(t *testing.T) {
	small, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", small, "tmpfs", 0, "size=96m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(small, 0); os.Remove(small) })
	b := bed.NewIn(t, small)
	fill := filepath.Join(small, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	f.Close()
	out := b.Try("create", "--name", "one", "busybox")
	if out.Status == 0 || !strings.Contains(out.Stderr, "free") {
		t.Errorf("create on a full disk: status %d, %q; want a refusal with what is free", out.Status, out.Stderr)
	}
	if got := b.Run("ls", "-aq"); got != "" {
		t.Errorf("it was made all the same: %s", got)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
}
