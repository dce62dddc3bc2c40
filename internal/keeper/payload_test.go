package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// binary is strata-keeper, built for these tests.
var binary string

// TestMain makes the test's own program serve as payload and as agent, too.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "payload":
		os.Exit(payload(os.Args[1], os.Args[2:]))
	case wire.ExecArgs[0]:
		os.Exit(agent())
	}
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		binary = filepath.Join(dir, "strata-keeper")
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keeper")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "strata-keeper")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "github.com/strata-project/strata/cmd/strata-keeper")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build strata-keeper: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func say(sock int, m wire.Message, fd int) {
	b, _ := json.Marshal(m)
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	unix.Sendmsg(sock, b, oob, nil, 0)
}

// payload is a small PID 1: it waits for go, runs a shell script, and tells how
// that ended. Other modes are payloads that go wrong.
func payload(mode string, args []string) int {
	const sock = wire.PayloadSyncFD
	unix.CloseOnExec(sock)
	b := make([]byte, wire.MaxMessage)
	if mode == "die early" {
		fmt.Fprintln(os.Stderr, "the\x1b[2J reason")
		return 42
	}
	if mode == "qemu" {
		return qemu(sock, args)
	}
	if n, _, err := unix.Recvfrom(sock, b, 0); n == 0 || err != nil {
		return 41
	}
	switch mode {
	case "fail":
		say(sock, wire.Message{Type: wire.Failed, Fault: &wire.Failure{Kind: "missing", Field: "command", Message: "no such program"}}, -1)
		return 0
	case "hostile":
		for i := range 40 {
			unix.Sendto(sock, []byte(`{"type":`+strconv.Itoa(i)+`}`), 0, nil)
		}
		f, _ := os.Open("/dev/zero")
		say(sock, wire.Message{Type: wire.TTY}, int(f.Fd()))
		say(sock, wire.Message{Type: wire.Notify}, int(f.Fd()))
		unix.Sendmsg(sock, []byte("{}"), unix.UnixRights(0, 1, 2, 0, 1, 2), nil, 0)
		time.Sleep(time.Hour) // a bare select would be a deadlock, and end it
	case "chatter": // says more than anyone needs to
		say(sock, wire.Message{Type: wire.Started}, -1)
		for range 1000 {
			if unix.Sendto(sock, b, unix.MSG_NOSIGNAL, nil) != nil {
				break
			}
		}
		return 3
	case "notify":
		pair, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		say(sock, wire.Message{Type: wire.Notify}, pair[0])
		say(sock, wire.Message{Type: wire.Started}, -1)
		unix.Write(pair[1], []byte("STATUS=soon"))
		unix.Recvfrom(sock, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR1)
		fmt.Println("up")
		<-signals
		unix.Write(pair[1], []byte("X=1\nREADY=1\n"))
		<-signals
		return 0
	}
	return runScript(sock, mode == "tty", args)
}

// qemu stands in for one: what it does by its sockets, the test does. It says its
// arguments but the first, which is a file that it makes then, ends well at SIGUSR1 and badly at SIGUSR2.
func qemu(sock int, args []string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	unix.Close(sock)
	fmt.Println("QEMU's output")
	for _, a := range args[1:] {
		fmt.Fprintln(os.Stderr, a)
	}
	if os.WriteFile(args[0], nil, 0o600) != nil {
		return 38
	}
	if s := <-signals; s == syscall.SIGUSR2 {
		return 1
	}
	return 0
}

func runScript(sock int, tty bool, args []string) int {
	cmd := exec.Command("/bin/sh", append([]string{"-c"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if tty {
		slave, err := terminal(sock)
		if err != nil {
			return 40
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
		defer slave.Close()
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := cmd.Start(); err != nil {
		return 39
	}
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		return 37
	}
	say(sock, wire.Message{Type: wire.Started}, pidfd)
	unix.Close(pidfd)
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	say(sock, wire.Message{Type: wire.Ended, Status: int(ws)}, -1)
	return 0
}

// terminal makes one, sends its master side, and returns the other.
func terminal(sock int) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer master.Close()
	var unlock int32
	unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock)))
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		return nil, errno
	}
	say(sock, wire.Message{Type: wire.TTY}, int(master.Fd()))
	return os.NewFile(peer, "tty"), nil
}

// agent is `strata-agent enter`: it becomes the program.
func agent() int {
	const sock = wire.ExecSyncFD
	unix.CloseOnExec(sock)
	f := os.NewFile(wire.ExecProcessFD, "process")
	b, err := io.ReadAll(f)
	f.Close()
	var p wire.Process
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err == nil && p.Args[0] == "hang" {
		select {}
	}
	if err == nil && p.TTY {
		var slave *os.File
		if slave, err = terminal(sock); err == nil {
			for i := range 3 {
				unix.Dup3(int(slave.Fd()), i, 0)
			}
			unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)
		}
	}
	if err == nil {
		err = syscall.Exec(p.Args[0], p.Args, p.Env)
	}
	kind := "internal"
	if errors.Is(err, os.ErrNotExist) {
		kind = "missing"
	}
	say(sock, wire.Message{Type: wire.Failed, Fault: &wire.Failure{Kind: kind, Field: "command", Message: err.Error()}}, -1)
	return 127
}
