package keep

import (
	"encoding/json"
	"runtime/debug"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// phase is how far a run is.
type phase uint8

const (
	waiting  phase = iota // the payload exists, the daemon has not said go
	starting              // it has; the payload is about to run the main program
	running               //
	over                  // the payload has ended
)

// keeper is the whole process.
type keeper struct {
	*loop
	spec   wire.Spec
	phase  phase
	failed bool // the start failed: leave nothing

	main    program
	machine *machine // nil: the payload is a zone's
	log     logfile.Writer
	logged  []*program // whose output is kept
	pid     int        // the payload's
	started uint64
	ready   bool
	exit    *wire.ExitRecord
	oomBase int64

	daemon  int // sockets: -1 where closed
	payload int
	notify  int
	control int
	agent   int // the agent's program, for exec

	said     int // messages that the payload has sent
	told     *int
	deadline time.Time // by when a payload that was killed, or that has told its end, must be over

	conns  []*conn
	execs  []*execution
	adrift pace // of the output of execs whose clients have gone

	scratch []byte
	busy    bool // there was work since memory was last given back
	litter  bool // that work used the heap: moving bytes does not
}

// bufferSize fits a frame of the longest payload.
const bufferSize = stream.HeaderSize + stream.MaxPayload

// buffer returns memory for one read. It is shared: whatever is in it is valid
// until the next call only.
func (k *keeper) buffer() []byte {
	if k.scratch == nil {
		if k.scratch = mapBuffer(bufferSize); k.scratch == nil {
			k.scratch = make([]byte, bufferSize)
		}
	}
	return k.scratch
}

// idleAfter is how long nothing must happen before memory is given back.
const idleAfter = 2 * time.Second

// tickEvery is how often time limits are looked at while there are any.
const tickEvery = time.Second

// run is the keeper's life from the payload's birth on.
func (k *keeper) run() {
	next := time.Now().Add(tickEvery)
	for !k.done() {
		wait := time.Duration(-1)
		ticking := k.ticking()
		switch {
		case ticking:
			wait = time.Until(next)
			if !k.deadline.IsZero() {
				wait = min(wait, time.Until(k.deadline))
			}
			wait = max(wait, 0)
		case k.busy:
			wait = idleAfter
		}
		resumes := k.resumes()
		if left := max(time.Until(resumes), 0); !resumes.IsZero() && (wait < 0 || left < wait) {
			wait = left
		}
		n := k.once(wait)
		if n > 0 {
			k.busy = true
		}
		now := time.Now()
		k.wake(now)
		if ticking && (!now.Before(next) || k.late(now)) {
			next = now.Add(tickEvery)
			k.tick(now)
		}
		if n == 0 && k.busy && !ticking && resumes.IsZero() {
			k.giveBack()
		}
	}
}

func (k *keeper) giveBack() {
	unmapBuffer(k.scratch)
	k.scratch, k.busy = nil, false
	if k.machine != nil {
		k.machine.rest()
	}
	if k.litter {
		k.litter = false
		debug.FreeOSMemory()
	}
}

// done tells whether nobody needs the keeper any more.
func (k *keeper) done() bool {
	return k.phase == over && (k.failed || len(k.main.clients) == 0 && len(k.execs) == 0 && len(k.conns) == 0 && (k.machine == nil || len(k.machine.console.clients) == 0))
}

// ticking tells whether some time limit is running.
func (k *keeper) ticking() bool {
	if k.main.waits() || k.machine != nil && (k.machine.console.waits() || k.machine.calls() || k.machine.room.stalled) || !k.deadline.IsZero() || k.phase == over {
		return true
	}
	for _, x := range k.execs {
		if x.phase != execRunning || x.waits() {
			return true
		}
	}
	for _, c := range k.conns {
		if c.asked == "" {
			return true
		}
	}
	return false
}

func (k *keeper) tick(now time.Time) {
	k.main.tick(now)
	if k.machine != nil {
		k.machine.console.tick(now)
		k.machine.call(now)
		k.machine.try(now)
	}
	for _, x := range append([]*execution(nil), k.execs...) {
		x.tick(now)
	}
	for _, c := range append([]*conn(nil), k.conns...) {
		if c.asked == "" && now.After(c.until) {
			c.close()
		}
	}
	if k.phase != over && k.late(now) {
		k.deadline = time.Time{}
		k.kill()
	}
}

// late tells whether the payload should be over by now.
func (k *keeper) late(now time.Time) bool { return !k.deadline.IsZero() && !now.Before(k.deadline) }

// fail ends a start that went wrong: the daemon is told why, the payload killed.
func (k *keeper) fail(f *wire.Failure) {
	if k.phase > starting || k.failed {
		return
	}
	k.failed = true
	if k.daemon >= 0 {
		sendJSON(k.daemon, wire.Message{Type: wire.Failed, Fault: f})
		k.close(&k.daemon)
	}
	k.kill()
}

// kill ends the payload at once.
func (k *keeper) kill() {
	if k.main.pidfd >= 0 {
		unix.PidfdSendSignal(k.main.pidfd, unix.SIGKILL, nil, 0)
	}
}

// begin is the moment in which the main program runs.
func (k *keeper) begin() {
	k.phase = running
	if k.notify < 0 && (k.machine == nil || !k.spec.System || k.spec.Machine.Alone) {
		k.ready = true
	}
	if err := writeFile(k.spec.StatusFile, k.status()); err != nil {
		// The run goes on, and the control socket tells the same. What is lost is the
		// pid for a daemon that finds that mute.
		k.spec.StatusFile = ""
	}
	if k.daemon >= 0 {
		sendJSON(k.daemon, wire.Message{Type: wire.Started, PID: k.pid})
		k.close(&k.daemon)
	}
	k.main.start()
	k.tell()
}

func (k *keeper) status() wire.Status {
	return wire.Status{
		ID: k.spec.ID, KeeperPID: unix.Getpid(), PID: k.pid, StartTime: k.started,
		Running: k.phase >= running, Ready: k.ready, Told: k.machine != nil && k.told != nil && k.phase == running,
		Stalled: k.machine != nil && k.machine.room.stalled, LogLost: k.log.Lost(), Ended: k.exit,
	}
}

// daemonSocket hears the daemon during the start.
type daemonSocket struct{ k *keeper }

func (d daemonSocket) ready(uint32) {
	k := d.k
	b := k.buffer()
	n, fd, err := receivePacket(k.daemon, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	defer func() { discard(fd) }()
	var m wire.Message
	if err != nil || n == 0 || json.Unmarshal(b[:n], &m) != nil {
		m.Type = ""
	}
	switch {
	case m.Type == wire.Take && k.phase == waiting && m.Take != nil:
		client := fd
		fd = -1
		f := k.take(m.Take, client)
		if f == nil {
			if err := sendJSON(k.daemon, wire.Message{Type: wire.Took}); err != nil {
				f = internal("tell the daemon", err)
			}
		}
		if f != nil {
			k.fail(f)
		}
	case m.Type == wire.Go && k.phase == waiting:
		k.phase = starting
		if k.machine != nil && k.spec.Machine.Alone {
			k.begin()
			return
		}
		if k.machine != nil {
			k.machine.start() // QEMU runs already, and its agent may have started
			return
		}
		err := sendJSON(k.payload, wire.Message{Type: wire.Go})
		if err != nil && !k.ending() { // its end says more than that it cannot be reached
			k.fail(internal("tell the payload to start", err))
		}
	case m.Type == wire.Abort || k.phase == waiting || k.machine != nil && k.phase == starting:
		k.fail(&wire.Failure{Kind: "internal", Message: "the start was given up"})
	default:
		// The daemon died after its go: the start goes on without it.
		k.close(&k.daemon)
	}
}

// maxSaid bounds what a payload may say in all: it needs a handful.
const maxSaid = 64

// payloadSocket hears the payload.
type payloadSocket struct{ k *keeper }

func (p payloadSocket) ready(uint32) {
	k := p.k
	b := k.buffer()
	n, fd, err := receivePacket(k.payload, b[:wire.MaxMessage])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	k.said++
	k.litter = true
	if err != nil || n == 0 || k.said > maxSaid {
		discard(fd)
		k.close(&k.payload)
		return
	}
	m, ok := parseMessage(b[:n])
	if !ok {
		discard(fd)
		return
	}
	k.hear(m, fd)
}

// ending tells whether the payload, which has closed its socket, is at its end:
// the kernel closes a dying process's files before it says that it is dead.
func (k *keeper) ending() bool {
	const within = 100 * time.Millisecond
	for end := time.Now().Add(within); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(k.main.pidfd), Events: unix.POLLIN}}, max(0, int(time.Until(end).Milliseconds())))
		if err != unix.EINTR || time.Now().After(end) { // a child's end interrupts it
			return err == nil && n == 1
		}
	}
}

