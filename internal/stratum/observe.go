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

// Counter tells what a run holds and has used.
type Counter interface {
	// Sample reads what the host counts, and asks nobody inside; ok is false where
	// the run is over.
	Sample() (s Sample, ok bool)
	// Counts reads all that is counted, also inside.
	Counts(ctx context.Context) (Counts, error)
}

// Sample is what the host counts of a run. What it does not count is 0.
type Sample struct {
	CPU       int64 // nanoseconds
	Throttled int64 // nanoseconds
	Memory    int64 // bytes
	Processes int64 // with threads; at a stratum with a kernel of its own, the host's
	Read      int64 // bytes from disks
	Written   int64 // bytes to disks
}

// Spacer tells how much room the root file system of a run has.
type Spacer interface {
	// Space asks what runs inside it, which may be hostile: it may never return. ok is
	// false where the run is over.
	Space() (s Space, ok bool)
}

// Grouped is a run in a control group.
type Grouped interface {
	// GroupName is what the group is called: the id, but where the run was started before
	// it was known for whom.
	GroupName() string
}

// Staller is a run that may stand still for want of room on the host.
type Staller interface {
	// Stalled tells whether it does. It goes on by itself once there is room.
	Stalled() bool
	// Stalls is sent to when that changes, for one who listens.
	Stalls() <-chan struct{}
}

// Space is of a file system. Unit: bytes.
type Space struct{ Size, Free int64 }

// Unknown is a figure that nobody counts here.
const Unknown = -1

// Counts are counters as beancounters had them.
type Counts struct {
	Memory     Count // of the environment's programs. Unit: bytes
	Swap       Count // Unit: bytes
	Processes  Count // of the environment, with threads
	HostMemory Count // what the host spends, strata's own share included. Unit: bytes

	CPU       int64 // nanoseconds
	Throttled int64 // nanoseconds
	Throttles int64 // how often it was held up
	Read      int64 // bytes from disks
	Written   int64 // bytes to disks
	Kills     int64 // of processes, for want of memory

	Pressure map[string]Pressure
	Silent   string // why what is counted inside is not known
}

// Count is one resource: held now, most held since the start, the limit (0: none)
// and how often it was hit.
type Count struct {
	Held, Most, Limit, Hits int64
}

// NotCounted is a Count that nobody keeps.
var NotCounted = Count{Unknown, Unknown, 0, Unknown}

// Pressure is how much of the last 10 seconds something in it, or all of it at
// once, waited for a resource. Unit: percent.
type Pressure struct {
	Some, Full float64
}
