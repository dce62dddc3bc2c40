package keep

import (
	"time"

	"github.com/strata-project/strata/internal/vmagent/port"
)

// A serial port loses what comes before the agent has opened it, and tells nobody that it
// has. So the agent is called again until it answers, each time by another number: an
// answer to an earlier call is none, since a later one starts the agent anew. One that is
// slow gets more time with each call. Nothing else is said before: no client is heard
// until the main program has started.
const (
	callFirst = time.Second
	callMost  = 30 * time.Second
)

// calling is how the agent is met over a serial port.
type calling struct {
	next time.Time     // when it is called again
	wait time.Duration // from then to the next time
}

// calls tells whether the agent is called until it answers.
func (m *machine) calls() bool { return m.k.spec.Machine.Serial && !m.met && m.streams >= 0 }

// call calls the agent again where it is time.
func (m *machine) call(now time.Time) {
	c := &m.calling
	if !m.calls() || now.Before(c.next) {
		return
	}
	m.number++
	m.say(port.Hello, 0, port.HelloPayload(m.number))
	c.wait = min(max(2*c.wait, callFirst), callMost)
	c.next = now.Add(c.wait)
}
