package held

import (
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
)

// Sample implements a half of stratum.Counter.
func (l *Run) Sample() (stratum.Sample, bool) {
	s, ok := l.gauge.Sample()
	return stratum.Sample{CPU: s.CPU, Throttled: s.Throttled, Memory: s.Memory, Processes: s.PIDs, Read: s.Read, Written: s.Written}, ok
}

// HostCounts are what the control group counts, as if all in it were the environment's
// programs.
func (l *Run) HostCounts() (stratum.Counts, error) {
	s, err := l.Group.Stats()
	if err != nil {
		return stratum.Counts{}, err
	}
	c := stratum.Counts{
		Memory:    stratum.Count{Held: s.Memory.Current, Most: s.Memory.Peak, Limit: max(0, s.Memory.Limit), Hits: s.Memory.Hits},
		Swap:      stratum.Count{Held: s.Memory.Swap, Most: known(s.Memory.SwapPeak), Limit: max(0, s.Memory.SwapLimit), Hits: s.Memory.SwapHits},
		Processes: stratum.Count{Held: s.PIDs.Current, Most: known(s.PIDs.Peak), Limit: max(0, s.PIDs.Limit), Hits: s.PIDs.Hits},
		CPU:       s.CPU.Usage, Throttled: s.CPU.Throttled, Throttles: s.CPU.Throttles,
		Read: stratum.Unknown, Written: stratum.Unknown, Kills: s.Memory.Kills,
		Pressure: pressure(l.Group.Pressure()),
	}
	if s.IO.Known {
		c.Read, c.Written = s.IO.ReadBytes, s.IO.WriteBytes
	}
	c.HostMemory = c.Memory
	if c.HostMemory.Held, c.HostMemory.Most, err = l.Group.Whole(); err != nil {
		return stratum.Counts{}, err
	}
	return c, nil
}

// known is what a kernel has counted that may not count it.
func known(n int64) int64 {
	if n == 0 {
		return stratum.Unknown
	}
	return n
}

func pressure(p resource.Pressures) map[string]stratum.Pressure {
	if p == nil {
		return nil
	}
	all := map[string]stratum.Pressure{}
	for name, one := range p {
		all[name] = stratum.Pressure{Some: one.Some, Full: one.Full}
	}
	return all
}
