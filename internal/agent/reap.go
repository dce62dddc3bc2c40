package agent

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
)

// maxSignal is the highest signal. Source: signal(7), SIGRTMAX.
const maxSignal = 64

// settleAfter is how long the main program must have run before PID 1 gives
// back memory: most short programs are over by then.
const settleAfter = 50 * time.Millisecond

// reaper is PID 1 once the main program runs: it reaps every process that has
// lost its parent, forwards signals to the main program, and ends with it. The
// keeper's signals need no forwarding (see started), those from inside do.
type reaper struct {
	k       *keeper
	signals chan os.Signal
	filter  unix.SockFprog // for PID 1 itself
	null    int            // /dev/null, opened before a program could replace it
	main    int            // 0: the zone is idle
	status  unix.WaitStatus
	ended   bool
}

// To take a signal costs Go a change of threads and back (about 30 µs), so they
// are taken when there is time: a child's end before there is a child, what
// programs are usually sent (37 and 38 are what stops an init such as systemd)
// while the main program is being executed, and the rest once it runs.
// Source: signal(7) for the numbers.
var (
	ownSignals   = []os.Signal{unix.SIGCHLD, unix.SIGIO}
	usualSignals = []os.Signal{
		unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
		unix.SIGTTIN, unix.SIGTTOU, unix.SIGALRM, unix.SIGVTALRM, unix.SIGPIPE, unix.SIGABRT, unix.SIGPWR, unix.SIGXCPU, unix.SIGXFSZ,
		syscall.Signal(37), syscall.Signal(38),
	}
)

func newReaper(k *keeper) *reaper {
	return &reaper{k: k, signals: make(chan os.Signal, maxSignal)}
}

// run returns the exit status of PID 1. The end of PID 1 ends every process of
// the zone.
func (r *reaper) run() int {
	// The keeper's end shows as a signal, so that no thread has to wait for it.
	_, _ = unix.FcntlInt(uintptr(r.k.sock), unix.F_SETOWN, os.Getpid())
	if _, err := unix.FcntlInt(uintptr(r.k.sock), unix.F_SETFL, unix.O_ASYNC); err != nil || r.k.gone() {
		return 1
	}
	for s := syscall.Signal(1); s <= maxSignal && !r.ended; s++ {
		signal.Notify(r.signals, s) // nothing new where it is taken already
		r.reap()
	}
	later := time.After(settleAfter)
	for {
		if r.reap(); r.ended {
			return r.end()
		}
		select {
		case s := <-r.signals:
			if r.take(s.(syscall.Signal)) {
				return 1
			}
		case <-later:
			shrink()
		}
	}
}

// take does what a signal asks for, and tells whether PID 1 has to end.
func (r *reaper) take(s syscall.Signal) bool {
	switch s {
	case unix.SIGCHLD:
		return false // whoever has ended is reaped next
	case unix.SIGURG:
		return false // Go's own, to wake its threads
	case unix.SIGIO:
		if r.k.gone() {
			return true
		}
	case unix.SIGTERM, unix.SIGINT:
		if r.main == 0 { // an idle zone has nobody to ask
			r.ended = true
			return false
		}
	}
	if r.main > 0 {
		_ = unix.Kill(r.main, s) // it may have ended this moment
	}
	return false
}

// reap takes every process that has ended, and notes whether main was among them.
func (r *reaper) reap() {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid == r.main {
			r.status, r.ended = s, true
		}
	}
}

// end reports how the main program ended.
func (r *reaper) end() int {
	_ = r.k.say(wire.Message{Type: wire.Ended, Status: int(r.status)}, -1) // a keeper that is gone has nobody to tell
	if r.status.Signaled() {
		return 128 + int(r.status.Signal())
	}
	return r.status.ExitStatus()
}
