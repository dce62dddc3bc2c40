package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watched is how long each side of the comparison is looked at. bound is the share of
// one processor that a top of crowded environments may cost together with the daemon.
const (
	watched = 20 * time.Second
	bound   = 3.0 // percent
	crowded = 500
)

// observe tells what it costs to watch many environments: the daemon's sampler
// alone, and with a top on a terminal.
func (e *env) observe() error {
	if err := e.crowd(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // what they needed only to start is given back
	alone, _, err := e.shares(nil)
	if err != nil {
		return err
	}
	fmt.Printf("  daemon alone, with its sampler   %6.2f %% of a processor\n", alone)
	for _, view := range [][]string{nil, {"--processes"}} {
		cmd := e.strata(append([]string{"top"}, view...)...)
		done, err := onTerminal(cmd)
		if err != nil {
			return err
		}
		daemon, top, err := e.shares(cmd)
		done()
		if err != nil {
			return err
		}
		name, verdict := "environments", ""
		switch {
		case view != nil:
			name = "processes"
		case daemon+top > bound:
			verdict = fmt.Sprintf(", beyond the %.0f %% that it may with %d", bound, crowded)
		case e.many >= crowded:
			verdict = fmt.Sprintf(", within the %.0f %% that it may with %d", bound, crowded)
		}
		fmt.Printf("  top of %-12s  daemon %6.2f, top %6.2f: %6.2f %%%s\n", name, daemon, top, daemon+top, verdict)
	}
	return nil
}

// shares tells what part of one processor the daemon and cmd use, in percent.
func (e *env) shares(cmd *exec.Cmd) (daemon, other float64, err error) {
	pids := []int{e.daemon.Process.Pid}
	if cmd != nil {
		time.Sleep(2 * time.Second) // its start is not counted
		pids = append(pids, cmd.Process.Pid)
	}
	var used [2]time.Duration
	begin := time.Now()
	for i, pid := range pids {
		if used[i], err = processorTime(pid); err != nil {
			return 0, 0, err
		}
	}
	time.Sleep(watched)
	took := time.Since(begin)
	for i, pid := range pids {
		now, err := processorTime(pid)
		if err != nil {
			return 0, 0, err
		}
		used[i] = now - used[i]
	}
	part := func(d time.Duration) float64 { return 100 * float64(d) / float64(took) }
	return part(used[0]), part(used[1]), nil
}

// processorTime is what a process has used. Source: proc(5), utime and stime.
func processorTime(pid int) (time.Duration, error) { return ticks(pid, 11, 12) }

// withChildren adds what its children, and theirs, had used when they ended. Source:
// proc(5), cutime and cstime.
func withChildren(pid int) (time.Duration, error) { return ticks(pid, 11, 12, 13, 14) }

// ticks adds up fields of a process's stat, counted from the one after its name.
func ticks(pid int, fields ...int) (sum time.Duration, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, at := range fields {
		if at >= len(f) {
			return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
		}
		n, err := strconv.Atoi(f[at])
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * (time.Second / 100)
	}
	return sum, nil
}

// onTerminal starts cmd on a terminal of its own, whose output nobody looks at.
func onTerminal(cmd *exec.Cmd) (done func(), err error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 120})
	}
	var side *os.File
	if err == nil {
		side, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, err
	}
	defer side.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = side, side, side
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		master.Close()
		return nil, err
	}
	go io.Copy(io.Discard, master)
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		master.Close()
	}, nil
}
