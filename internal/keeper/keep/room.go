package keep

import "time"

// QEMU holds a machine still when the file of a disk finds no room on the host, so that the system
// inside sees no error, and goes on when it is told to. Nobody else does that: the keeper asks each
// second whether that is what it stands still for, and has it try again. What still finds no room
// then is told by another event. Source: QEMU, qapi/block-core.json (BLOCK_IO_ERROR, "enospc" is
// what disks are made with), qapi/run-state.json (RunState).

// ioError is the state of a machine that stands still for want of room.
const ioError = "io-error"

// wentOn is how long a machine must have gone on before it is said to: one that finds no room again
// has tried in vain. It is longer than the time from one try to the next.
const wentOn = 3 * time.Second

// room is what is known of the host's room for a machine's disks.
type room struct {
	lacks   bool      // a disk found none
	stalled bool      // and that is told, until the machine has gone on for a while
	resumed time.Time // when it went on
}

// found notes that a disk found no room, and that the machine goes on.
func (m *machine) found(none bool) {
	m.room.lacks = none
	if !none {
		m.room.resumed = time.Now()
	} else if !m.room.stalled {
		m.room.stalled = true
		m.k.tell()
	}
}

// lacksRoom tells whether the machine stands still, or may, until there is room.
func (m *machine) lacksRoom() bool { return m.room.lacks && m.events >= 0 }

// try has a machine that stands still for want of room go on, or tells that it does.
func (m *machine) try(now time.Time) {
	switch {
	case m.lacksRoom():
		send(m.events, []byte(`{"execute":"query-status"}`+"\n"))
	case m.room.stalled && now.Sub(m.room.resumed) >= wentOn:
		m.room.stalled = false
		m.k.tell()
	}
}

// state is QEMU's answer. One that somebody has paused meanwhile is left alone.
func (m *machine) state(now string) {
	if m.lacksRoom() && now == ioError {
		send(m.events, []byte(`{"execute":"cont"}`+"\n"))
	}
}
