package engine

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// still is said in a line of who stands still; show has the whole of it.
const still = "it stands still: the host has no room"

// reason is said, which is why somebody did not answer ("": he did), or that he stands still.
func (e *Engine) reason(ctx context.Context, r *run, id, said string) string {
	if said != "" && e.stalled(ctx, r, id) != "" {
		return still
	}
	return said
}

// stalledPatience bounds the question whether a machine stands still.
const stalledPatience = 2 * time.Second

// stalled says that a run stands still because the host has no room for what it writes,
// and what is to be done; "": it does not.
func (e *Engine) stalled(ctx context.Context, r *run, id string) string {
	s, ok := r.live.(stratum.Staller)
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, stalledPatience)
	defer cancel()
	if !s.Stalled(ctx) {
		return ""
	}
	dir := e.store.Dir(id)
	free := ""
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		free = fmt.Sprintf(" (%s are free)", unit.Size(int64(st.Bavail)*st.Bsize))
	}
	return "it stands still, as the host has no room for what it writes to its disk; make room in " + dir + free + ", and it goes on by itself"
}
