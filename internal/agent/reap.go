package agent

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/keeper/wire"
)

// maxSignal is the highest signal. Source: signal(7), SIGRTMAX.
const maxSignal = 64

// reaper is PID 1 once the main program runs: it reaps every process that has
// lost its parent, forwards signals to the main program, and ends with it.
type reaper struct {
	k       keeper
	signals chan os.Signal
}

// newReaper takes signals from now on, so that none is lost.
func newReaper(k keeper) *reaper {
	r := &reaper{k, make(chan os.Signal, maxSignal)}
	signal.Notify(r.signals)
	return r
}

// run returns the exit status of PID 1. The end of PID 1 ends every process of
// the zone. main is 0 in an idle zone.
func (r *reaper) run(main int) int {
	// The keeper's end shows as a signal, so that no thread has to wait for it.
	_, _ = unix.FcntlInt(uintptr(r.k), unix.F_SETOWN, os.Getpid())
	if _, err := unix.FcntlInt(uintptr(r.k), unix.F_SETFL, unix.O_ASYNC); err != nil || r.k.gone() {
		return 1
	}
	idle()
	for {
		if status, ended := reap(main); ended {
			return r.end(status)
		}
		switch s := (<-r.signals).(syscall.Signal); s {
		case unix.SIGCHLD:
		case unix.SIGURG: // Go's own, to wake its threads
		case unix.SIGIO:
			if r.k.gone() {
				return 1
			}
			forward(main, s)
		default:
			if main == 0 && (s == unix.SIGTERM || s == unix.SIGINT) {
				return 0
			}
			forward(main, s)
		}
	}
}

func forward(main int, s syscall.Signal) {
	if main > 0 {
		_ = unix.Kill(main, s) // it may have ended this moment
	}
}

// reap takes every process that has ended, and tells whether main was among them.
func reap(main int) (status unix.WaitStatus, ended bool) {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if pid == main {
			status, ended = s, true
		}
	}
}

// end reports how the main program ended.
func (r *reaper) end(s unix.WaitStatus) int {
	_ = r.k.say(wire.Message{Type: wire.Ended, Status: int(s)}, -1) // a keeper that is gone has nobody to tell
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
