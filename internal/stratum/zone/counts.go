package zone

import (
	"context"

	"github.com/strata-project/strata/internal/stratum"
)

// Counts implements stratum.Counter: the host's kernel counts all of a zone.
func (l *Live) Counts(context.Context) (stratum.Counts, error) { return l.HostCounts() }

var _ stratum.Counter = (*Live)(nil)
