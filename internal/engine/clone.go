package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/store"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/unit"
)

// varsName has the variables of a machine's UEFI, beside its private disk.
const varsName = "uefi-vars"

// tpmDir has what a machine's TPM knows.
const tpmDir = "tpm"

// undoName is the disk of a run whose changes are forgotten at its end.
const undoName = "undo.ext4"

// undoPath is where the disk of such a run is.
func (e *Engine) undoPath(rec environment.Record) string {
	name := undoName
	if rec.Spec.Foreign != nil {
		name = foreignUndo
	}
	return filepath.Join(e.store.Dir(rec.ID), name)
}

// undoDisk gives p the disk of a run whose changes are forgotten: a copy, which shares
// its blocks where the host's file system can. What was suspended has its own already.
func (e *Engine) undoDisk(ctx context.Context, en *entry, p *stratum.Plan) error {
	rec := en.snapshot()
	path := e.undoPath(rec)
	if !en.goingOn {
		if err := e.o.Pool.Remove(path); err != nil { // of a daemon that was killed
			return err
		}
		if p.Foreign != nil {
			return e.undoForeign(ctx, rec, p)
		}
		if err := e.o.Pool.Clone(ctx, e.diskOf(rec), path); err != nil {
			return fault.Wrap(err, "copy the disk whose changes are to be forgotten")
		}
	}
	p.Disk = path
	return nil
}

// Clone makes another environment like one that stands still, with a copy of its disk
// and an id, a name, an address and (kind system) a machine id of its own. Kinds:
// Missing, Invalid, Conflict (it runs, the name is taken), Unable where the host's file
// system cannot share blocks and o.Copy is not set, Busy.
func (e *Engine) Clone(ctx context.Context, ref string, o api.Clone) (api.Environment, error) {
	if err := e.open(); err != nil {
		return api.Environment{}, err
	}
	if o.Name != "" {
		if err := environment.CheckName(o.Name, "name"); err != nil {
			return api.Environment{}, err
		}
	}
	en, err := e.find(ref)
	if err != nil {
		return api.Environment{}, err
	}
	if err := en.lock(ctx); err != nil {
		return api.Environment{}, err
	}
	defer en.unlock()
	if err := e.cloneable(en, o.Copy); err != nil {
		return api.Environment{}, err
	}
	from := en.snapshot()
	var made *entry
	if from.Spec.Foreign != nil {
		e.freezing.Lock()
		defer e.freezing.Unlock()
		made, err = e.clone(ctx, en, o.Name, api.Template{})
	} else {
		err = e.o.Templates.Use(from.TemplateID, func(t api.Template) (err error) {
			made, err = e.clone(ctx, en, o.Name, t)
			return err
		})
	}
	if err != nil {
		return api.Environment{}, fault.Wrap(err, "clone %s", from.Name)
	}
	e.tell(ctx, made, "create", "clone_of", from.Name)
	return made.view(), nil
}

// standsStill tells why an environment cannot be used as something that stands still.
func (en *entry) standsStill(used string) error {
	en.mu.Lock()
	state, name := en.state, en.rec.Name
	en.mu.Unlock()
	if state == environment.Made || state == environment.Stopped {
		return nil
	}
	hint := "stop it first: strata stop " + name
	if state == environment.Suspended {
		hint = "resume and stop it first: strata resume " + name
	}
	return fault.Conflictf("environment %s is %s, and only what stands still can be %s", name, state, used).Help("%s", hint)
}

// cloneable tells why an environment cannot be cloned.
func (e *Engine) cloneable(en *entry, agreed bool) error {
	if err := en.standsStill("cloned"); err != nil {
		return err
	}
	if en.snapshot().Spec.Foreign != nil {
		return nil // both go on in images of their own over what is frozen
	}
	cost, err := e.o.Pool.CloneCost(filepath.Join(e.store.Dir(en.id()), diskName))
	if err != nil {
		return err
	}
	if cost > 0 && !agreed {
		return fault.Unablef("the host's file system cannot share blocks between files, so a clone of %s is a copy of %s", en.name(), unit.Size(cost)).
			At("copy").Help("add --copy, or keep strata's state on btrfs, or on xfs with reflink")
	}
	return nil
}

