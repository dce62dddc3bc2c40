package engine

import (
	"context"
	"io"
	"io/fs"
	"os"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/stratum"
)

// FromKernels makes Kernels of a store. What it mounts is at folders below run,
// and seen by nobody else.
func FromKernels(s *kernel.Store, run string) Kernels { return kernelStore{s, run} }

// kernelStore is a store of kernels in the words of the wire.
type kernelStore struct {
	s   *kernel.Store
	run string
}

func (k kernelStore) List() []api.Kernel {
	list := k.s.List()
	all := make([]api.Kernel, 0, len(list))
	for _, one := range list {
		all = append(all, wireKernel(one))
	}
	return all
}

func (k kernelStore) Get(ref string) (api.Kernel, error) { return wiredKernel(k.s.Get(ref)) }

func (k kernelStore) For(depth, ref string) (api.Kernel, error) {
	if depth == stratum.Machine {
		return wiredKernel(k.s.GetFor(ref, kernel.Machine))
	}
	return wiredKernel(k.s.GetFor(ref, kernel.Guest))
}

func (k kernelStore) Add(ctx context.Context, r api.KernelRequest, root fs.FS, tell func(api.Progress)) (api.Kernel, error) {
	return wiredKernel(k.s.Add(ctx, kernel.AddOptions{Source: r.Source, Name: r.Name, Root: root}, kernelReport(tell)))
}

func (k kernelStore) Import(ctx context.Context, name, source string, content io.Reader, tell func(api.Progress)) (api.Kernel, error) {
	return wiredKernel(k.s.Import(ctx, content, kernel.ImportOptions{Name: name, Source: source}, kernelReport(tell)))
}

func (k kernelStore) SetDefault(ref string) (api.Kernel, error) {
	return wiredKernel(k.s.SetDefault(ref))
}

func (k kernelStore) Remove(ref string, used func(api.Kernel) []string) (api.Kernel, int64, error) {
	gone, freed, err := k.s.Remove(ref, func(one kernel.Kernel) []string { return used(wireKernel(one)) })
	return wireKernel(gone), freed, err
}

func (k kernelStore) Template(ctx context.Context, layers []string, do func(root fs.FS) error) error {
	dir, err := os.MkdirTemp(k.run, "kernel-")
	if err != nil {
		return fault.Wrap(err, "make a folder to mount at")
	}
	defer os.RemoveAll(dir) // empty: what was mounted there was on nobody else's
	return mount.Merged(ctx, layers, dir, func(path string) error {
		root, err := os.OpenRoot(path) // a template's links lead nowhere but inside
		if err != nil {
			return err
		}
		defer root.Close()
		return do(root.FS())
	})
}

func kernelReport(tell func(api.Progress)) kernel.Report {
	return func(p kernel.Progress) {
		tell(api.Progress{Step: p.Step, Item: p.Item, Done: p.Done, Total: p.Total})
	}
}

func wiredKernel(k kernel.Kernel, err error) (api.Kernel, error) {
	if err != nil {
		return api.Kernel{}, err
	}
	return wireKernel(k), nil
}

func wireKernel(k kernel.Kernel) api.Kernel {
	return api.Kernel{
		ID: k.ID, Name: k.Name, Release: k.Release, Arch: k.Arch, Source: k.Source, Origin: k.Origin,
		Size: k.Size, Added: k.Added, Modules: k.Modules, Default: k.Default,
	}
}
