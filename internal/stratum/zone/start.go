package zone

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/undo"
)

// Start implements stratum.Driver.
func (d *Driver) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (_ stratum.Live, err error) {
	facts, err := d.facts()
	if err != nil {
		return nil, err
	}
	l, err := plan(p, facts)
	if err != nil {
		return nil, err
	}
	if l.Notes.Disks, err = disks(p); err != nil {
		return nil, err
	}
	l.Limits.IO.Disks = l.Notes.Disks
	release, err := d.runs.Claim(p.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	var back undo.Stack
	defer back.Unless(ctx, &err)
	if err := d.runs.Make(ctx, p.ID, l.Notes); err != nil {
		return nil, err
	}
	back.Push("remove the run folder", func(context.Context) error { return d.runs.Remove(p.ID) })
	if err := os.MkdirAll(p.Log.Dir, 0o700); err != nil {
		return nil, fault.Internalf("make the folder of logs: %w", err)
	}
	k, group, err := d.apply(ctx, p, l, o, &back)
	if err != nil {
		return nil, err
	}
	return &Live{d.runs.Take(p.ID, k, group), d, l.Notes}, nil
}

// Rehearse implements stratum.Rehearser.
func (d *Driver) Rehearse(ctx context.Context, p stratum.Plan) error {
	facts, err := d.facts()
	if err != nil {
		return err
	}
	if _, err := plan(p, facts); err != nil {
		return err
	}
	for _, layer := range p.Layers {
		tree, err := d.o.Layers.Get(ctx, layer.Digest, layer.Path)
		if err != nil {
			return err
		}
		tree.Close()
	}
	return nil
}

// apply makes everything that l needs and starts it.
func (d *Driver) apply(ctx context.Context, p stratum.Plan, l *launch, o stratum.StartOptions, back *undo.Stack) (*keeper.Keeper, *resource.Group, error) {
	group, err := d.o.Resources.Create(ctx, p.ID, l.Limits, l.Devices, l.Owner)
	if err != nil {
		return nil, nil, fault.Wrap(err, "make the control group")
	}
	back.Push("remove the control group", func(ctx context.Context) error {
		if err := group.Kill(ctx); err != nil {
			return err
		}
		return group.Remove(ctx)
	})
	// Trees live by their descriptors: the keeper has its own once it runs.
	var open trees
	defer open.close()
	files, err := d.files(ctx, p, l, &open)
	if err != nil {
		return nil, nil, err
	}
	options := keeper.Options{Binary: d.keeper, Spec: l.Keeper, Files: files, Attach: o.Attach}
	entered, err := held.Enter(&options, group)
	if err != nil {
		return nil, nil, err
	}
	defer entered.Close()
	starting, err := keeper.Start(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	if o.Link != nil {
		if err := o.Link.IntoNamespace(ctx, starting.PID); err != nil {
			return nil, nil, errors.Join(fault.Wrap(err, "connect the network"), starting.Abort(context.WithoutCancel(ctx)))
		}
	}
	k, err := starting.Go(ctx)
	return k, group, err
}

// trees are descriptors that are only needed until the keeper has its own.
type trees struct{ closers []interface{ Close() error } }

func (t *trees) add(c interface{ Close() error }) { t.closers = append(t.closers, c) }

func (t *trees) close() {
	for _, c := range t.closers {
		c.Close()
	}
}

// files are the payload's descriptors, in the order that plan.go counts on.
func (d *Driver) files(ctx context.Context, p stratum.Plan, l *launch, open *trees) ([]*os.File, error) {
	users, err := d.maps.Get(ctx, mount.IDMap{Base: p.IDBase})
	if err != nil {
		return nil, err
	}
	open.add(users)
	root, err := d.root(ctx, p, users)
	if err != nil {
		return nil, err
	}
	open.add(root)
	agent, err := os.Open(l.Keeper.Exec.Agent)
	if err != nil {
		return nil, fault.Internalf("open the agent: %w", err)
	}
	open.add(agent)
	volumes := make([]*os.File, len(p.Volumes))
	for i, v := range p.Volumes {
		tree, err := mount.Bind(ctx, v.Source, users, v.ReadOnly)
		if err != nil {
			return nil, fault.Wrap(err, "show %s inside", v.Source)
		}
		open.add(tree)
		volumes[i] = tree.File()
		if err := l.kind(volumeFD+i, tree.File()); err != nil {
			return nil, err
		}
	}
	for _, view := range d.views.open(ctx) {
		open.add(view.tree)
		l.Init.Volumes = append(l.Init.Volumes, spec.Volume{FD: volumeFD + len(volumes), Target: view.target})
		volumes = append(volumes, view.tree.File())
	}
	// Last, as the volumes' kinds stand in it.
	text, err := json.Marshal(l.Init)
	if err != nil {
		return nil, fault.Internalf("write the agent's specification: %w", err)
	}
	first, err := inMemory(text)
	if err != nil {
		return nil, err
	}
	open.add(first)
	return append([]*os.File{first, root.File(), agent}, volumes...), nil
}

// kind notes whether the volume with descriptor fd is a folder, which decides
// what is made where its target is missing.
func (l *launch) kind(fd int, tree *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(tree.Fd()), &st); err != nil {
		return fault.Internalf("look at a volume: %w", err)
	}
	for i := range l.Init.Volumes {
		if l.Init.Volumes[i].FD == fd {
			l.Init.Volumes[i].Dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
		}
	}
	return nil
}

// root puts layers and private disk together.
func (d *Driver) root(ctx context.Context, p stratum.Plan, users *os.File) (*mount.Tree, error) {
	s := mount.OverlaySpec{Map: mount.IDMap{Base: p.IDBase}, Users: users}
	defer func() {
		s.Disk.Close()
		for _, tree := range s.Lowers {
			tree.Close()
		}
	}()
	var err error
	if s.Disk, err = d.o.Pool.Mount(ctx, p.Disk); err != nil {
		return nil, fault.Wrap(err, "mount the private disk")
	}
	for _, layer := range p.Layers {
		tree, err := d.o.Layers.Get(ctx, layer.Digest, layer.Path)
		if err != nil {
			return nil, err
		}
		s.Lowers = append(s.Lowers, tree)
	}
	// Never read-only: the agent makes what is missing of the mounts' places, and
	// protects the root then.
	return mount.Overlay(ctx, s)
}

// inMemory returns a file with the given content and no place on any disk.
func inMemory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("strata", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Internalf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "specification")
	if _, err = f.Write(content); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, fault.Internalf("write a file in memory: %w", err)
	}
	return f, nil
}
