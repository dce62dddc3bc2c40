package machine

import (
	"context"

	"github.com/strata-project/strata/internal/stratum"
)

// Reset implements stratum.Resetter: the button on the front. A template's machine is
// put together by its agent once, so it starts as a new run.
func (l *Live) Reset(ctx context.Context) (over bool, err error) { return true, l.Cut(ctx) }

// Interrupt implements stratum.Interrupter.
func (l *Live) Interrupt(ctx context.Context) error { return l.Execute(ctx, "inject-nmi", nil, nil) }

var (
	_ stratum.Resetter    = (*Live)(nil)
	_ stratum.Interrupter = (*Live)(nil)
)
