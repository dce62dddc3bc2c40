package enginetest

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Host holds the runs, as keepers and the kernel would.
type Host struct {
	// Program, where it is set, is what a main program does: it returns when it
	// ends by itself, or when r.Signalled or r.Killed says so. nil: it sleeps, ends
	// at TERM with 0 and at KILL with 137.
	Program func(r *Run) api.Exit
	// Exec, where it is set, is what a further program does. nil: it ends with 0.
	Exec func(r *Run, p stratum.Process, conn *os.File) error
	// Tasks, where it is set, says which processes a run has. nil: one.
	Tasks func(ctx context.Context, r *Run) ([]stratum.Task, bool, error)
	// Sample, where it is set, says what a run uses. nil: half a processor.
	Sample func(r *Run) stratum.Sample
	// Counts, where it is set, says what a run has counted. nil: a little.
	Counts func(ctx context.Context, r *Run) (stratum.Counts, error)
	// Stats, where it is set, says what a run uses now. nil: a little.
	Stats func(ctx context.Context, r *Run) (api.Stats, error)
	// Stalled, where it is set, says who stands still for want of room on the host.
	Stalled func(r *Run) bool
	// Group, where it is set, says what a run's control group is called. nil: by its id.
	Group func(r *Run) string
	// Fail, where it is set, decides whether a start fails.
	Fail func(p stratum.Plan) error
	// Suspend, where it is set, decides whether a run can be suspended.
	Suspend func(r *Run) error
	// Limit, where it is set, decides whether limits of a run can change.
	Limit func(r *Run) error
	// Slow is how long a start takes.
	Slow time.Duration

	mu     sync.Mutex
	runs   map[string]*Run
	begun  atomic.Int64
	starts atomic.Int64
}

// NewHost returns a host on which nothing runs.
func NewHost() *Host { return &Host{runs: map[string]*Run{}} }

// Starts returns how many runs were started.
func (h *Host) Starts() int { return int(h.starts.Load()) }

// Begun returns how many starts were begun.
func (h *Host) Begun() int { return int(h.begun.Load()) }

// Runs returns the ids that have a run that was not cleaned.
func (h *Host) Runs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := []string{}
	for id := range h.runs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Run returns the run of id, nil where there is none.
func (h *Host) Run(id string) *Run {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.runs[id]
}

// Lose ends the run of id as if its keeper had been killed.
func (h *Host) Lose(id string) {
	r := h.Run(id)
	r.mu.Lock()
	r.lost = true
	r.mu.Unlock()
	r.kill()
	<-r.Ended
}

// Reboot ends everything, and forgets it.
func (h *Host) Reboot() {
	for _, id := range h.Runs() {
		h.Lose(id)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.runs)
}

// Run is one run. Its exported channels are closed or sent on by the host.
type Run struct {
	Plan      stratum.Plan
	Signalled chan syscall.Signal // what Signal sends
	Killed    chan struct{}
	Ended     chan struct{}
	Booted    chan struct{} // closed where it is ready
	Told      chan struct{} // closed by a Program whose end is known before it ends
	Dropped   chan struct{} // closed where it is to end at once
	Stalls    chan struct{} // sent to where Stalled has changed

	pid    int
	once   sync.Once
	mu     sync.Mutex
	exit   api.Exit
	lost   bool
	paused bool
	limits api.Resources

	interrupts int
}

func (r *Run) kill() { r.once.Do(func() { close(r.Killed) }) }

// Paused tells whether it is held still.
func (r *Run) Paused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused
}

