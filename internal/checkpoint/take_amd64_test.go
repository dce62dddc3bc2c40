package checkpoint_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/checkpoint"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// subjectName names what the test binary is to be as a subject.
const subjectName = "STRATA_TEST_SUBJECT"

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if name := os.Getenv(subjectName); name != "" {
		subjects[name]()
		return
	}
	// What this process was started with is no subject's.
	_ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	os.Exit(m.Run())
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// subject is a process that can be spoken to by descriptor 3, a socket.
type subject struct {
	cmd  *exec.Cmd
	conn net.Conn
	out  *bufio.Reader
	id   checkpoint.FileID // of descriptor 3
}

// start runs a program with that socket, and with files from descriptor 4 on.
func start(t *testing.T, cmd *exec.Cmd, files ...*os.File) *subject {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	s := &subject{cmd: cmd}
	s.conn, err = net.FileConn(ours)
	must(t, err, ours.Close(), s.conn.SetDeadline(time.Now().Add(patience)))
	s.id, err = checkpoint.Identify(theirs)
	must(t, err)
	cmd.ExtraFiles, cmd.Stderr = append([]*os.File{theirs}, files...), os.Stderr
	must(t, cmd.Start(), theirs.Close())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); s.conn.Close() })
	s.out = bufio.NewReader(s.conn)
	return s
}

// own runs one of subjects.
func own(t *testing.T, name string) *subject {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{subjectName + "=" + name, "GODEBUG=asyncpreemptoff=1,containermaxprocs=0,updatemaxprocs=0"} // no signals to threads by their ids, no open files
	return start(t, cmd)
}

func (s *subject) ask(t *testing.T, line, want string) {
	t.Helper()
	_, err := fmt.Fprintln(s.conn, line)
	must(t, err)
	got, err := s.out.ReadString('\n')
	if got = strings.TrimSpace(got); err != nil || got != want {
		t.Fatalf("it answers %q, %v, and not %q", got, err, want)
	}
}

// take writes s down; the image is descriptor 4 of copies.
func (s *subject) take() (*checkpoint.Image, error) {
	return checkpoint.Take(s.cmd.Process.Pid, checkpoint.Options{Given: map[int]checkpoint.FileID{3: s.id}, Own: 4})
}

// copyOf executes i.
func copyOf(t *testing.T, i *checkpoint.Image) *subject {
	t.Helper()
	return start(t, exec.Command("/proc/self/fd/"+strconv.Itoa(int(i.File.Fd()))), i.File)
}

// shell counts lines. Its descriptor 3 is put away by the shell while it reads.
const shell = `n=5; while read word <&3; do n=$((n+1)); echo "$word $n" >&3; done`

func TestAShellGoesOn(t *testing.T) {
	require.Root(t)
	s := start(t, exec.Command("/bin/dash", "-c", shell))
	s.ask(t, "a", "a 6")
	image, err := s.take()
	must(t, err)
	defer image.Close()
	for range 3 {
		copyOf(t, image).ask(t, "b", "b 7")
	}
	c := copyOf(t, image)
	c.ask(t, "c", "c 7")
	again, err := c.take() // of a copy as well
	must(t, err)
	defer again.Close()
	c.ask(t, "d", "d 8")
	copyOf(t, again).ask(t, "d", "d 8")
	s.ask(t, "e", "e 7") // the process has gone on
	if image.Bytes() == 0 || !image.Current() {
		t.Error("there is no image")
	}
}

// subjects are processes of a kind.
var subjects = map[string]func(){
	// Threads that each know something, a poll, a handler of signals.
	"threads": func() {
		conn := pollable()
		in := bufio.NewScanner(conn)
		const threads = 8
		var ask, answer [threads]chan int
		for n := range threads {
			ask[n], answer[n] = make(chan int), make(chan int)
			go func() {
				runtime.LockOSThread()
				sum := n
				for v := range ask[n] {
					sum += v
					answer[n] <- sum
				}
			}()
		}
		for in.Scan() {
			v, _ := strconv.Atoi(in.Text())
			total := 0
			for n := range threads {
				ask[n] <- v
				total += <-answer[n]
			}
			time.Sleep(time.Millisecond)
			fmt.Fprintln(conn, total)
		}
	},
	// System-call filters that refuse a call each, the later one any further filter.
	"filtered": func() {
		conn := pollable()
		const allow, refuse, load, equal, ret = 0x7fff0000, 0x50000 | uint32(unix.EDOM), unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, number := range []uint32{unix.SYS_GETPPID, unix.SYS_SECCOMP} {
			program := []unix.SockFilter{{Code: load}, {Code: equal, K: number, Jf: 1}, {Code: ret, K: refuse}, {Code: ret, K: allow}}
			seccomp(&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
		}
		for in := bufio.NewScanner(conn); in.Scan(); {
			_, _, errno := syscall.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			fmt.Fprintln(conn, errno == unix.EDOM)
		}
	},
	// A thread that waits with other signals blocked than it has.
	"masked": func() {
		runtime.LockOSThread()
		mask := func(signals ...syscall.Signal) (m unix.Sigset_t) {
			for _, s := range signals {
				m.Val[0] |= 1 << (s - 1)
			}
			return m
		}
		usual, waiting := mask(unix.SIGUSR1), mask(unix.SIGHUP)
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &usual, nil); err != nil {
			panic(err)
		}
		for {
			wait(&unix.PollFd{Fd: 3, Events: unix.POLLIN}, &waiting)
			var line [64]byte
			if n, _ := unix.Read(3, line[:]); n <= 0 {
				return
			}
			status, _ := os.ReadFile("/proc/thread-self/status")
			_, after, _ := strings.Cut(string(status), "SigBlk:")
			blocked, _, _ := strings.Cut(after, "\n")
			unix.Write(3, []byte(strings.TrimSpace(blocked)+"\n"))
		}
	},
	"the same": func() {
		fd, err := unix.Eventfd(0, 0)
		if err == nil {
			_, err = unix.Dup(fd)
		}
		if err != nil {
			panic(err)
		}
		echo()
	},
	"timers": func() {
		if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.MakeItimerval(time.Hour, time.Hour)); err != nil {
			panic(err)
		}
		echo()
	},
	"shared memory": func() {
		if _, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
			panic(err)
		}
		echo()
	},
	"a pipe": func() {
		if _, _, err := os.Pipe(); err != nil {
			panic(err)
		}
		echo()
	},
}

