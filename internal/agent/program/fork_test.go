package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/require"
)

// output runs script as a child of its own and returns what it has written.
func output(t *testing.T, script string, birth Birth) string {
	t.Helper()
	text, err := run(&wire.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, NoNewPrivs: true}, birth)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// run runs p to its end as a child of its own and returns what it has written.
func run(p *wire.Process, birth Birth) (string, error) {
	img, err := Prepare(p)
	if err != nil {
		return "", err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return "", err
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return "", err
	}
	defer null.Close()
	birth.Streams = &[3]int{int(null.Fd()), pipe[1], pipe[1]}
	img.Birth, img.Session = birth, true
	pid, report, err := img.Start()
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return "", err
	}
	err = report.Wait(time.Minute)
	b, errRead := ReadAll(pipe[0], 1<<20)
	unix.Wait4(pid, nil, 0, nil)
	return string(b), errors.Join(err, errRead)
}

func TestManyAreForkedAtOnce(t *testing.T) {
	require.Root(t)
	stop := make(chan struct{})
	var opening, all sync.WaitGroup
	opening.Go(func() { disturb(stop) })
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				want := fmt.Sprintf("%d %d\n0\n1\n2\n3\n", i, j)
				if got := output(t, fmt.Sprintf("echo %d %d; exec ls /proc/self/fd", i, j), Birth{}); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	opening.Wait()
}

// disturb opens descriptors that no child may keep, and has memory collected,
// until stop is closed.
func disturb(stop chan struct{}) {
	var garbage []byte
	for {
		select {
		case <-stop:
			return
		default:
		}
		if fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err == nil { // without O_CLOEXEC
			unix.Close(fd)
		}
		garbage = append(garbage, make([]byte, 1<<10)...)
		if len(garbage) > 1<<20 {
			garbage = nil
			runtime.GC()
		}
	}
}

// newGroup makes a control group, and returns its folder, opened.
func newGroup(t *testing.T) *os.File {
	t.Helper()
	dir := ""
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			dir = filepath.Join(root, fmt.Sprintf("strata-test-%d", os.Getpid()))
			break
		}
	}
	require.Host(t, "cgroup-v2", dir != "", "no cgroup2 is mounted")
	err := os.Mkdir(dir, 0o755)
	require.Host(t, "cgroup-v2", err == nil, fmt.Sprint("no cgroup can be made: ", err))
	t.Cleanup(func() {
		for range 100 { // a program that has just ended may still count
			if os.Remove(dir) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is not empty", dir)
	})
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestAProgramIsBornInItsGroup(t *testing.T) {
	require.Root(t)
	dir := newGroup(t)
	got := output(t, "cat /proc/self/cgroup", Birth{Cgroup: int(dir.Fd())})
	if !strings.Contains(got, "0::") || !strings.Contains(got, filepath.Base(dir.Name())+"\n") {
		t.Errorf("it is in %q", got)
	}
}

// TestAStartThatDoesNotEndIsNotWaitedFor has programs born in a group that stands still, and
// which go on later than anybody waits.
func TestAStartThatDoesNotEndIsNotWaitedFor(t *testing.T) {
	require.Root(t)
	dir := newGroup(t)
	freeze := func(value string) {
		if err := os.WriteFile(filepath.Join(dir.Name(), "cgroup.freeze"), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, expendable := range []bool{false, true} {
		img, err := Prepare(&wire.Process{Args: []string{"/bin/true"}, NoNewPrivs: true})
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd := int(null.Fd())
		img.Birth = Birth{Streams: &[3]int{fd, fd, fd}, Cgroup: int(dir.Fd()), Expendable: expendable}
		freeze("1")
		pid, report, err := img.Start()
		null.Close()
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		err = report.Wait(50 * time.Millisecond)
		took := time.Since(begun)
		freeze("0")
		var status unix.WaitStatus
		for {
			if _, errWait := unix.Wait4(pid, &status, 0, nil); errWait != unix.EINTR {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "it was not executed within 50ms") || took < 50*time.Millisecond || took > 20*time.Second {
			t.Errorf("expendable %v: after %v: %v", expendable, took, err)
		}
		if !status.Exited() || status.ExitStatus() != 0 {
			t.Errorf("expendable %v: once it went on it ended with %v", expendable, status)
		}
	}
}

func TestAProgramEntersNamespaces(t *testing.T) {
	require.Root(t)
	made := make(chan int)
	done := make(chan struct{})
	go func() { // its thread ends with it
		fd := -1
		if err := lockedUnshare(unix.CLONE_NEWUTS); err == nil {
			_ = unix.Sethostname([]byte("elsewhere"))
			fd, _ = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/uts", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- fd
		<-done
	}()
	fd := <-made
	defer close(done)
	require.Host(t, "root", fd >= 0, "no namespace can be made")
	defer unix.Close(fd)
	if got := output(t, "cat /proc/sys/kernel/hostname", Birth{Namespaces: []int{fd}}); got != "elsewhere\n" {
		t.Errorf("its host is called %q", got)
	}
}

func TestAProgramIsExpendableWhateverItsParentIs(t *testing.T) {
	require.Root(t)
	old, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("17"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/self/oom_score_adj", old, 0)
	plain := output(t, "cat /proc/self/oom_score_adj", Birth{})
	if plain != "17\n" {
		t.Errorf("inherited: got %q", plain)
	}
	if got := output(t, "cat /proc/self/oom_score_adj", Birth{Expendable: true}); got != "0\n" && strings.TrimSpace(string(old)) == "0" {
		t.Errorf("got %q", got)
	}
}

func TestStreamsAreNeverTheAgentsOwn(t *testing.T) {
	img, err := Prepare(&wire.Process{Args: []string{"/bin/true"}})
	if err != nil {
		t.Fatal(err)
	}
	img.Birth.Streams = &[3]int{0, 1, 2}
	if _, _, err := img.Start(); err == nil {
		t.Error("they are taken")
	}
}

func lockedUnshare(flags int) error {
	runtime.LockOSThread()
	return unix.Unshare(flags)
}
