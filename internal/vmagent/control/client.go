package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Patience is how long a call may take whose context has no deadline.
const Patience = 10 * time.Second

// Bounds of what an agent says. Units: bytes, entries.
const (
	maxText      = 4 << 10
	maxFaults    = 64
	maxUser      = 64
	maxCommand   = 1 << 10
	MaxProcesses = 4096
)

// Client is a session with one agent. It is safe for concurrent use.
type Client struct {
	conn *ttrpc.Client
	ask  AgentService
}

// What ttrpc has to say is of what the agent has sent, as often as that likes; it is
// nothing for the daemon's log.
func init() { _ = log.SetLevel(log.PanicLevel.String()) } // a level that there is

// Dial meets the agent whose control port is the unix socket path.
// Kinds: Busy where it does not answer before ctx ends, Unable.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, away(ctx, err)
	}
	return New(ctx, conn)
}

// New meets the agent at the other end of conn, which is the client's from here on.
// ctx bounds the meeting only.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	if _, ok := ctx.Deadline(); !ok {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, Patience)
		defer end()
	}
	if err := meet(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	c := ttrpc.NewClient(&answering{Conn: conn})
	return &Client{conn: c, ask: NewAgentClient(c)}, nil
}

// Close ends the session; what runs inside goes on.
func (c *Client) Close() error { return c.conn.Close() }

// Info says who the agent is, and what its system is doing.
func (c *Client) Info(ctx context.Context) (*InfoResponse, error) {
	r, err := call(ctx, c.ask.Info, &InfoRequest{})
	if err != nil {
		return nil, err
	}
	r.Version, r.Kernel = plain(r.Version), plain(r.Kernel)
	r.Faults = r.Faults[:min(len(r.Faults), maxFaults)]
	for i, f := range r.Faults {
		r.Faults[i] = plain(f)
	}
	return r, nil
}

// Run puts the environment together and starts it. It returns once the agent has
// done all but the main program's execution, of which the streams port tells. After
// the run of a system the agent is another process: this client is of no more use,
// and the next one is to be dialled. Kinds: those of the failure inside.
func (c *Client) Run(ctx context.Context, run spec.Run) error {
	text, err := json.Marshal(run)
	if err != nil {
		return fault.Internalf("write the specification of a run: %w", err)
	}
	if len(text) > spec.MaxSize-1024 {
		return fault.Invalidf("the specification of a run has %d bytes", len(text)).Help("at most 4 MiB go to an environment at its start")
	}
	r, err := call(ctx, c.ask.Run, &RunRequest{Spec: text})
	if err != nil {
		return err
	}
	return faultOf(r.Failure)
}

// SetLimits changes the environment's limits.
func (c *Client) SetLimits(ctx context.Context, l spec.Limits) error {
	return done(call(ctx, c.ask.SetLimits, &SetLimitsRequest{Memory: l.Memory, Pids: l.PIDs, Processors: int64(l.Processors), Whole: l.Whole}))
}

// Stats says what the environment's programs use.
func (c *Client) Stats(ctx context.Context) (spec.Stats, error) {
	r, err := call(ctx, c.ask.Stats, &StatsRequest{})
	if err == nil {
		err = faultOf(r.Failure)
	}
	if err != nil {
		return spec.Stats{}, err
	}
	return spec.Stats{
		CPU: max(0, r.Cpu), Memory: max(0, r.Memory), MemoryPeak: max(0, r.MemoryPeak), OOMKills: max(0, r.OomKills), PIDs: max(0, r.Pids),
		MemoryHits: max(0, r.MemoryHits), Swap: max(0, r.Swap), PIDsPeak: max(0, r.PidsPeak), PIDsHits: max(0, r.PidsHits),
		DiskSize: max(0, r.DiskSize), DiskFree: max(0, r.DiskFree),
	}, nil
}