// pollable is descriptor 3, which the runtime waits for by a poll.
func pollable() net.Conn {
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		panic(err)
	}
	unix.Dup2(int(fd(conn)), 3)
	return conn
}

func fd(c net.Conn) (n uintptr) {
	raw, _ := c.(syscall.Conn).SyscallConn()
	raw.Control(func(fd uintptr) { n = fd })
	return n
}

func echo() {
	conn := pollable()
	for in := bufio.NewScanner(conn); in.Scan(); {
		fmt.Fprintln(conn, in.Text())
	}
}

func TestThreadsGoOn(t *testing.T) {
	require.Root(t)
	s := own(t, "threads")
	s.ask(t, "1", "36")
	image, err := s.take()
	must(t, err)
	defer image.Close()
	for range 5 {
		c := copyOf(t, image)
		c.ask(t, "2", "52")
		c.ask(t, "1", "60")
	}
	s.ask(t, "0", "36")
}

func TestAFilterOfSystemCallsStays(t *testing.T) {
	require.Root(t)
	s := own(t, "filtered")
	s.ask(t, "", "true")
	image, err := s.take()
	must(t, err)
	defer image.Close()
	cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(int(image.File.Fd())))
	start(t, cmd, image.File).ask(t, "", "true")
}

func TestACallThatIsMadeAgainBlocksWhatItBlockedAndNoMore(t *testing.T) {
	require.Root(t)
	s := own(t, "masked")
	const usual = "0000000000000200" // SIGUSR1
	s.ask(t, "x", usual)
	image, err := s.take()
	must(t, err)
	defer image.Close()
	c := copyOf(t, image)
	c.ask(t, "x", usual)
	c.ask(t, "x", usual)
}

func TestWhatCannotBeWrittenDownIsNamed(t *testing.T) {
	require.Root(t)
	for name, want := range map[string]string{"shared memory": "shared", "a pipe": "pipe", "the same": "the same", "timers": "timers"} {
		s := own(t, name)
		s.ask(t, "x", "x")
		image, err := s.take()
		if err == nil {
			image.Close()
		}
		if !fault.Is(err, fault.Unable) && !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		s.ask(t, "y", "y")
	}
	s := own(t, "a pipe")
	s.ask(t, "x", "x")
	must(t, s.cmd.Process.Kill())
	s.cmd.Wait()
	if _, err := s.take(); !fault.Is(err, fault.Unable) {
		t.Errorf("a process that has ended: %v", err)
	}
}

func TestAnImageIsOfTheHostsFilesAsTheyWere(t *testing.T) {
	require.Root(t)
	path := filepath.Join(t.TempDir(), "dash")
	b, err := os.ReadFile("/bin/dash")
	must(t, err, os.WriteFile(path, b, 0o755))
	s := start(t, exec.Command(path, "-c", shell))
	s.ask(t, "a", "a 6")
	image, err := s.take()
	must(t, err)
	defer image.Close()
	if !image.Current() {
		t.Fatal("nothing has changed")
	}
	must(t, os.WriteFile(path+".new", b, 0o755), os.Rename(path+".new", path))
	if image.Current() {
		t.Error("its program is another file now")
	}
}

func TestNobodyCanChangeAnImage(t *testing.T) {
	require.Root(t)
	s := start(t, exec.Command("/bin/dash", "-c", shell))
	s.ask(t, "a", "a 6")
	image, err := s.take()
	must(t, err)
	defer image.Close()
	if _, err := image.File.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it was written to")
	}
	if err := image.File.Truncate(0); err == nil {
		t.Error("it was cut")
	}
}
