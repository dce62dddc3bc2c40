package program

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
)

// bounded starts a program that is to have the capabilities keep, and returns its
// bounding set as the kernel writes it.
func bounded(keep []int, narrow bool) (string, error) {
	text, err := run(&wire.Process{
		Args: []string{"/bin/sh", "-c", "grep ^CapBnd: /proc/self/status"}, Env: []string{"PATH=/bin:/usr/bin"}, Capabilities: keep,
	}, Birth{Narrow: narrow})
	return strings.TrimSpace(strings.TrimPrefix(text, "CapBnd:")), err
}

// set is keep, as far as this host's root has it.
func set(keep []int) string {
	bits := 0
	for _, c := range keep {
		if bounds(uintptr(c)) {
			bits |= 1 << c
		}
	}
	return fmt.Sprintf("%016x", bits)
}

// alone runs the test in a process of its own, and tells whether this is it.
func alone(t *testing.T) bool {
	t.Helper()
	const marker = "STRATA_TEST_ALONE"
	if os.Getenv(marker) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), marker+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func TestAProgramIgnoresNoSignal(t *testing.T) {
	require.Root(t)
	if !alone(t) {
		return
	}
	signal.Ignore(unix.SIGHUP, unix.SIGUSR1)
	own, err := os.ReadFile("/proc/thread-self/status")
	if err != nil || strings.Contains(string(own), "SigIgn:\t0000000000000000") {
		t.Fatalf("this process ignores none: %v", err)
	}
	const want = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n"
	for _, birth := range []Birth{{}, {Expendable: true}} {
		if got := output(t, "exec cat /proc/self/status", birth); !strings.Contains(got, want) {
			t.Errorf("%+v: %s", birth, got)
		}
	}
}

// A thread that has lost capabilities does not get them back, so this is done by a
// process of its own.
func TestThreadsLoseWhatNoProgramMayHave(t *testing.T) {
	require.Root(t)
	if !alone(t) {
		return
	}
	runtime.LockOSThread() // this thread is never narrowed
	few, more := []int{unix.CAP_CHOWN, unix.CAP_KILL}, []int{unix.CAP_CHOWN, unix.CAP_KILL, unix.CAP_SETUID}
	wantFew, wantMore := set(few), set(more)
	if wantFew == wantMore {
		t.Fatalf("this root has %s only", wantMore)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if got, err := bounded(few, true); got != wantFew || err != nil {
					t.Errorf("bounding set %s, %v; want %s", got, err, wantFew)
				}
			}
		})
	}
	all.Wait()
	asked := make(chan error)
	go func() {
		_, err := bounded(more, true)
		asked <- err
	}()
	if err := <-asked; err != ErrNarrow {
		t.Errorf("more than a thread has lost: %v", err)
	}
	for want, keep := range map[string][]int{wantFew: few, wantMore: more} {
		if got, err := bounded(keep, false); got != want || err != nil {
			t.Errorf("from a whole thread: bounding set %s, %v; want %s", got, err, want)
		}
	}
}

func TestAProgramIsLookedForInEveryFolder(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name+"/prog", []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return dir + "/" + name
	}
	good := file("good", "#!/bin/sh\nexit 0\n", 0o755)
	lost := file("lost", "#!/no/such/interpreter\n", 0o755)
	closed := file("closed", "#!/bin/sh\nexit 1\n", 0o644)
	none, notDir := dir+"/none", good+"/prog"
	for path, want := range map[string]string{
		none + ":" + notDir + ":" + good: "",
		lost + ":" + good:                "",
		closed + ":" + good:              "",
		closed + ":" + none:              "permission denied",
		none + ":" + notDir:              "executable file not found in $PATH",
		none:                             "executable file not found in $PATH",
	} {
		img, err := Prepare(&wire.Process{Args: []string{"prog"}, Env: []string{"PATH=" + path}})
		if err != nil {
			t.Fatal(err)
		}
		pid, report, err := img.Start()
		if err != nil {
			t.Fatal(err)
		}
		err = report.Wait(time.Minute)
		var status unix.WaitStatus
		unix.Wait4(pid, &status, 0, nil)
		if want == "" && (err != nil || status != 0) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, status %d; want %q", strings.ReplaceAll(path, dir, ""), err, status, want)
		}
	}
}
