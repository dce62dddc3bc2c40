package engine

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/oom"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Options are what an engine stands on. Places, Drivers, Templates, Pool and
// Network must be set.
type Options struct {
	Places    place.Places
	Drivers   []stratum.Driver
	Templates Templates // FromStore makes one of a *template.Store
	Pool      Pool      // a *disk.Pool
	Network   Network   // FromHost makes one of a *network.Host
	Kernels   Kernels   // FromKernels makes one of a *kernel.Store; nil: there are none
	Layers    Layers    // a *mount.Layers; nil: none are mounted
	Logs      LogReader // nil: ReadLogs
	// Kills tells what the host's kernel kills for want of memory, until ctx ends: see
	// WatchKills; nil: nobody does.
	Kills   func(ctx context.Context, tell func(oom.Kill)) error
	Check   func(context.Context) []api.Finding // what the host can do; nil: nothing to say
	Host    admission.Host                      // what can be guaranteed; the zero value: nothing
	Reserve Reserve                             // where what is the host's own comes from
	Log     *slog.Logger                        // nil: none
	Version string
	Claims  string // folder where roots of one host say which id ranges they use; "": DefaultClaims
}

// Templates is where templates are kept.
type Templates interface {
	// Use runs do with the template that ref names, which is not removed meanwhile.
	Use(ref string, do func(api.Template) error) error
	Get(ref string) (api.Template, error)
	List() []api.Template
	// LayerPath returns the EROFS file of a layer.
	LayerPath(digest string) string
	// Whole returns all layers of a template as one EROFS file, which it makes where it is missing.
	Whole(ctx context.Context, ref string, tell func(api.Progress)) (digest, path string, err error)
	// Busybox makes the built-in template where it is missing.
	Busybox(ctx context.Context) (api.Template, error)
	Tag(ref, name string) error
	// Remove removes one of several names, or all and the template.
	Remove(ref string, all bool, used func(id string) []string) (int64, error)
	Prune(used func(id string) []string, all bool) ([]string, int64, error)
}

// TemplateMoves brings templates in and out. Templates may implement it.
type TemplateMoves interface {
	Pull(ctx context.Context, r api.PullRequest, tell func(api.Progress)) (api.Template, error)
	Import(ctx context.Context, name string, tar io.Reader, tell func(api.Progress)) (api.Template, error)
	// Commit makes a template of base's layers and what differs in the root file system that root
	// writes as a tar; the paths in without stay as base has them. Kind and configuration are like's.
	Commit(ctx context.Context, base string, root func(context.Context, io.Writer) error, like api.Template, name string, without []string, tell func(api.Progress)) (api.Template, error)
	Build(ctx context.Context, r api.BuildRequest, tell func(api.Progress)) (api.Template, error)
	Export(ctx context.Context, ref string, w io.Writer, tell func(api.Progress)) error
	Push(ctx context.Context, ref string, r api.PushRequest, tell func(api.Progress)) error
}

// Pool makes private disks.
type Pool interface {
	Create(ctx context.Context, path string, size unit.Size) error
	Grow(ctx context.Context, path string, size unit.Size) error
	Remove(path string) error
	// Clone copies a disk that nobody has attached; CloneCost says how much it would copy.
	Clone(ctx context.Context, src, dst string) error
	CloneCost(path string) (unit.Size, error)
}

// Network gives environments their addresses and joins them to their network.
type Network interface {
	Addresses
	Networks
}

// Addresses are for life: from Allocate to Release.
type Addresses interface {
	Allocate(ctx context.Context, network, id, name string) (api.Address, error)
	// Reserve takes an address that a record has.
	Reserve(id, name string, a api.Address) error
	Release(ctx context.Context, id string) error
	Rename(ctx context.Context, id, name string) error
	// Connect joins the network namespace of pid, and returns how to undo it.
	Connect(ctx context.Context, id string, pid int, a api.Address, ports []api.Port) (func(context.Context) error, error)
	// ConnectTap joins by a tap device, for a system with its own kernel: by made where
	// that is not nil.
	ConnectTap(ctx context.Context, id string, a api.Address, ports []api.Port, made *os.File) (*stratum.Tap, error)
	// Disconnect takes away what a run that is over left. Twice is no error.
	Disconnect(ctx context.Context, id string) error
	LoopbackOnly(ctx context.Context, pid int) error
	// CheckPort refuses a host port that a program of the host holds.
	CheckPort(ctx context.Context, p api.Port) error
}

