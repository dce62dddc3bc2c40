package keep

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	readable = unix.EPOLLIN
	writable = unix.EPOLLOUT
)

// handler is told that its descriptor is ready. events may name conditions
// (EPOLLHUP, EPOLLERR) that were not asked for.
type handler interface{ ready(events uint32) }

type entry struct {
	events     uint32
	generation int32
	h          handler
}

// loop dispatches the events of one epoll set.
type loop struct {
	ep         int
	entries    map[int]*entry
	generation int32
	batch      [16]unix.EpollEvent
}

func newLoop() (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{ep: ep, entries: make(map[int]*entry)}, nil
}

// want makes h wait for events on fd; 0 ends all waiting, for errors as well, so
// that what cannot be handled now does not wake the loop.
func (l *loop) want(fd int, events uint32, h handler) {
	e := l.entries[fd]
	switch {
	case fd < 0:
	case e == nil && events != 0:
		l.generation++
		if unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.generation}) == nil {
			l.entries[fd] = &entry{events, l.generation, h}
		}
	case e != nil && events == 0:
		l.forget(fd)
	case e != nil && e.events != events:
		e.events = events
		unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: e.generation})
	}
}

func (l *loop) forget(fd int) {
	if l.entries[fd] != nil {
		unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, fd, nil)
		delete(l.entries, fd)
	}
}

// close forgets *fd, closes it, and sets it to -1.
func (l *loop) close(fd *int) {
	if *fd >= 0 {
		l.forget(*fd)
		unix.Close(*fd)
		*fd = -1
	}
}

// once waits for events, at most for wait (negative: for ever), and dispatches
// them. It returns how many there were.
func (l *loop) once(wait time.Duration) int {
	timeout := -1
	if wait >= 0 {
		timeout = int((wait + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(l.ep, l.batch[:], timeout)
	if err != nil {
		return 0
	}
	for i := range n {
		ev := &l.batch[i]
		// The descriptor may have been closed, and its number used again, by an
		// earlier event of this batch.
		if e := l.entries[int(ev.Fd)]; e != nil && e.generation == ev.Pad {
			e.h.ready(ev.Events)
		}
	}
	return n
}
