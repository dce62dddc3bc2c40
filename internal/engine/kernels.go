package engine

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Kernels is where the kernels of guests are kept.
type Kernels interface {
	List() []api.Kernel
	// Get returns the kernel that ref names; "" names the default one.
	Get(ref string) (api.Kernel, error)
	// For is Get of one that a stratum can boot: another than the default one where that cannot.
	For(stratum, ref string) (api.Kernel, error)
	// Add brings a kernel. root, for a source that is a template, is its root file system.
	Add(ctx context.Context, r api.KernelRequest, root fs.FS, tell func(api.Progress)) (api.Kernel, error)
	Import(ctx context.Context, name, source string, content io.Reader, tell func(api.Progress)) (api.Kernel, error)
	SetDefault(ref string) (api.Kernel, error)
	// Remove calls used once, under its lock.
	Remove(ref string, used func(api.Kernel) []string) (api.Kernel, int64, error)
	// Template shows the root file system that a template's layers make, the base
	// first, for as long as do takes.
	Template(ctx context.Context, layers []string, do func(root fs.FS) error) error
}

// kernels returns where kernels are. Kinds: Unable.
func (e *Engine) kernels() (Kernels, error) {
	if e.o.Kernels != nil {
		return e.o.Kernels, nil
	}
	return nil, fault.Unablef("this strata keeps no kernels")
}

// Kernels returns every kernel, with the environments that boot each.
func (e *Engine) Kernels(context.Context) ([]api.Kernel, error) {
	k, err := e.kernels()
	if err != nil {
		return nil, err
	}
	all := k.List()
	used := e.kernelUsers()
	for i := range all {
		all[i].UsedBy = used(all[i])
	}
	return all, nil
}

// Kernel returns one kernel. Kinds: Missing, Invalid.
func (e *Engine) Kernel(_ context.Context, ref string) (api.Kernel, error) {
	k, err := e.kernels()
	if err != nil {
		return api.Kernel{}, err
	}
	found, err := k.Get(ref)
	if err != nil {
		return api.Kernel{}, err
	}
	found.UsedBy = e.kernelUsers()(found)
	return found, nil
}

// templateSource begins a source that is a template.
const templateSource = "template:"

// AddKernel brings a kernel from a source; with First the default one is returned
// where there is one already. Progress goes to ctx's operation.
// Kinds: Invalid, Missing, Conflict, Unable, Busy.
func (e *Engine) AddKernel(ctx context.Context, r api.KernelRequest) (api.Kernel, error) {
	k, err := e.kernels()
	if err != nil {
		return api.Kernel{}, err
	}
	if r.First {
		select {
		case e.first <- struct{}{}:
		default:
			e.progress(ctx)(api.Progress{Step: "wait", Item: "for another fetch of it"})
			select {
			case e.first <- struct{}{}:
			case <-ctx.Done():
				return api.Kernel{}, ctx.Err()
			}
		}
		defer func() { <-e.first }()
		if have, err := k.For(first(r.For, stratum.Guest), ""); err == nil {
			return have, nil
		}
	}
	var added api.Kernel
	ref, ok := strings.CutPrefix(r.Source, templateSource)
	if !ok || ref == "" {
		added, err = k.Add(ctx, r, nil, e.progress(ctx))
	} else {
		added, err = e.kernelOfTemplate(ctx, k, r, ref)
	}
	if err != nil {
		return api.Kernel{}, err
	}
	e.tellKernel(ctx, "add", added)
	return added, nil
}

func (e *Engine) kernelOfTemplate(ctx context.Context, k Kernels, r api.KernelRequest, ref string) (added api.Kernel, err error) {
	err = e.o.Templates.Use(ref, func(t api.Template) error {
		var layers []string
		for _, l := range t.Layers {
			layers = append(layers, e.o.Templates.LayerPath(l.Digest))
		}
		return k.Template(ctx, layers, func(root fs.FS) error {
			added, err = k.Add(ctx, r, root, e.progress(ctx))
			return err
		})
	})
	return added, err
}