// clone does the work, with the template held and the source locked.
func (e *Engine) clone(ctx context.Context, source *entry, name string, t api.Template) (_ *entry, err error) {
	from := source.snapshot()
	spec := from.Spec
	spec.Name, spec.Labels = name, maps.Clone(spec.Labels)
	for _, l := range api.FileLabels() { // no file has made it
		delete(spec.Labels, l)
	}
	if f := spec.Foreign; f != nil {
		without := *f
		if strings.HasPrefix(f.ISO, e.store.Dir(from.ID)+"/") {
			without.ISO = "" // the CD with strata's agent, which goes when its source does
		}
		if !from.Started.IsZero() {
			without.BootOnce = "" // what that was for is on the disk
		}
		spec.Foreign = &without
	}
	var back undo.Stack
	defer back.Unless(ctx, &err)
	en, err := e.reserve(spec)
	if err != nil {
		return nil, err
	}
	back.Push("free the name", func(context.Context) error { e.forget(en); return nil })
	own := en.snapshot()
	rec := from
	rec.ID, rec.Name, rec.Spec, rec.IDBase, rec.Created = own.ID, own.Name, spec, own.IDBase, own.Created
	rec.Phase, rec.UserStopped, rec.Restarting, rec.Started, rec.Exit, rec.OOM, rec.Restarts, rec.LastFailure = environment.PhaseCreated, false, false, time.Time{}, nil, nil, 0, ""
	rec.Address, rec.MachineID, rec.Moving, rec.Moves, rec.Devices = api.Address{}, "", nil, nil, nil
	if rec.Resolved, err = environment.Resolve(spec, rec.Name, t); err != nil {
		return nil, err
	}
	if rec.Resolved.Kind == environment.System {
		rec.MachineID = newMachineID()
	}
	if network := rec.Resolved.Network; network != environment.NoNetwork {
		if rec.Address, err = e.o.Network.Allocate(ctx, network, rec.ID, rec.Name); err != nil {
			return nil, err
		}
		back.Push("give the address back", func(ctx context.Context) error { return e.o.Network.Release(ctx, rec.ID) })
	}
	if err := e.store.Make(rec.ID); err != nil {
		return nil, err
	}
	back.Push("remove the folder", func(context.Context) error { return e.discard(rec.ID) })
	if err := e.cloneDisk(ctx, source, &rec); err != nil {
		return nil, err
	}
	if rec.Stratum == stratum.Machine {
		if err := copySmall(filepath.Join(e.store.Dir(from.ID), varsName), filepath.Join(e.store.Dir(rec.ID), varsName), maxVars); err != nil {
			return nil, err
		}
		if err := copyFolder(filepath.Join(e.store.Dir(from.ID), tpmDir), filepath.Join(e.store.Dir(rec.ID), tpmDir)); err != nil {
			return nil, err
		}
	}
	// The last step: with the record the environment exists.
	if err := e.store.Write(rec, care(rec, store.Lasting)); err != nil {
		return nil, err
	}
	en.do(func() { en.rec, en.hidden = rec, false })
	return en, nil
}

// newMachineID makes an id as systemd does. Source: machine-id(5): 128 bits in
// hexadecimal, of which sd_id128_randomize sets those of a random UUID.
func newMachineID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return hex.EncodeToString(id[:])
}

// Bounds of what QEMU and swtpm keep for a machine, which may have been taken over.
const (
	maxVars     = 8 << 20 // the variables of a UEFI; source: QEMU, max-fw-size of pc and q35, 8 MiB
	maxTPM      = 1 << 20 // a file of a TPM; swtpm's have some hundred KiB at most
	maxTPMFiles = 16      // swtpm has three
)

// copySmall copies a file of the state folder, if it is there. It has at most so many bytes,
// and is no way to another file.
func copySmall(from, to string, most int64) error {
	name := filepath.Base(from)
	// A pipe is no reason to wait.
	source, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Internalf("copy %s: %w", name, err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return fault.Internalf("copy %s: %w", name, err)
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return odd(name)
	}
	copied, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Internalf("copy %s: %w", name, err)
	}
	n, err := io.Copy(copied, io.LimitReader(source, most+1))
	if err = errors.Join(err, copied.Close()); err != nil {
		return fault.Internalf("copy %s: %w", name, err)
	}
	if n > most { // it has grown meanwhile
		return odd(name)
	}
	return nil
}

// odd is what is said of files that the machine's own programs do not write so.
func odd(name string) error {
	return fault.Unablef("%q is not what firmware or a TPM keeps: what runs the machine may have been taken over", name).
		Help("look at it before you go on with that environment")
}

// copyFolder copies a folder of a few small files, if it is there. Whoever uses them takes
// them over.
func copyFolder(from, to string) error {
	folder, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var found []fs.DirEntry
	if err == nil {
		defer folder.Close()
		if found, err = folder.ReadDir(maxTPMFiles + 1); errors.Is(err, io.EOF) {
			err = nil // it is empty
		}
	}
	if err == nil {
		err = os.Mkdir(to, 0o700)
	}
	if err != nil {
		return fault.Internalf("copy %s: %w", filepath.Base(from), err)
	}
	if len(found) > maxTPMFiles {
		return odd(filepath.Base(from))
	}
	for _, f := range found {
		if !f.Type().IsRegular() {
			continue // a lock
		}
		if err := copySmall(filepath.Join(from, f.Name()), filepath.Join(to, f.Name()), maxTPM); err != nil {
			return err
		}
	}
	return nil
}