// Limits returns the limits that were set while it runs.
func (r *Run) Limits() api.Resources {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

func sleep(r *Run) api.Exit {
	for {
		select {
		case <-r.Killed:
			return api.Exit{Status: 137, Signal: 9}
		case s := <-r.Signalled:
			if s == syscall.SIGTERM {
				return api.Exit{}
			}
		}
	}
}

// Driver starts runs on a Host.
type Driver struct {
	host *Host
	caps stratum.Capability
}

// NewDriver returns a driver at stratum zone with every capability that a stand-in can have.
func NewDriver(h *Host) *Driver {
	return &Driver{host: h, caps: stratum.CanPause | stratum.CanLimit | stratum.CanList | stratum.CanCount | stratum.CanSuspend | stratum.CanReset | stratum.CanInterrupt | stratum.CanGrowDisk}
}

// Plain returns a driver that has no capability.
func Plain(h *Host) *Driver { return &Driver{host: h} }

// Stratum is the depth's name.
func (d *Driver) Stratum() string { return stratum.Zone }

// Capabilities are what it can do beyond a driver.
func (d *Driver) Capabilities() stratum.Capability { return d.caps }

// Start runs the host's Program.
func (d *Driver) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	d.host.begun.Add(1)
	if d.host.Slow > 0 {
		select {
		case <-time.After(d.host.Slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.host.Fail != nil && !p.Idle {
		if err := d.host.Fail(p); err != nil {
			return nil, err
		}
	}
	r := &Run{
		Plan: p, pid: os.Getpid(), Signalled: make(chan syscall.Signal, 16), Killed: make(chan struct{}),
		Ended: make(chan struct{}), Booted: make(chan struct{}), Told: make(chan struct{}), Dropped: make(chan struct{}), Stalls: make(chan struct{}),
	}
	d.host.mu.Lock()
	if d.host.runs[p.ID] != nil {
		d.host.mu.Unlock()
		return nil, fault.Conflictf("%s runs already or was not cleaned", p.ID)
	}
	d.host.runs[p.ID] = r
	d.host.mu.Unlock()
	if o.Link != nil {
		if err := o.Link.IntoNamespace(ctx, r.pid); err != nil {
			d.host.mu.Lock()
			delete(d.host.runs, p.ID)
			d.host.mu.Unlock()
			return nil, err
		}
	}
	if !p.System {
		close(r.Booted)
	}
	if p.Saved != "" {
		if err := os.RemoveAll(p.Saved); err != nil {
			return nil, err
		}
	}
	d.host.starts.Add(1)
	program := sleep
	if d.host.Program != nil && !p.Idle {
		program = d.host.Program
	}
	go func() {
		exit := program(r)
		exit.At = time.Now()
		r.mu.Lock()
		r.exit = exit
		r.mu.Unlock()
		if o.Attach != nil {
			_ = stream.Write(o.Attach, stream.Exit, stream.ExitPayload(stream.Ended{Status: uint8(exit.Status), Signal: uint8(exit.Signal), OOM: exit.OOM}))
		}
		close(r.Ended)
	}()
	return d.live(r), nil
}

func (d *Driver) live(r *Run) stratum.Live {
	if d.caps == 0 {
		return plain{r, d.host}
	}
	return live{plain{r, d.host}}
}

// Adopt finds a run that lives.
func (d *Driver) Adopt(_ context.Context, id string) (stratum.Live, error) {
	if r := d.host.Run(id); r != nil {
		select {
		case <-r.Ended:
		default:
			return d.live(r), nil
		}
	}
	return nil, fault.Missingf("nothing of %s runs", id)
}

// Clean forgets a run that is over.
func (d *Driver) Clean(_ context.Context, id string) (*api.Exit, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	r := d.host.runs[id]
	if r == nil {
		return nil, nil
	}
	select {
	case <-r.Ended:
	default:
		return nil, fault.Internalf("%s was cleaned while it runs", id)
	}
	delete(d.host.runs, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost {
		return nil, nil
	}
	exit := r.exit
	return &exit, nil
}

// Runs returns the ids that were not cleaned.
func (d *Driver) Runs(context.Context) ([]string, error) { return d.host.Runs(), nil }

// plain is a run without optional capabilities.
type plain struct {
	*Run
	host *Host
}

func (l plain) PID() int               { return l.pid }
func (l plain) KeeperPID() int         { return l.pid + 1 }
func (l plain) Ready() <-chan struct{} { return l.Booted }

func (l plain) Wait(ctx context.Context) (api.Exit, error) {
	select {
	case <-l.Ended:
	case <-ctx.Done():
		return api.Exit{}, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return api.Exit{}, fault.Internalf("the keeper is gone")
	}
	return l.exit, nil
}

func (l plain) Signal(ctx context.Context, sig syscall.Signal) error {
	select {
	case l.Signalled <- sig:
		return nil
	case <-l.Ended:
		return fault.Conflictf("it has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Told implements stratum.Dropper.
func (l plain) Told() <-chan struct{} { return l.Run.Told }

// Drop implements stratum.Dropper.
func (l plain) Drop(context.Context) error {
	close(l.Dropped)
	return nil
}

func (l plain) Kill(context.Context) error {
	l.kill()
	return nil
}

func (l plain) Attach(context.Context, *os.File) error { return nil }

func (l plain) Exec(_ context.Context, p stratum.Process, conn *os.File) error {
	if l.host.Exec != nil {
		return l.host.Exec(l.Run, p, conn)
	}
	return stream.Write(conn, stream.Exit, stream.ExitPayload(stream.Ended{}))
}

// Stalled implements stratum.Staller.
func (l plain) Stalled() bool { return l.host.Stalled != nil && l.host.Stalled(l.Run) }

// Stalls implements stratum.Staller.
func (l plain) Stalls() <-chan struct{} { return l.Run.Stalls }

// GroupName implements stratum.Grouped.
func (l plain) GroupName() string {
	if l.host.Group != nil {
		return l.host.Group(l.Run)
	}
	return l.Plan.ID
}

func (l plain) Stats(ctx context.Context) (api.Stats, error) {
	if l.host.Stats != nil {
		return l.host.Stats(ctx, l.Run)
	}
	return api.Stats{Memory: 1 << 20, PIDs: 1, Time: time.Now()}, nil
}

// live is a run that can be held and limited.
type live struct{ plain }

func (l live) Pause(context.Context) error  { return l.hold(true) }
func (l live) Resume(context.Context) error { return l.hold(false) }

func (l live) hold(paused bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = paused
	return nil
}

func (l live) Processes(ctx context.Context) ([]stratum.Task, bool, error) {
	if l.host.Tasks != nil {
		return l.host.Tasks(ctx, l.Run)
	}
	return []stratum.Task{{PID: 1, HostPID: l.pid, User: "root", CPU: int64(time.Second), Age: int64(4 * time.Second), Memory: 3 << 19, Command: "sleep"}}, false, nil
}

// Sample says that half a processor is used all the time.
func (l live) Sample() (stratum.Sample, bool) {
	select {
	case <-l.Ended:
		return stratum.Sample{}, false
	default:
	}
	if l.host.Sample != nil {
		return l.host.Sample(l.Run), true
	}
	return stratum.Sample{CPU: time.Now().UnixNano() / 2, Memory: 1 << 20, Processes: 2}, true
}

func (l live) Counts(ctx context.Context) (stratum.Counts, error) {
	if l.host.Counts != nil {
		return l.host.Counts(ctx, l.Run)
	}
	return stratum.Counts{Memory: stratum.Count{Held: 1 << 20, Most: 2 << 20, Hits: 3}, Swap: stratum.NotCounted}, nil
}

// GrowDisk makes the file longer.
func (l live) GrowDisk(_ context.Context, image string, size unit.Size) error {
	return os.Truncate(image, int64(size))
}

// MostDisk is what every disk can become.
func (l live) MostDisk(string) (unit.Size, error) { return 64 * unit.GiB, nil }

func (l live) SetLimits(_ context.Context, r api.Resources) error {
	if l.host.Limit != nil {
		if err := l.host.Limit(l.Run); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = r
	return nil
}
