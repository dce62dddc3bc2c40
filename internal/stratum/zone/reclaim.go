package zone

import (
	"context"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/stratum"
)

// Reclaim implements stratum.Reclaimer: the kernel's caches are what a zone does not use.
func (l *Live) Reclaim(ctx context.Context, r api.Resources) (stratum.Reclaimed, error) {
	before, err := l.Group.Stats()
	if err != nil {
		return stratum.Reclaimed{}, err
	}
	if err := l.Group.Reclaim(ctx, r.MemoryGuarantee); err != nil {
		return stratum.Reclaimed{}, err
	}
	after, err := l.Group.Stats()
	return stratum.Reclaimed{Before: before.Memory.Current, After: after.Memory.Current, By: []string{"page cache"}}, err
}

var _ stratum.Reclaimer = (*Live)(nil)
