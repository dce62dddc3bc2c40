package engine

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// still is said in a line of who stands still; show has the whole of it.
const still = "it stands still: the host has no room"

// stalls tells whether a run stands still because the host has no room for what it writes.
func (r *run) stalls() bool {
	s, ok := r.live.(stratum.Staller)
	return ok && s.Stalled()
}

// reason is said, which is why somebody did not answer ("": he did), or that he stands still.
func (r *run) reason(said string) string {
	if said != "" && r.stalls() {
		return still
	}
	return said
}

// patience is how long its agent is waited for, where one that answers gets usual: who stands
// still does not answer, but the host knows something of it.
func (r *run) patience(usual time.Duration) time.Duration {
	if r.stalls() {
		return min(usual, 200*time.Millisecond)
	}
	return usual
}

// tellStalls publishes that a run stands still, and that it goes on.
func (e *Engine) tellStalls(en *entry, r *run, s stratum.Staller) {
	told := false
	for {
		select {
		case <-s.Stalls():
		case <-r.done:
			return
		case <-e.life.Done():
			return
		}
		now := s.Stalled()
		switch {
		case now == told:
		case now:
			e.tell(e.life, en, "stall", "text", e.roomless(en.id()))
		default:
			e.tell(e.life, en, "unstall")
		}
		told = now
	}
}

// roomless says what there is to be known of a run that stands still.
func (e *Engine) roomless(id string) string {
	dir := e.store.Dir(id)
	free := ""
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		free = fmt.Sprintf(" (%s are free)", unit.Size(int64(st.Bavail)*st.Bsize))
	}
	return "it stands still, as the host has no room for what it writes to its disk; make room in " + dir + free + ", and it goes on by itself"
}
