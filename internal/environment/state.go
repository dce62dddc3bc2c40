package environment

import (
	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// State is what an environment is doing, as the engine sees it.
type State uint8

// The states; the package's comment says what each is.
const (
	Made State = iota
	Starting
	Running
	Paused
	Stopping
	Waiting
	Stopped
	Suspended
	Removing
	Gone
	states // how many there are
)

// Event is what happens to an environment.
type Event uint8

// The events. Start to Remove are asked for; the others are facts.
const (
	Start   Event = iota // somebody, or the restart policy, wants it to run
	Pause                // it was held still
	Resume               // it goes on
	Stop                 // its end was asked for
	Remove               // it is to go
	Started              // the driver says that it runs
	Failed               // the driver could not start it
	Ended                // the run is over, and that is all
	Again                // the run is over (or could not be started), and the policy wants another
	Vanish               // its record is gone
	Keep                 // its record could not be removed
	Suspend              // it is written down as a whole, and its run ends
	Back                 // what was suspended did not go on, and is as it was
	events               // how many there are
)

var stateNames = [states]struct {
	word   string
	public api.State
}{
	Made:      {"created", api.Created},
	Starting:  {"starting", api.Starting},
	Running:   {"running", api.Running},
	Paused:    {"paused", api.Paused},
	Stopping:  {"stopping", api.Stopping},
	Waiting:   {"waiting to start again", api.Starting},
	Stopped:   {"stopped", api.Stopped},
	Suspended: {"suspended", api.Suspended},
	Removing:  {"being removed", api.Removing},
	Gone:      {"removed", api.Removing},
}

// String returns the state in words for a message.
func (s State) String() string { return stateNames[s].word }

// Public returns the state as users see it.
func (s State) Public() api.State { return stateNames[s].public }

// Live tells whether a driver has a run of it.
func (s State) Live() bool { return s == Running || s == Paused || s == Stopping }

// Active tells whether it runs or is about to: what `ls` shows without --all.
func (s State) Active() bool { return s.Live() || s == Starting || s == Waiting }

// Going tells whether it is being removed, or was.
func (s State) Going() bool { return s == Removing || s == Gone }

// moves is the state table: every legal move is a row, and nothing else is legal.
var moves = []struct {
	from  State
	event Event
	to    State
}{
	{Made, Start, Starting},
	{Stopped, Start, Starting},
	{Waiting, Start, Starting},

	{Starting, Started, Running},
	{Starting, Failed, Stopped},
	{Starting, Again, Waiting},

	{Running, Pause, Paused},
	{Paused, Resume, Running},

	{Running, Stop, Stopping},
	{Paused, Stop, Stopping},
	{Waiting, Stop, Stopped},

	{Running, Ended, Stopped},
	{Paused, Ended, Stopped},
	{Stopping, Ended, Stopped},
	{Running, Again, Waiting},
	{Paused, Again, Waiting},
	{Stopped, Again, Waiting}, // found over by a new daemon

	{Running, Suspend, Suspended},
	{Paused, Suspend, Suspended},
	{Suspended, Start, Starting},
	{Starting, Back, Suspended},
	{Suspended, Stop, Stopped}, // what was in its memory is given up
	{Suspended, Remove, Removing},

	{Made, Remove, Removing},
	{Stopped, Remove, Removing},
	{Removing, Vanish, Gone},
	{Removing, Keep, Stopped},
}

// wants gives words to the state that an event asks for.
var wants = [events]struct{ verb, to string }{
	Start:   {"started", "starting"},
	Pause:   {"paused", "paused"},
	Resume:  {"resumed", "running"},
	Stop:    {"stopped", "stopping"},
	Remove:  {"removed", "being removed"},
	Started: {"marked as running", "running"},
	Failed:  {"marked as not started", "stopped"},
	Ended:   {"marked as ended", "stopped"},
	Again:   {"started again", "waiting to start again"},
	Vanish:  {"forgotten", "removed"},
	Keep:    {"kept", "stopped"},
	Suspend: {"suspended", "suspended"},
	Back:    {"put back", "suspended"},
}

// hints say what to do where an event asked for by a user is refused.
var hints = map[Event]map[State]string{
	Start:   {Running: "it needs no start", Paused: "resume it", Stopping: "wait until it has stopped, or kill it"},
	Remove:  {Running: "stop it first, or remove it by force: strata rm -f", Paused: "stop it first, or remove it by force: strata rm -f", Starting: "stop it first, or remove it by force: strata rm -f", Stopping: "wait until it has stopped, or remove it by force: strata rm -f", Waiting: "stop it first, or remove it by force: strata rm -f"},
	Resume:  {Running: "it is not paused", Stopped: "start it", Made: "start it"},
	Suspend: {Stopped: "start it first", Made: "start it first", Suspended: "`strata resume` goes on with it"},
	Pause:   {Stopped: "start it first", Made: "start it first", Suspended: "`strata resume` goes on with it", Paused: "`strata resume` goes on with it"},
}

// Next returns the state that event leads to from s.
// Kinds: Conflict where the table has no such move; the message names both states.
func (s State) Next(event Event) (State, error) {
	for _, m := range moves {
		if m.from == s && m.event == event {
			return m.to, nil
		}
	}
	w := wants[event]
	refusal := fault.Conflictf("it is %s and cannot be %s (from %q to %q is no move)", s, w.verb, s.String(), w.to)
	if hint := hints[event][s]; hint != "" {
		refusal = refusal.Help("%s", hint)
	}
	return s, refusal
}
