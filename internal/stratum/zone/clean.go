package zone

import (
	"context"
	"os"
	"path/filepath"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
)

// vacant makes room for a start: what an earlier run left goes, a live one is a conflict.
func (d *Driver) vacant(ctx context.Context, id string) error {
	if _, err := os.Lstat(d.run(id)); err == nil {
		if _, err := keeper.Open(ctx, d.run(id, socketName), d.run(id, statusName)); err == nil {
			return fault.Conflictf("%s is running already", id)
		}
		return d.sweep(ctx, id)
	}
	return nil
}

// Clean implements stratum.Driver.
func (d *Driver) Clean(ctx context.Context, id string) (*api.Exit, error) {
	if id != filepath.Base(id) || id == "." || id == ".." {
		return nil, fault.Invalidf("%q is no id of a run", id)
	}
	release, err := d.claim(id)
	if err != nil {
		return nil, err
	}
	defer release()
	record, err := keeper.ReadExit(d.run(id, exitName))
	if err != nil {
		d.o.Log.Debug("an exit record cannot be read", "id", id, "err", err)
	}
	if err := d.sweep(ctx, id); err != nil {
		return nil, err
	}
	return exitOf(record), nil
}

// sweep removes what a run has left. It kills what is still in the control
// group: a keeper that was lost leaves an init without anybody to end it.
func (d *Driver) sweep(ctx context.Context, id string) error {
	group, err := d.o.Resources.Find(id)
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
	if err := os.RemoveAll(d.run(id)); err != nil {
		return fault.Internalf("remove the run folder: %w", err)
	}
	return nil
}
