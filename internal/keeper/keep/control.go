package keep

import (
	"encoding/json"
	"time"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

const (
	// maxConns bounds the connections to the control socket.
	maxConns = 128
	// askWithin is how long a connection may say nothing.
	askWithin = 5 * time.Second
)

// The operations of a Request.
const (
	opStatus  = "status"
	opWatch   = "watch"
	opAttach  = "attach"
	opExec    = "exec"
	opSignal  = "signal"
	opConsole = "console"
	opDrop    = "drop"
)

// controlSocket is where daemons connect.
type controlSocket struct{ k *keeper }

func (s controlSocket) ready(uint32) {
	k := s.k
	k.litter = true
	fd, _, err := unix.Accept4(k.control, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || peer.Uid != 0 && int(peer.Uid) != unix.Geteuid() {
		unix.Close(fd)
		return
	}
	if len(k.conns) >= maxConns {
		sendJSON(fd, wire.Reply{Fault: busy("the keeper has too many connections")})
		unix.Close(fd)
		return
	}
	c := &conn{k: k, fd: fd, until: time.Now().Add(askWithin)}
	k.conns = append(k.conns, c)
	k.want(fd, readable, c)
}

// conn is one connection to the control socket.
type conn struct {
	k     *keeper
	fd    int
	asked string // the operation that it waits for the end of; "": it has not asked
	knows news   // a watcher
	until time.Time
}

// news is what a watcher is told as soon as it changes.
type news struct{ ready, told, stalled bool }

func newsOf(st wire.Status) news { return news{st.Ready, st.Told, st.Stalled} }

func (c *conn) ready(uint32) {
	b := c.k.buffer()
	n, fd, err := receivePacket(c.fd, b[:wire.MaxMessage])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil || n == 0:
		closeFD(fd)
		c.close()
	case c.asked != "":
		// It has asked already; only its end is of interest.
		closeFD(fd)
	default:
		r, fault := parseRequest(b[:n])
		if fault != nil {
			closeFD(fd)
			c.answer(wire.Reply{Fault: fault})
			return
		}
		c.serve(r, fd)
	}
}

// parseRequest reads a request and checks what does not depend on the run.
func parseRequest(b []byte) (r wire.Request, f *wire.Failure) {
	if err := json.Unmarshal(b, &r); err != nil {
		return wire.Request{}, invalid("op", "the request is no JSON of a request: "+err.Error())
	}
	switch r.Op {
	case opStatus, opWatch, opAttach, opConsole, opDrop:
	case opSignal:
		if r.Signal < 1 || r.Signal > 64 {
			return r, invalid("signal", "a signal is a number from 1 to 64")
		}
	case opExec:
		switch {
		case r.Exec == nil || len(r.Exec.Process.Args) == 0 || r.Exec.Process.Args[0] == "":
			return r, invalid("command", "the command is empty")
		case len(r.Exec.Join) > maxJoin:
			return r, invalid("join", "too many groups to join")
		}
	default:
		return r, invalid("op", "the keeper knows status, watch, attach, exec, signal, console and drop")
	}
	return r, nil
}

// serve answers a request; fd is -1 or becomes the callee's.
func (c *conn) serve(r wire.Request, fd int) {
	k := c.k
	needs := r.Op == opAttach || r.Op == opExec || r.Op == opConsole
	if needs != (fd >= 0) {
		closeFD(fd)
		c.answer(wire.Reply{Fault: invalid("op", "attach, exec and console come with one descriptor, the others with none")})
		return
	}
	if (k.phase == over || k.exit != nil) && r.Op != opStatus && r.Op != opWatch {
		closeFD(fd)
		c.answer(wire.Reply{Fault: conflict("the program has ended")})
		return
	}
	st := k.status()
	reply := wire.Reply{Status: &st}
	switch r.Op {
	case opWatch:
		c.asked, c.knows = opWatch, newsOf(st)
		if sendJSON(c.fd, reply) != nil {
			c.close()
		}
		return
	case opSignal:
		if err := k.main.signal(r.Signal); err == unix.EAGAIN {
			reply = wire.Reply{Fault: busy("the machine does not take the signal; is it paused?")}
		} else if err == unix.EOPNOTSUPP {
			reply = wire.Reply{Fault: &wire.Failure{
				Kind: "unable", Field: "signal", Message: "process 1 of an environment cannot be stopped", Hint: "`strata pause` holds all of its programs",
			}}
		} else if err != nil {
			reply = wire.Reply{Fault: internal("signal the program", err)}
		}
	case opDrop:
		if !st.Told {
			reply = wire.Reply{Fault: conflict("the program has not ended")}
			break
		}
		c.asked = opDrop
		k.drop()
	case opAttach, opConsole:
		p := &k.main
		if r.Op == opConsole {
			if k.machine == nil {
				closeFD(fd)
				reply = wire.Reply{Fault: &wire.Failure{Kind: "unable", Message: "there is no console"}}
				break
			}
			p = &k.machine.console
		}
		if err := p.join(fd, false); err != nil {
			closeFD(fd)
			reply = wire.Reply{Fault: joinFault(err)}
			break
		}
		// The answer comes before the first frame.
		c.answer(reply)
		p.refresh()
		return
	case opExec:
		if k.phase != running {
			closeFD(fd)
			reply = wire.Reply{Fault: conflict("the program does not run yet")}
			break
		}
		c.asked = opExec
		if fault := k.execute(c, *r.Exec, fd); fault != nil {
			closeFD(fd)
			reply = wire.Reply{Fault: fault}
			break
		}
		return
	}
	c.answer(reply)
}

// answer replies and ends the connection.
func (c *conn) answer(r wire.Reply) {
	sendJSON(c.fd, r)
	c.close()
}

func (c *conn) close() {
	c.k.close(&c.fd)
	for i, other := range c.k.conns {
		if other == c {
			c.k.conns = append(c.k.conns[:i], c.k.conns[i+1:]...)
			return
		}
	}
}

// tell tells the watchers what is new, the end of the run too. At the end it also sends away whoever has not asked yet.
func (k *keeper) tell() {
	st := k.status()
	for _, c := range append([]*conn(nil), k.conns...) {
		switch {
		case c.asked == opWatch && k.exit != nil:
			c.answer(wire.Reply{Status: &st})
		case c.asked == opWatch && c.knows != newsOf(st):
			c.knows = newsOf(st)
			if sendJSON(c.fd, wire.Reply{Status: &st}) != nil {
				c.close()
			}
		case c.asked == "" && k.exit != nil:
			c.answer(wire.Reply{Status: &st, Fault: conflict("the program has ended")})
		}
	}
}

// closeFD closes a descriptor of the daemon's, which is trusted.
func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

func joinFault(err error) *wire.Failure {
	if err == unix.EBUSY {
		return busy("64 clients are attached already")
	}
	return invalid("attach", "the descriptor is no stream socket")
}

func invalid(field, message string) *wire.Failure {
	return &wire.Failure{Kind: "invalid", Field: field, Message: message}
}

func busy(message string) *wire.Failure     { return &wire.Failure{Kind: "busy", Message: message} }
func conflict(message string) *wire.Failure { return &wire.Failure{Kind: "conflict", Message: message} }
