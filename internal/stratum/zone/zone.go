package zone

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
)

// maxFiles is how many files a program of a zone may have open, where the host
// allows that many. Source: docker's default.
const maxFiles = 1 << 20

// Options are what a Driver works with. All but Log must be set.
type Options struct {
	Places    place.Places
	Pool      *disk.Pool
	Layers    *mount.Layers
	Resources *resource.Root
	Log       *slog.Logger // nil: nothing is logged
	LXCFS     string       // where lxcfs is mounted, if it runs; "": place.LXCFS
}

// Driver runs zones. Make one with New.
type Driver struct {
	o      Options
	runs   *held.Runs
	keeper string
	facts  func() (hostFacts, error)
	maps   mount.IDMaps
	views  views
}

// New returns a Driver, and prepares in the background what only the first start
// would have to wait for. Kinds: Missing where a program of strata's own is not found.
func New(o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	keeper, err := place.Binary("strata-keeper")
	if err != nil {
		return nil, err
	}
	agent, err := place.Binary("strata-agent")
	if err != nil {
		return nil, err
	}
	runs, err := held.Open(filepath.Join(o.Places.Run, "env"), o.Resources, o.Log)
	if err != nil {
		return nil, err
	}
	if o.LXCFS == "" {
		o.LXCFS = place.LXCFS
	}
	d := &Driver{o: o, runs: runs, keeper: keeper, views: viewsOf(o.LXCFS)}
	d.facts = sync.OnceValues(func() (hostFacts, error) {
		agent, err := unreadable(agent, o.Places.State)
		if err != nil {
			return hostFacts{}, err
		}
		return gather(runs.Dir, agent, o.Resources.Layout())
	})
	go d.facts()
	return d, nil
}

// Close gives back what the driver holds. Runs go on.
func (d *Driver) Close() error { return d.maps.Close() }

// Stratum returns "zone".
func (d *Driver) Stratum() string { return stratum.Zone }

// Capabilities returns what zones can do besides.
func (d *Driver) Capabilities() stratum.Capability {
	return stratum.CanPause | stratum.CanLimit | stratum.CanList | stratum.CanCount | stratum.CanReclaim | stratum.CanGrowDisk
}

// Runs implements stratum.Driver.
func (d *Driver) Runs(context.Context) ([]string, error) { return d.runs.List() }

// Clean implements stratum.Driver.
func (d *Driver) Clean(ctx context.Context, id string) (*api.Exit, error) {
	return d.runs.Clean(ctx, id)
}

// gather finds out what plans depend on.
func gather(dir, agent string, l resource.Layout) (f hostFacts, err error) {
	f.dir, f.agent = dir, agent
	kernel, err := seccomp.Kernel()
	if err != nil {
		return f, err
	}
	app, err := seccomp.Default(sandbox.App, kernel)
	if err != nil {
		return f, fault.Wrap(err, "compile the seccomp filter")
	}
	system, err := seccomp.Default(sandbox.System, kernel)
	if err != nil {
		return f, fault.Wrap(err, "compile the seccomp filter")
	}
	f.app, f.system = app.Bytes(), system.Bytes()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return f, fault.Internalf("read the limit of open files: %w", err)
	}
	f.files = min(maxFiles, limit.Max)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return f, fault.Internalf("read own control group: %w", err)
	}
	f.appCgroups, f.systemCgroups = cgroups(l, string(own))
	return f, nil
}

// cgroups says what is mounted at /sys/fs/cgroup: only hierarchies in which a
// zone has a group of its own, which is all that it then sees of them.
func cgroups(l resource.Layout, own string) (app, system []spec.Cgroup) {
	if l.Version == resource.V2 {
		return []spec.Cgroup{{V2: true}}, []spec.Cgroup{{V2: true, Writable: true}}
	}
	for line := range strings.Lines(own) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(field) != 3 || field[1] == "" {
			continue
		}
		named, isNamed := strings.CutPrefix(field[1], "name=")
		if isNamed {
			if l.Controllers[field[1]] != "" {
				system = append(system, spec.Cgroup{Name: named, Options: "none," + field[1], Writable: true})
			}
			continue
		}
		if slices.ContainsFunc(strings.Split(field[1], ","), func(c string) bool {
			return l.Controllers[c] != "" && l.Controllers[c] != l.Unified
		}) {
			app = append(app, spec.Cgroup{Name: field[1], Options: field[1]})
		}
	}
	if l.Unified != "" {
		// An init takes the unified hierarchy where there is one: systemd's own is
		// not at home on v1 inside a user namespace.
		return app, []spec.Cgroup{{V2: true, Writable: true}}
	}
	return app, append(system, app...)
}

// Destroy removes what is left on the host when nothing runs any more: the
// control groups' own root. The next Start makes it anew.
func (d *Driver) Destroy(ctx context.Context) error { return d.o.Resources.Remove(ctx) }
