package stratum

import "context"

// Lister tells which processes a run has.
type Lister interface {
	// Processes lists the environment's processes, strata's own in it included, and
	// tells whether there are more than are listed. Kinds: Busy where who is to be
	// asked does not answer in time, Conflict where it cannot because it is paused.
	Processes(ctx context.Context) (list []Task, more bool, err error)
}

// Task is one process of a run. What it says of itself is bounded and printable.
type Task struct {
	PID     int    // inside
	Parent  int    // inside; 0 where it has none there
	HostPID int    // 0 where the host knows none
	User    string // as inside: a name, or a number that has none
	CPU     int64  // nanoseconds
	Age     int64  // nanoseconds
	Memory  int64  // bytes resident
	Command string
}
