package keep

// QEMU holds a machine still when the file of a disk finds no room on the host, so that the system
// inside sees no error, and goes on when it is told to. Nobody else does that: the keeper asks each
// second whether that is what it stands still for, and has it try again. What still finds no room
// then is told by another event. Source: QEMU, qapi/block-core.json (BLOCK_IO_ERROR, "enospc" is
// what disks are made with), qapi/run-state.json (RunState).

// ioError is the state of a machine that stands still for want of room.
const ioError = "io-error"

// lacksRoom tells whether the machine stands still, or may, until there is room.
func (m *machine) lacksRoom() bool { return m.noRoom && m.events >= 0 }

// askState asks in which state the machine is, where that may be for want of room.
func (m *machine) askState() {
	if m.lacksRoom() {
		send(m.events, []byte(`{"execute":"query-status"}`+"\n"))
	}
}

// state is QEMU's answer. One that somebody has paused meanwhile is left alone.
func (m *machine) state(now string) {
	if m.lacksRoom() && now == ioError {
		send(m.events, []byte(`{"execute":"cont"}`+"\n"))
	}
}
