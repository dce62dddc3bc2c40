package held

import (
	"io"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/resource"
)

// Enter has a keeper's payload start in group, whose kills for want of memory the keeper
// will see. What is returned is closed when the keeper was started.
func Enter(o *keeper.Options, group *resource.Group) (io.Closer, error) {
	o.Spec.Payload.Join = group.ThreadFiles()
	o.Spec.OOM.File, o.Spec.OOM.Key = group.OOMSource()
	folder, err := group.OpenUnified()
	if fault.KindOf(err) == fault.Unable { // a host without the v2 hierarchy
		return io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, err
	}
	o.Cgroup = folder
	return folder, nil
}
