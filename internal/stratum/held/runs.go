package held

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/resource"
)

// The files of a run folder that every driver has.
const (
	Socket = "keeper.sock"
	Status = "status.json"
	Exit   = "exit.json"
	group  = "group"      // the name of its control group, where that is not the id
	notes  = "notes.json" // what further programs of a run depend on, for a daemon that adopts
)

// Runs are the run folders of one driver.
type Runs struct {
	Dir    string         // a folder for each run, by id
	Groups *resource.Root // a control group for each run, by id
	log    *slog.Logger

	mu      sync.Mutex
	working map[string]bool // ids that a start or Clean is at work on
}

// Open makes the folder dir of runs where it is missing.
func Open(dir string, groups *resource.Root, log *slog.Logger) (*Runs, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fault.Internalf("make the folder of runs: %w", err)
	}
	return &Runs{Dir: dir, Groups: groups, log: log, working: map[string]bool{}}, nil
}

// Path returns the path of a run's folder, or of a file in it.
func (r *Runs) Path(id string, name ...string) string {
	return filepath.Join(append([]string{r.Dir, id}, name...)...)
}

// List returns the ids that have a run folder or a control group.
func (r *Runs) List() ([]string, error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Internalf("list runs: %w", err)
	}
	ids, err := r.Groups.List()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
			// Its group is no run of its own, whatever that is called.
			if name := r.Group(e.Name()); name != e.Name() {
				ids = slices.DeleteFunc(ids, func(id string) bool { return id == name })
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Group is the name of a run's control group: its id, but for one that was renamed.
func (r *Runs) Group(id string) string {
	if name, err := os.ReadFile(r.Path(id, group)); err == nil && filepath.IsLocal(string(name)) {
		return string(name)
	}
	return id
}

// Rename makes the run from, which was started before it was known for whom, the run of
// another id that is claimed as well; n is kept in its folder from then on. Its
// control group keeps its name, and what an earlier run of the id left goes. A live
// one is a Conflict.
func (r *Runs) Rename(ctx context.Context, from, id string, n any) error {
	if err := r.vacate(ctx, id); err != nil {
		return err
	}
	if err := r.Note(from, n); err != nil {
		return err
	}
	err := os.WriteFile(r.Path(from, group), []byte(from), 0o600)
	if err == nil {
		err = os.Rename(r.Path(from), r.Path(id))
	}
	if err != nil {
		return fault.Internalf("name the run folder %s: %w", id, err)
	}
	return nil
}

// vacate takes away what an earlier run of an id left. Kinds: Conflict (it runs).
func (r *Runs) vacate(ctx context.Context, id string) error {
	if _, err := os.Lstat(r.Path(id)); err != nil {
		return nil
	}
	if _, err := keeper.Open(ctx, r.Path(id, Socket), r.Path(id, Status)); err == nil {
		return fault.Conflictf("%s is running already", id)
	}
	return r.sweep(ctx, id)
}

// Claim makes sure that one start or Clean at a time is at work on an id.
// Kinds: Conflict.
func (r *Runs) Claim(id string) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.working[id] {
		return nil, fault.Conflictf("%s is being started or cleaned up", id)
	}
	r.working[id] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.working, id)
	}, nil
}

// Make makes the run folder of an id that is claimed, and keeps n in it. What an
// earlier run left goes; a live one is a Conflict, a full disk Busy.
func (r *Runs) Make(ctx context.Context, id string, n any) error {
	if err := r.vacate(ctx, id); err != nil {
		return err
	}
	if err := os.Mkdir(r.Path(id), 0o700); err != nil {
		return unmade("make the run folder", err)
	}
	if err := r.Note(id, n); err != nil {
		os.RemoveAll(r.Path(id))
		return err
	}
	return nil
}

// Note keeps n in the run folder instead of what was kept there, whole or not at all.
func (r *Runs) Note(id string, n any) error {
	text, err := json.Marshal(n)
	fresh := r.Path(id, notes+".new")
	if err == nil {
		err = os.WriteFile(fresh, text, 0o600)
	}
	if err == nil {
		err = os.Rename(fresh, r.Path(id, notes))
	}
	if err != nil {
		return unmade("write down what is known of run "+id, err)
	}
	return nil
}

// unmade is why a file or folder of a run was not made. Kinds: Busy (a full disk), Internal.
func unmade(what string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.Busyf("%s: the disk is full: %w", what, err).Help("free some space on the disk of strata's run folder")
	}
	return fault.Internalf("%s: %w", what, err)
}

// Remove takes the run folder away.
func (r *Runs) Remove(id string) error { return os.RemoveAll(r.Path(id)) }

// Notes reads what Make has kept.
func (r *Runs) Notes(id string, n any) error {
	text, err := os.ReadFile(r.Path(id, notes))
	if err == nil {
		err = json.Unmarshal(text, n)
	}
	if err != nil {
		return fault.Internalf("read what is known of run %s: %w", id, err)
	}
	return nil
}

// Clean removes whatever a run that is over has left on the host, and returns how
// it ended where its keeper wrote that down, else nil.
func (r *Runs) Clean(ctx context.Context, id string) (*api.Exit, error) {
	if id != filepath.Base(id) || id == "." || id == ".." {
		return nil, fault.Invalidf("%q is no id of a run", id)
	}
	release, err := r.Claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	record, err := keeper.ReadExit(r.Path(id, Exit))
	if err != nil {
		r.log.Debug("an exit record cannot be read", "id", id, "err", err)
	}
	if err := r.sweep(ctx, id); err != nil {
		return nil, err
	}
	return exitOf(record), nil
}

// sweep removes what a run has left. It kills what is still in the control
// group: a keeper that was lost leaves a payload without anybody to end it.
func (r *Runs) sweep(ctx context.Context, id string) error {
	group, err := r.Groups.Find(r.Group(id))
	if err == nil {
		if err := group.Kill(ctx); err != nil {
			return err
		}
		if err := group.Remove(ctx); err != nil {
			return fault.Wrap(err, "clean up after %s", id)
		}
	} else if fault.KindOf(err) != fault.Missing {
		return err
	}
	if err := r.Remove(id); err != nil {
		return fault.Internalf("remove the run folder: %w", err)
	}
	return nil
}
