package zone

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/stratum"
)

// Space implements stratum.Spacer. The disk is mounted in the zone only, so it is looked
// at by the zone's own root.
func (l *Live) Space() (s stratum.Space, ok bool) {
	var st unix.Statfs_t
	if unix.Statfs(fmt.Sprintf("/proc/%d/root", l.PID()), &st) != nil || st.Flags&unix.ST_RDONLY != 0 {
		return s, false // over, or nobody writes there
	}
	select {
	case <-l.Over(): // the number may be another's by now
		return s, false
	default:
	}
	return stratum.Space{Size: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, true
}

// Counts implements stratum.Counter: the host's kernel counts all of a zone.
func (l *Live) Counts(context.Context) (stratum.Counts, error) { return l.HostCounts() }

var (
	_ stratum.Counter = (*Live)(nil)
	_ stratum.Spacer  = (*Live)(nil)
)
