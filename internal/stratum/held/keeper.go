package held

import (
	"errors"
	"io"
	"os"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/resource"
)

// Enter has a keeper and its payload start in group, whose kills for want of memory the
// keeper will see. What is returned is closed when the keeper was started.
func Enter(o *keeper.Options, group *resource.Group) (io.Closer, error) {
	o.Spec.Payload.Join = group.ThreadFiles()
	o.Spec.OOM.File, o.Spec.OOM.Key = group.OOMSource()
	o.Within = group.RunKeeper
	var open folders
	for _, f := range []struct {
		open func() (*os.File, error)
		into **os.File
	}{{group.OpenUnified, &o.Cgroup}, {group.OpenKeeper, &o.Own}} {
		folder, err := f.open()
		if fault.KindOf(err) == fault.Unable { // a host without the v2 hierarchy
			continue
		}
		if err != nil {
			open.Close()
			return nil, err
		}
		*f.into = folder
		open = append(open, folder)
	}
	return open, nil
}

type folders []*os.File

func (f folders) Close() error {
	var errs []error
	for _, folder := range f {
		errs = append(errs, folder.Close())
	}
	return errors.Join(errs...)
}
