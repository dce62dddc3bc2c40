package vmagent

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// companionName is what the agent calls itself beside a template's init.
const companionName = "strata-agent-beside"

// lastProgram is what systemd's process 1 becomes when all units have been stopped.
// In a control group namespace it takes itself for a container's: it writes
// nothing out and switches nothing off, it only ends, and the kernel panics. But first
// it sends SIGTERM to whoever is left. Source: systemd, src/shutdown/shutdown.c.
const lastProgram = "systemd-shutdow" // as /proc/1/comm cuts it

// awaitLast does what systemd's last program leaves undone.
func (a *agent) awaitLast() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGTERM)
	for range asked {
		if readLine("/proc/1/comm") != lastProgram {
			continue // somebody else's signal
		}
		how := unix.LINUX_REBOOT_CMD_POWER_OFF
		if text, err := os.ReadFile("/proc/1/cmdline"); err == nil {
			if words := strings.Split(string(text), "\x00"); len(words) > 1 && words[1] == "reboot" {
				how = unix.LINUX_REBOOT_CMD_RESTART
			}
		}
		a.end(how)
	}
}

// The companion's descriptors.
const (
	companionDev = 3 + iota
	companionDisk
	companionGroup
	companionExec
	companionSpace
	companionMaster
	companionSlave
	companionNotify
	companionWait
)

// drainPatience bounds how long the answer to Run may stand in the port.
const drainPatience = 5 * time.Second

// system hands process 1 over to the template's init: it prepares all that can
// fail, and the rest happens once the host has its answer.
func (a *agent) system(r *spec.Run) error {
	a.loadRest() // what an init finds is there when it looks
	r.Main.Env = append(r.Main.Env, "NOTIFY_SOCKET="+notifySocket)
	notify, err := listenForReady(notifySocket)
	if err != nil {
		return root.Wrap(err, "listen for readiness")
	}
	img, err := program.Prepare(r.Main)
	if err != nil {
		return err
	}
	t, err := program.OpenTerminal(r.Main, img.UID())
	if err != nil {
		return err
	}
	if err := t.Console(); err != nil {
		return err
	}
	img.Session, img.TTY = true, t.Slave
	tell, err := a.accompany(t, notify)
	if err != nil {
		return root.Wrap(err, "start the agent beside the init")
	}
	unix.Close(t.Master)
	unix.Close(notify)
	a.answers.Deafen() // whoever comes is to meet the companion
	go a.answers.Quiet(func() {
		a.mu.Lock()
		p := a.meeting
		a.mu.Unlock()
		if p != nil {
			p.drain(drainPatience)
		}
		a.do(func() { a.become(img, tell) })
	})
	return nil
}

// become is process 1 turning into the init. It returns only if that failed.
func (a *agent) become(img *program.Image, tell int) {
	err := writeAt(a.group.dir, "cgroup.procs", "0")
	if err == nil {
		err = img.Become()
	}
	_, _ = unix.Write(tell, []byte("x")) // the companion must not take the end for success
	unix.Close(tell)
	a.failed(err)
}

// accompany starts the companion. It waits for the end of the pipe whose writing
// side is returned, which comes when process 1 has become another program.
func (a *agent) accompany(t program.Terminal, notify int) (tell int, err error) {
	var wait [2]int
	if err := unix.Pipe2(wait[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	defer unix.Close(wait[0])
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(null)
	files := make([]uintptr, companionWait+1)
	for i, fd := range map[int]int{
		0: null, 1: null, 2: null, companionDev: a.dev, companionDisk: a.disk, companionGroup: a.group.dir, companionExec: a.group.exec,
		companionSpace: a.group.ns, companionMaster: t.Master, companionSlave: t.Slave, companionNotify: notify, companionWait: wait[0],
	} {
		files[i] = uintptr(fd)
	}
	args := append([]string{companionName, a.control, a.streams}, a.faults...)
	err = a.reap.start(func() (int, error) {
		return syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	}, func(unix.WaitStatus) {})
	if err != nil {
		unix.Close(wait[1])
		return -1, err
	}
	return wait[1], nil
}

// companion is the agent of a system whose process 1 is the template's init.
func companion(args []string) int {
	if len(args) < 3 {
		return 2
	}
	for fd := companionDev; fd <= companionWait; fd++ {
		unix.CloseOnExec(fd)
	}
	a := newAgent()
	a.dev, a.control, a.streams, a.faults = companionDev, args[1], args[2], args[3:]
	a.disk, a.state = companionDisk, stateRunning
	a.group = group{dir: companionGroup, exec: companionExec, ns: companionSpace}
	a.group.watch()
	a.begun.Store(true)
	// The kernel's choice when memory runs out must not be the one that tells of it.
	_ = writeFile("/proc/self/oom_score_adj", strconv.Itoa(-1000)) // tolerated: it only makes the agent a choice
	n := 0
	err := root.Again(func() (err error) { n, err = unix.Read(companionWait, make([]byte, 1)); return err })
	if err != nil || n > 0 {
		return 1 // process 1 is what it was
	}
	unix.Close(companionWait)
	go a.awaitLast()
	go a.serve()
	s := a.stream()
	s.Attach(program.Terminal{Master: companionMaster, Slave: companionSlave}, first{})
	go func() {
		if waitForReady(companionNotify) {
			s.Ready()
		}
	}()
	a.loop()
	return 0
}

// first is process 1 as the main program: its end is that of the system.
type first struct{}

func (first) PID() int { return 1 }

func (first) Ended() <-chan unix.WaitStatus { return nil }

func (first) Signal(sig unix.Signal) error { return unix.Kill(1, sig) }

func (first) OutOfMemory() bool { return false }

// listenForReady makes the socket on which the init says that it is up. Only root
// can write to it.
func listenForReady(path string) (int, error) {
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			if err := unix.Mkdir(path[:i], 0o755); err != nil && err != unix.EEXIST {
				return -1, err
			}
		}
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	mask := unix.Umask(0o077)
	err = unix.Bind(sock, &unix.SockaddrUnix{Name: path})
	unix.Umask(mask)
	if err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// maxNotice is the longest notice that is read. Unit: bytes.
const maxNotice = 4 << 10

// waitForReady reads notices until one says that the init is up. Source: sd_notify(3).
func waitForReady(sock int) bool {
	f := os.NewFile(uintptr(sock), "notify")
	defer f.Close()
	b := make([]byte, maxNotice)
	for {
		n, err := f.Read(b)
		if err != nil && err != io.EOF { // which is a notice without a word
			return false
		}
		for line := range strings.SplitSeq(string(b[:n]), "\n") {
			if line == "READY=1" {
				return true
			}
		}
	}
}
