package virtual

import (
	"context"
	"os"
	"time"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// Counts implements stratum.Counter: what programs hold is counted inside, what the
// host pays for by the host. Where the agent does not answer, the latter is known.
func (l *Live) Counts(ctx context.Context) (stratum.Counts, error) {
	c, err := l.HostCounts()
	if err != nil {
		return c, err
	}
	l.mu.Lock()
	memory, processes := int64(l.limits.Memory), l.limits.PIDs
	l.mu.Unlock()
	none := stratum.NotCounted
	c.Memory, c.Swap, c.Processes = none, none, none
	c.Memory.Limit, c.Processes.Limit = memory, processes
	err = l.ask(ctx, func(s *control.Client) error {
		in, err := s.Stats(ctx)
		if err != nil {
			return err
		}
		c.Memory = stratum.Count{Held: in.Memory, Most: in.MemoryPeak, Limit: memory, Hits: in.MemoryHits}
		if in.MemoryPeak == 0 {
			c.Memory.Most = stratum.Unknown // before 5.19 the kernel keeps none
		}
		c.Swap.Held = in.Swap
		c.Processes = stratum.Count{Held: in.PIDs, Most: in.PIDsPeak, Limit: processes, Hits: in.PIDsHits}
		if in.PIDsPeak == 0 {
			c.Processes.Most = stratum.Unknown
		}
		c.Kills += in.OOMKills
		return nil
	})
	if err != nil {
		c.Silent = err.Error()
	}
	return c, nil
}

// left is what the agent told of the disk, and when the disk was written to before.
type left struct {
	stratum.Space
	written time.Time // the zero time: nobody was asked
}

// Space implements stratum.Spacer. The agent is asked only where the disk was written to
// since it was last: who writes nothing is not kept from resting, and takes no room.
func (l *Live) Space() (s stratum.Space, ok bool) {
	info, err := os.Stat(l.notes.Disk)
	if err != nil {
		return s, false
	}
	l.mu.Lock()
	known := l.left
	l.mu.Unlock()
	if known.written.Equal(info.ModTime()) {
		return known.Space, known.Size > 0
	}
	err = l.ask(context.Background(), func(c *control.Client) error {
		in, err := c.Stats(context.Background())
		s.Size, s.Free = in.DiskSize, in.DiskFree
		return err
	})
	if err != nil {
		return stratum.Space{}, false
	}
	l.mu.Lock()
	l.left = left{s, info.ModTime()}
	l.mu.Unlock()
	return s, s.Size > 0
}

var (
	_ stratum.Counter = (*Live)(nil)
	_ stratum.Spacer  = (*Live)(nil)
)