// hear acts on a message of the payload; fd is -1 or becomes the callee's.
func (k *keeper) hear(m wire.Message, fd int) {
	switch {
	case m.Type == wire.TTY && fd >= 0 && k.spec.TTY && k.phase <= starting && k.main.peer < 0:
		if k.main.terminal(fd) == nil {
			return
		}
	case m.Type == wire.Notify && fd >= 0 && k.phase <= running && k.notify < 0 && !k.ready:
		if checkDatagram(fd) == nil {
			k.notify = fd
			k.want(fd, readable, notifySocket{k})
			return
		}
	case m.Type == wire.Started && k.phase == starting && k.machine == nil:
		k.begin()
		if fd >= 0 && checkProcess(fd, k.pid) == nil {
			k.main.inner = fd
			return
		}
	case m.Type == wire.Failed && k.phase == starting:
		k.fail(bounded(m.Fault))
	case m.Type == wire.Ended && k.phase == running && k.told == nil:
		k.told = &m.Status
		k.deadline = time.Now().Add(endGrace)
	}
	discard(fd)
}

// endGrace is how long a payload may take to end after it told how its main
// program did.
const endGrace = 10 * time.Second

// payloadEnd is the payload's pidfd.
type payloadEnd struct{ k *keeper }

func (e payloadEnd) ready(uint32) {
	k := e.k
	var ws unix.WaitStatus
	pid, err := unix.Wait4(k.pid, &ws, unix.WNOHANG, nil)
	if err == unix.EINTR || err == nil && pid == 0 {
		return
	}
	k.end(ws)
}