// Networks are the bridges.
type Networks interface {
	// Sync makes the host agree with what runs, by id; it is called once, before
	// anything is connected.
	Sync(ctx context.Context, running map[string]Running) error
	// SyncLate does what a Sync that failed could not, and nothing after one that did not.
	SyncLate(ctx context.Context) error
	ResolvConf(a api.Address, dns []string) ([]byte, error)
	Networks() []api.Network
	Network(name string) (api.Network, error)
	Create(ctx context.Context, n api.Network) (api.Network, error)
	Remove(ctx context.Context, name string) error
	// Destroy takes everything of this root off the host.
	Destroy(ctx context.Context) error
	Check(ctx context.Context) []api.Finding
	// Traffic returns what environments have received and sent, by id.
	Traffic() map[string]Traffic
}

// Watcher is a Network that puts right what others change of it, until ctx ends. lost is
// told of a link, by its key, that is gone while its environment runs.
type Watcher interface {
	Watch(ctx context.Context, lost func(key string))
}

// Running is what a network must know of an environment that runs.
type Running struct {
	PID     int  // of a process in its network namespace
	Tap     bool // it has a tap, and no namespace of its network
	Address api.Address
	Ports   []api.Port
	Rate    Rate
}

// Layers are the layer mounts of this root.
type Layers interface {
	Mounted() []string
	Drop(digest string) error
	UnmountAll(ctx context.Context) error
}

// LogReader reads what was kept of an environment's output in the folder dir, in
// order, and calls emit for each piece. With Follow set it goes on until ended is
// closed and all is read.
type LogReader func(ctx context.Context, dir string, o LogOptions, ended <-chan struct{}, emit func(api.LogLine) error) error

// ListFilter chooses environments. Without All and States, those that neither
// run nor are about to are left out.
type ListFilter struct {
	All    bool
	Labels []LabelFilter // which must all hold
	Names  []string      // parts of names, of which one must be there
	States []api.State
}

// LabelFilter asks for a label; an empty value, whatever it is.
type LabelFilter struct{ Name, Value string }

// Session is a client that joins the main program's streams before it runs.
type Session struct {
	Conn       *os.File
	Rows, Cols uint16 // size of its terminal; 0: not known
}

// StopOptions say how to stop. Zero fields mean the environment's own.
type StopOptions struct {
	Signal string
	Grace  *time.Duration
}

// Where output comes from.
const (
	SourceProgram = "program" // the main program
	SourceConsole = "console" // the console of a system of its own
	SourceKernel  = "kernel"  // that system's kernel; of a zone, what the host's did to it
)

// LogOptions choose output.
type LogOptions struct {
	Since, Until time.Time
	Tail         int // lines; negative: all
	Follow       bool
	Source       string // SourceProgram, SourceConsole or SourceKernel; "": the first
}

// Filter chooses events. A zero field lets everything pass.
type Filter struct {
	Since      time.Time
	Until      time.Time
	Types      []string
	Names      []string // names or ids
	Operations []string
}

// link is what a driver is given to join a run to its network.
type link struct {
	network Network
	id      string
	address api.Address
	ports   []api.Port
	rate    Rate
	leased  bool // its system is told its address by DHCP
}

var _ stratum.Link = link{}

func (l link) IntoNamespace(ctx context.Context, pid int) error {
	if l.address.Network == "" {
		return l.network.LoopbackOnly(ctx, pid)
	}
	// What Connect made goes with the namespace; the engine disconnects when the start fails.
	if _, err := l.network.Connect(ctx, l.id, pid, l.address, l.ports); err != nil {
		return err
	}
	return setRate(l.network, l.id, l.rate)
}

func (l link) Tap(ctx context.Context, made *os.File) (*stratum.Tap, error) {
	if l.address.Network == "" {
		return nil, nil
	}
	// The device goes with the file; the engine disconnects when the start fails.
	tap, err := l.network.ConnectTap(ctx, l.id, l.address, l.ports, made)
	if err != nil {
		return nil, err
	}
	if err = setRate(l.network, l.id, l.rate); err == nil && l.leased {
		err = lease(l.network, l.id)
	}
	if err != nil {
		tap.File.Close()
		return nil, err
	}
	return tap, nil
}
