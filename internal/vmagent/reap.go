package vmagent

import (
	"sync"

	"golang.org/x/sys/unix"
)

// reaper takes every process that has ended, and tells whoever waits for it. There
// is one for all, because process 1 also gets those that it never started.
type reaper struct {
	mu      sync.Mutex // held while a process is made, so that none ends unknown
	waiting map[int]func(unix.WaitStatus)
}

// start calls fork, and ended once the process that it made has. Ended is called
// with the reaper locked, and must not wait.
func (r *reaper) start(fork func() (pid int, err error), ended func(unix.WaitStatus)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return err
	}
	if r.waiting == nil {
		r.waiting = map[int]func(unix.WaitStatus){}
	}
	r.waiting[pid] = ended
	return nil
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended := r.waiting[pid]; ended != nil {
			delete(r.waiting, pid)
			ended(status)
		}
	}
}

// kill sends a signal to a process that was started and has not been reaped: its
// number cannot be another one's yet.
func (r *reaper) kill(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[pid] == nil {
		return unix.ESRCH
	}
	return unix.Kill(pid, sig)
}