// end is the end of the run; ws is the payload's own wait status.
func (k *keeper) end(ws unix.WaitStatus) {
	// What it said before its end may still be on the socket.
	for k.payload >= 0 && k.said <= maxSaid {
		before := k.said
		payloadSocket.ready(payloadSocket{k}, 0)
		if k.said == before {
			break
		}
	}
	k.close(&k.payload)
	k.close(&k.notify)
	k.close(&k.main.pidfd)
	k.close(&k.main.inner)
	k.deadline = time.Time{}
	if k.machine != nil {
		k.machine.drain()
	}
	if k.phase <= starting && !k.failed && k.told != nil {
		k.begin() // its program ran, and was over before the daemon's go was heard
	}
	if k.phase <= starting && !k.failed && k.machine != nil {
		k.fail(k.machine.failure(ws))
	}
	if k.phase <= starting && !k.failed {
		k.fail(&wire.Failure{Kind: "internal", Message: "the payload ended before it started: " + describe(ws) + k.main.lastWords()})
	}
	k.close(&k.daemon)
	k.phase = over
	for _, x := range append([]*execution(nil), k.execs...) {
		if x.far != nil {
			x.lost()
			continue
		}
		x.kill()
	}
	if k.machine != nil {
		defer k.machine.close()
	}
	if k.failed {
		k.main.abandon()
		k.leave()
		return
	}
	if k.exit == nil {
		k.conclude(ws)
	}
	k.leave()
	k.tell()
}

// drop ends a machine whose main program has ended, and is that end at once: nobody wants
// what its system would still write out.
func (k *keeper) drop() {
	k.kill()
	k.conclude(0)
	k.tell()
}

// conclude tells how the run ended; ws is the payload's own wait status, where it did not
// say how its main program had ended.
func (k *keeper) conclude(ws unix.WaitStatus) {
	if k.told != nil {
		ws = unix.WaitStatus(*k.told)
	}
	var exit wire.ExitRecord
	if k.machine != nil {
		exit = k.machine.exitRecord(ws, k.told != nil)
	} else {
		exit = k.exitRecord(ws)
	}
	k.main.finish(stream.ExitPayload(stream.Ended{Status: uint8(exit.Status), Signal: uint8(exit.Signal), OOM: exit.OOM}))
	exit.At = time.Now().UnixNano()
	k.exit = &exit
	writeFile(k.spec.ExitFile, exit) // a record that cannot be kept is still told
	k.log.Close()
}

// leave takes the control socket away: who comes now finds the exit record.
func (k *keeper) leave() {
	if k.control >= 0 {
		unix.Unlink(k.spec.Socket)
		k.close(&k.control)
	}
}
