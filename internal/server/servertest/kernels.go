package servertest

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Kernels implements server.Kernels.
func (e *Engine) Kernels(context.Context) ([]api.Kernel, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []api.Kernel
	for _, name := range slices.Sorted(maps.Keys(e.kernels)) {
		all = append(all, e.kernels[name])
	}
	return all, nil
}

// Kernel implements server.Kernels.
func (e *Engine) Kernel(_ context.Context, ref string) (api.Kernel, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if k, ok := e.kernels[ref]; ok {
		return k, nil
	}
	return api.Kernel{}, fault.Missingf("there is no kernel %q", ref).At("kernel").Help("`strata kernel ls` has those there are")
}

// AddKernel implements server.Kernels; it tells its progress.
func (e *Engine) AddKernel(_ context.Context, r api.KernelRequest) (api.Kernel, error) {
	if strings.Contains(r.Source, "unreachable") || r.For == "machine" {
		return api.Kernel{}, fault.Busyf("package %s cannot be downloaded", r.Source)
	}
	e.Publish(api.Event{Type: "progress", Action: "download", Progress: &api.Progress{Step: "download", Item: "linux-image", Done: 1, Total: 1024}})
	return e.keepKernel(r.Name, r.Source)
}

// ImportKernel implements server.Kernels; the origin is what was sent.
func (e *Engine) ImportKernel(_ context.Context, name, source string, r io.Reader) (api.Kernel, error) {
	content, err := io.ReadAll(io.LimitReader(r, 64))
	if err != nil {
		return api.Kernel{}, err
	}
	if len(content) == 0 {
		return api.Kernel{}, fault.Invalidf("the file is empty, and no kernel")
	}
	return e.keepKernel(name, source)
}

func (e *Engine) keepKernel(name, source string) (api.Kernel, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	const release = "6.1.0-1-cloud-amd64"
	if name == "" {
		name = release
	}
	if _, ok := e.kernels[name]; ok {
		return api.Kernel{}, fault.Conflictf("there is a kernel %s already", name).At("name").Help("choose another name")
	}
	k := api.Kernel{
		ID: "sha256:" + strings.Repeat("a", 64), Name: name, Release: release, Arch: "amd64", Source: source, Origin: source,
		Size: 70 << 20, Added: time.Unix(1700000000, 0).UTC(), Modules: 80, Default: len(e.kernels) == 0,
	}
	e.kernels[name] = k
	return k, nil
}

// SetDefaultKernel implements server.Kernels.
func (e *Engine) SetDefaultKernel(ctx context.Context, ref string) (api.Kernel, error) {
	if _, err := e.Kernel(ctx, ref); err != nil {
		return api.Kernel{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, k := range e.kernels {
		k.Default = name == ref
		e.kernels[name] = k
	}
	return e.kernels[ref], nil
}

// RemoveKernel implements server.Kernels.
func (e *Engine) RemoveKernel(ctx context.Context, ref string) (api.Freed, error) {
	k, err := e.Kernel(ctx, ref)
	if err != nil {
		return api.Freed{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.rows {
		if r.env.Spec.Kernel == ref {
			return api.Freed{}, fault.Conflictf("kernel %s is used by %s", ref, r.env.Name).At("kernel").Help("remove those first")
		}
	}
	delete(e.kernels, ref)
	return api.Freed{Removed: []string{k.Name}, Bytes: k.Size}, nil
}
