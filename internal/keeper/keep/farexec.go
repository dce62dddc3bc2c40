package keep

import (
	"encoding/json"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// execute starts a program inside the machine; see keeper.execute.
func (m *machine) execute(c *conn, e wire.Exec, fd int) *wire.Failure {
	if m.alone() && !m.met {
		return &wire.Failure{Kind: "unable", Message: "no agent answers inside"}
	}
	if len(m.k.execs) >= maxExecs {
		return busy("64 programs run by exec in this environment already")
	}
	process, err := json.Marshal(e.Process)
	if err != nil || len(process) > port.MaxPayload {
		return invalid("command", "the command and its environment are too long")
	}
	x := &execution{report: -1, sync: -1, asker: c, phase: execStarting, deadline: time.Now().Add(startWithin)}
	x.program.init(m.k)
	x.program.x, x.owned, x.tty, x.pace = x, true, e.Process.TTY, &m.k.adrift
	if err := x.join(fd, true); err != nil {
		return joinFault(err)
	}
	m.last++
	m.open(&x.program, m.last, e.Process.Stdin)
	x.pid = int(m.last) // it is there until the agent says how it ended
	m.k.execs = append(m.k.execs, x)
	m.say(port.Exec, m.last, process)
	return nil
}

// runs notes that the agent has started the program.
func (x *execution) runs() {
	if x.phase == execRunning || x.failure != nil {
		return
	}
	x.phase = execRunning
	st := x.k.status()
	x.reply(wire.Reply{Status: &st})
	x.start()
}

// ended is the end of a program beyond the port.
func (x *execution) ended(ws unix.WaitStatus, oom bool) {
	x.pid = 0
	if x.phase != execRunning { // it came too late, and was given up
		x.remove()
		return
	}
	e := statusOf(ws)
	x.finish(stream.ExitPayload(stream.Ended{Status: uint8(e.Status), Signal: uint8(e.Signal), OOM: oom}))
	x.remove()
}

// lost is the end of the machine below the program.
func (x *execution) lost() {
	if x.phase != execRunning {
		x.fail(conflict(endedBefore))
		x.pid = 0
		x.remove()
		return
	}
	x.ended(unix.WaitStatus(unix.SIGKILL), false)
}