// ImportKernel makes a kernel of a file: a Debian package, a tar with kernel and
// modules, a bzImage or a vmlinux. Kinds: as AddKernel's.
func (e *Engine) ImportKernel(ctx context.Context, name, source string, content io.Reader) (api.Kernel, error) {
	k, err := e.kernels()
	if err != nil {
		return api.Kernel{}, err
	}
	added, err := k.Import(ctx, name, source, content, e.progress(ctx))
	if err != nil {
		return api.Kernel{}, err
	}
	e.tellKernel(ctx, "add", added)
	return added, nil
}

// SetDefaultKernel makes a kernel the one that is taken where none is named: by
// environments that name none from their next start on. Kinds: Missing, Invalid.
func (e *Engine) SetDefaultKernel(ctx context.Context, ref string) (api.Kernel, error) {
	k, err := e.kernels()
	if err != nil {
		return api.Kernel{}, err
	}
	chosen, err := k.SetDefault(ref)
	if err != nil {
		return api.Kernel{}, err
	}
	e.tellKernel(ctx, "default", chosen)
	chosen.UsedBy = e.kernelUsers()(chosen)
	return chosen, nil
}

// RemoveKernel removes a kernel. Kinds: Missing, Invalid, Conflict while
// environments boot it.
func (e *Engine) RemoveKernel(ctx context.Context, ref string) (api.Freed, error) {
	k, err := e.kernels()
	if err != nil {
		return api.Freed{}, err
	}
	gone, freed, err := k.Remove(ref, e.kernelUsers())
	if err != nil {
		return api.Freed{}, err
	}
	e.tellKernel(ctx, "remove", gone)
	return api.Freed{Removed: []string{gone.Name}, Bytes: freed}, nil
}

func (e *Engine) tellKernel(ctx context.Context, action string, k api.Kernel) {
	e.hub.publish(api.Event{Type: typeKernel, Action: action, ID: k.ID, Name: k.Name, Operation: operation(ctx)})
}

// kernelUsers returns what tells the names of environments that boot a kernel, as
// things stand now, or go on with it.
func (e *Engine) kernelUsers() func(api.Kernel) []string {
	type boots struct{ stratum, ref string }
	refs := map[string]boots{} // by environment
	for _, en := range e.entries() {
		en.mu.Lock()
		rec, state := en.rec, en.state
		en.mu.Unlock()
		if rec.Stratum == stratum.Zone || rec.Spec.Foreign != nil || state == environment.Gone {
			continue // it boots the host's kernel, its own or none
		}
		b := boots{rec.Stratum, rec.Spec.Kernel}
		if b.ref == "" && state == environment.Suspended {
			b.ref = e.savedKernel(rec)
		}
		refs[rec.Name] = b
	}
	usual := map[string]string{} // ids of the kernels that they boot which name none
	for _, b := range refs {
		if _, known := usual[b.stratum]; b.ref == "" && !known {
			k, _ := e.o.Kernels.For(b.stratum, "") // where there is none, nothing boots it
			usual[b.stratum] = k.ID
		}
	}
	return func(k api.Kernel) []string {
		var names []string
		for name, b := range refs {
			if b.ref == "" && k.ID == usual[b.stratum] || b.ref != "" && answers(k, b.ref) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
}

// savedKernel is the kernel that a suspended system goes on with, whichever is the default
// one by now; "" where it cannot be told.
func (e *Engine) savedKernel(rec environment.Record) string {
	d, ok := e.drivers[rec.Stratum].(stratum.Reviver)
	if !ok {
		return ""
	}
	name, err := d.SavedKernel(e.savedPath(rec.ID))
	if err != nil { // nor can it go on then
		e.log.Debug("the kernel of a suspended system is not known", "id", rec.ID, "error", err)
	}
	return name
}

// answers tells whether ref can mean k. Of two that it could mean, neither may go.
func answers(k api.Kernel, ref string) bool {
	const prefix = "sha256:"
	digits := strings.TrimPrefix(ref, prefix)
	return ref == k.Name || ref == k.Release || len(digits) >= 4 && strings.HasPrefix(k.ID, prefix+digits)
}