// Processes lists the environment's processes, MaxProcesses at most, and tells
// whether there are more.
func (c *Client) Processes(ctx context.Context) (list []*Process, more bool, err error) {
	r, err := call(ctx, c.ask.Processes, &ProcessesRequest{})
	if err == nil {
		err = faultOf(r.Failure)
	}
	if err != nil {
		return nil, false, err
	}
	list = r.Processes[:min(len(r.Processes), MaxProcesses)]
	for _, p := range list {
		p.User, p.Command = cut(p.User, maxUser), cut(p.Command, maxCommand)
		p.Cpu, p.Memory, p.Age = max(0, p.Cpu), max(0, p.Memory), max(0, p.Age)
	}
	return list, r.More || len(list) < len(r.Processes), nil
}

// SetClock sets the system's clock.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	return done(call(ctx, c.ask.SetClock, &SetClockRequest{Now: now.UnixNano()}))
}

// Freeze makes the private disk whole and holds up who writes to it, until Thaw.
func (c *Client) Freeze(ctx context.Context) error {
	return done(call(ctx, c.ask.Freeze, &FreezeRequest{}))
}

// Thaw undoes Freeze. Thawing what is not frozen is not an error.
func (c *Client) Thaw(ctx context.Context) error {
	return done(call(ctx, c.ask.Thaw, &ThawRequest{}))
}

// Shutdown writes everything out and switches the system off. That the answer got
// lost with the system is not an error.
func (c *Client) Shutdown(ctx context.Context) error {
	err := done(call(ctx, c.ask.Shutdown, &ShutdownRequest{}))
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil
	}
	return err
}

// GrowDisk has the private disk's file system become as large as its device, which has
// become size bytes long. That may take longer than Patience.
func (c *Client) GrowDisk(ctx context.Context, size int64) error {
	return done(call(ctx, c.ask.GrowDisk, &GrowDiskRequest{Size: size}))
}

// KernelLog returns the end of the kernel's log, as dmesg prints it.
func (c *Client) KernelLog(ctx context.Context) ([]byte, error) {
	r, err := call(ctx, c.ask.KernelLog, &KernelLogRequest{})
	if err != nil {
		return nil, err
	}
	return r.Text, faultOf(r.Failure)
}

// call asks with a deadline and tells whose fault it is where there is no answer.
func call[Q, A any](ctx context.Context, f func(context.Context, Q) (A, error), request Q) (A, error) {
	if _, ok := ctx.Deadline(); !ok {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, Patience)
		defer end()
	}
	answer, err := f(ctx, request)
	if err == nil {
		return answer, nil
	}
	var none A
	switch {
	case ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return none, fault.Busyf("the agent inside did not answer in time")
	case status.Code(err) == codes.Unimplemented:
		return none, fault.Unablef("the agent inside is of another version: %s", plain(err.Error())).Help("start the environment again")
	}
	return none, fault.Unablef("the agent inside cannot be asked: %w", broken{err})
}

// broken is what ended a session. Its words may be the agent's own.
type broken struct{ error }

func (b broken) Error() string { return plain(b.error.Error()) }
func (b broken) Unwrap() error { return b.error }

// Broken tells whether err means that the session is over, and that another one
// may do.
func Broken(err error) bool { return errors.As(err, new(broken)) }

func done(r *Done, err error) error {
	if err != nil {
		return err
	}
	return faultOf(r.Failure)
}

// faultOf is what a failure inside means to whoever asked.
func faultOf(f *Failure) error {
	if f == nil {
		return nil
	}
	kind, _ := fault.ParseKind(f.Kind) // a word that is not known is Internal
	e := fault.New(kind, "%s", plain(f.Message)).At(plain(f.Field))
	if f.Hint != "" {
		e = e.Help("%s", plain(f.Hint))
	}
	return e
}

// plain makes a text of the agent's fit to be printed: bounded, and without
// control characters.
func plain(s string) string { return cut(s, maxText) }

// cut is plain with a bound of its own.
func cut(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
