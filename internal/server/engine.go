package server

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
)

// Engine is all that the server needs of what stands behind it.
type Engine interface {
	Host
	Records
	Lifecycle
	Moves
	Drives
	Devices
	Admission
	Streams
	Observation
	Screens
	Files
	Templates
	TemplateMoves
	Kernels
	Networks
}

// Host is what concerns the whole daemon.
type Host interface {
	Info(ctx context.Context) api.Info
	HostCheck(ctx context.Context) []api.Finding
	Needs(ctx context.Context) []api.Need
	// Price returns what was measured last; MeasurePrice measures anew.
	Price(ctx context.Context) (api.Price, error)
	MeasurePrice(ctx context.Context, r api.PriceRequest) (api.Price, error)
	// Subscribe returns the events that pass f; the channel is closed when ctx
	// ends or the engine closes.
	Subscribe(ctx context.Context, f engine.Filter) <-chan api.Event
	DestroyAll(ctx context.Context) error
}

// Records is what an environment is, running or not.
type Records interface {
	Create(ctx context.Context, spec api.Spec) (api.Environment, error)
	List(ctx context.Context, f engine.ListFilter) []api.Environment
	Get(ctx context.Context, ref string) (api.Environment, error)
	// Plan tells what Create and a start would do, and does nothing.
	Plan(ctx context.Context, spec api.Spec) (api.Plan, error)
	Why(ctx context.Context, ref string) (api.Choice, error)
	Remove(ctx context.Context, ref string, force bool) error
	Rename(ctx context.Context, ref, name string) error
	Clone(ctx context.Context, ref string, o api.Clone) (api.Environment, error)
	Update(ctx context.Context, ref string, u api.Update) (api.Environment, error)
}

// Lifecycle starts, stops and awaits environments.
type Lifecycle interface {
	// Start starts ref; attach, where it is not nil, is a client in frames of
	// package api/stream that sees everything from the first byte on.
	Start(ctx context.Context, ref string, first *engine.Session) error
	Stop(ctx context.Context, ref string, o engine.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Restart(ctx context.Context, ref string, o engine.StopOptions) error
	Pause(ctx context.Context, ref string) error
	Suspend(ctx context.Context, ref string) error
	Reset(ctx context.Context, ref string) error
	Interrupt(ctx context.Context, ref string) error
	Resume(ctx context.Context, ref string) error
	// Reclaim gives memory back to the host that ref does not use.
	Reclaim(ctx context.Context, ref string) (api.Reclaimed, error)
	// Wait blocks until the condition (stopped, next-exit, removed) holds.
	Wait(ctx context.Context, ref, condition string) (api.Exit, error)
}

// Drives changes what is in the drives of foreign systems.
type Drives interface {
	Insert(ctx context.Context, ref, iso string) error
	Eject(ctx context.Context, ref string) error
	InstallAgent(ctx context.Context, ref string, byCD bool) (api.AgentInstalled, error)
}

// Devices attaches disks and cards to foreign systems.
type Devices interface {
	AttachDisk(ctx context.Context, ref string, d api.Disk) (api.Disk, error)
	AttachCard(ctx context.Context, ref string, c api.Card) (api.Card, error)
	Detach(ctx context.Context, ref, name string) error
}

// Admission is what the host can guarantee.
type Admission interface {
	Capacity(ctx context.Context) api.Capacity
	// Queue waits for room for a start, or for next, and holds it for a moment.
	Queue(ctx context.Context, ref string, next api.Next, patience time.Duration) error
}

// Streams is what goes in and out of a running environment.
type Streams interface {
	Attach(ctx context.Context, ref string, conn *os.File) error
	Console(ctx context.Context, ref string, conn *os.File) error
	Exec(ctx context.Context, ref string, p api.Process, conn *os.File) error
	Logs(ctx context.Context, ref string, o engine.LogOptions, emit func(api.LogLine) error) error
	Stats(ctx context.Context, ref string) (api.Stats, error)
}

// Observation is what is told of environments that run.
type Observation interface {
	// Tasks lists the processes of those that refs name, or of all that run.
	Tasks(ctx context.Context, refs []string) (api.TaskList, error)
	// Usage tells what they and the host used in the last second; where since is given, what
	// changed after it.
	Usage(ctx context.Context, refs []string, since time.Time) (api.UsageReport, error)
	// Resources tells what is counted of them since they started.
	Resources(ctx context.Context, refs []string) ([]api.ResourceTable, error)
	History(ctx context.Context, ref, step string) ([]api.HistoryPoint, error)
}

// Screens are what machines show.
type Screens interface {
	// Screen returns the screen of a running environment that has one.
	Screen(ctx context.Context, ref string) (engine.Screen, error)
}

// Files copies in and out of an environment, as tar streams.
type Files interface {
	CopyOut(ctx context.Context, ref, path string, w io.Writer) error
	CopyIn(ctx context.Context, ref, path string, r io.Reader) error
	StatPath(ctx context.Context, ref, path string) (api.PathStat, error)
}

// Templates is the store of templates.
type Templates interface {
	Templates(ctx context.Context) ([]api.Template, error)
	Template(ctx context.Context, ref string) (api.Template, error)
	BuildTemplate(ctx context.Context, r api.BuildRequest) (api.Template, error)
	TagTemplate(ctx context.Context, ref, name string) error
	RemoveTemplate(ctx context.Context, ref string, force bool) (api.Freed, error)
	// PruneTemplates removes what has no name, and with all also what no environment uses.
	PruneTemplates(ctx context.Context, all bool) (api.Freed, error)
}

// TemplateMoves brings templates in and out.
type TemplateMoves interface {
	PullTemplate(ctx context.Context, r api.PullRequest) (api.Template, error)
	// ImportTemplate reads an OCI layout, docker archive or root file system as tar.
	ImportTemplate(ctx context.Context, name string, r io.Reader) (api.Template, error)
	// Commit makes a template of an environment that stands still; name may be "".
	Commit(ctx context.Context, ref, name string) (api.Template, error)
	// ExportTemplate writes an OCI layout as tar.
	ExportTemplate(ctx context.Context, ref string, w io.Writer) error
	PushTemplate(ctx context.Context, ref string, r api.PushRequest) error
}

// Kernels is the store of kernels.
type Kernels interface {
	Kernels(ctx context.Context) ([]api.Kernel, error)
	Kernel(ctx context.Context, ref string) (api.Kernel, error)
	AddKernel(ctx context.Context, r api.KernelRequest) (api.Kernel, error)
	// ImportKernel reads a package, a tar with kernel and modules, or a kernel.
	ImportKernel(ctx context.Context, name, source string, content io.Reader) (api.Kernel, error)
	SetDefaultKernel(ctx context.Context, ref string) (api.Kernel, error)
	RemoveKernel(ctx context.Context, ref string) (api.Freed, error)
}

// Networks are where environments meet.
type Networks interface {
	Networks(ctx context.Context) ([]api.Network, error)
	Network(ctx context.Context, name string) (api.Network, error)
	CreateNetwork(ctx context.Context, n api.Network) (api.Network, error)
	RemoveNetwork(ctx context.Context, name string) error
}
