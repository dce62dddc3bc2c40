package stratum

import (
	"context"

	"github.com/strata-project/strata/api"
)

// Reclaimer gives memory back to the host that a run does not use.
type Reclaimer interface {
	// Reclaim takes what is not in use, and never what is guaranteed by r, which is what
	// the run has. It goes on with all that r gives it. Kinds: Unable where this host or
	// its system cannot, Conflict while it is paused.
	Reclaim(ctx context.Context, r api.Resources) (Reclaimed, error)
}

// Reclaimed is what came of it.
type Reclaimed struct {
	Before, After int64    // what the host holds for the run. Unit: bytes
	By            []string // how it was taken
	Kept          string   // why a part was not tried; "": all was
}
