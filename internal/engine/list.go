package engine

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
)

// List returns the environments that f chooses, the oldest first. It looks at
// nothing but memory.
func (e *Engine) List(_ context.Context, f ListFilter) []api.Environment {
	entries := e.entries()
	slices.SortFunc(entries, func(a, b *entry) int {
		if c := a.made.Compare(b.made); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	all := make([]api.Environment, 0, len(entries))
	for _, en := range entries {
		if v := en.view(); f.chooses(&v) {
			all = append(all, v)
		}
	}
	return all
}

func (f ListFilter) chooses(v *api.Environment) bool {
	if len(f.States) > 0 {
		if !slices.Contains(f.States, v.State) {
			return false
		}
	} else if !f.All && (v.State == api.Created || v.State == api.Stopped) {
		return false
	}
	for _, l := range f.Labels {
		if have, ok := v.Spec.Labels[l.Name]; !ok || l.Value != "" && have != l.Value {
			return false
		}
	}
	return len(f.Names) == 0 || slices.ContainsFunc(f.Names, func(part string) bool { return strings.Contains(v.Name, part) })
}

// Get returns one environment in detail, by name, id, or the beginning of one id
// of at least 4 digits. Kinds: Missing, Invalid (several ids begin so).
func (e *Engine) Get(ctx context.Context, ref string) (api.Environment, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Environment{}, err
	}
	en.overSoon(ctx)
	v := en.view()
	e.detail(ctx, en, &v)
	return v, nil
}

// overPatience bounds the wait of overSoon.
const overPatience = time.Second

// overSoon waits until the end of a run that is over has been dealt with: a client
// learns of the end from the keeper, and may ask before the daemon has heard, and
// even before the start has returned.
func (en *entry) overSoon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, overPatience)
	defer cancel()
	if en.until(ctx, func() bool { return en.state != environment.Starting }) != nil {
		return
	}
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	if r == nil || r.live.PID() <= 0 || !errors.Is(unix.Kill(r.live.PID(), 0), unix.ESRCH) {
		return
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// Info says what this daemon is.
func (e *Engine) Info(context.Context) api.Info {
	counts := map[string]int{}
	for _, en := range e.entries() {
		en.mu.Lock()
		counts[string(en.state.Public())]++
		en.mu.Unlock()
	}
	var standby *api.Standby
	for _, d := range e.o.Drivers {
		if s, ok := d.(interface{ Standby() (int, int, int64) }); ok {
			if n, images, bytes := s.Standby(); n+images > 0 {
				standby = &api.Standby{Machines: n, Images: images, Bytes: bytes}
			}
		}
	}
	return api.Info{
		Standby: standby,
		Version: e.o.Version, APIVersion: "v1", Root: e.o.Places.Root, State: e.o.Places.State,
		Socket: e.o.Places.Socket, PID: os.Getpid(), Started: e.started, Kernel: release(), Arch: runtime.GOARCH,
		Cgroups: cgroups(), Environments: counts, Templates: len(e.o.Templates.List()),
	}
}

// HostCheck says what this host can do for strata.
func (e *Engine) HostCheck(ctx context.Context) []api.Finding {
	var all []api.Finding
	if e.o.Check != nil {
		all = e.o.Check(ctx)
	}
	return append(all, e.o.Network.Check(ctx)...)
}

func release() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cgroups tells how the host mounts control groups. Source: systemd's cgroup-util.
func cgroups() string {
	is := func(path string, magic int64) bool {
		var st unix.Statfs_t
		return unix.Statfs(path, &st) == nil && int64(st.Type) == magic
	}
	switch {
	case is("/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC):
		return "v2"
	case is("/sys/fs/cgroup/unified", unix.CGROUP2_SUPER_MAGIC):
		return "hybrid"
	}
	return "v1"
}

// usedBy returns the names of the environments made of a template, being made or
// going ones included.
func (e *Engine) usedBy(id string) []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var names []string
	for _, en := range e.ids {
		en.mu.Lock()
		if en.rec.TemplateID == id && en.state != environment.Gone {
			names = append(names, en.rec.Name)
		}
		en.mu.Unlock()
	}
	slices.Sort(names)
	return names
}
