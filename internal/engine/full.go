package engine

import "github.com/strata-project/strata/internal/stratum"

// A disk is seen full where less than a hundredth of it is free, or less than 1M: an
// ext4 refuses writers before the last block is given. What was full counts again once
// twice as much was free.
const (
	fullShare = 100
	fullFree  = 1 << 20
)

// fill counts how often something was seen full. The zero value was not.
type fill struct {
	times int64
	full  bool
	known bool // somebody looked
}

func (f *fill) see(s stratum.Space) {
	least := max(s.Size/fullShare, fullFree)
	switch {
	case !f.full && s.Free < least:
		f.full, f.times = true, f.times+1
	case f.full && s.Free >= 2*least:
		f.full = false
	}
	f.known = true
}

// hits is what the table of resources shows.
func (f *fill) hits() int64 {
	if !f.known {
		return stratum.Unknown
	}
	return f.times
}

// lookAtSpace asks how much room the file system of a run has. A hostile system may
// have put another in its place that never answers: who waits for that is one
// goroutine for each run, and no sample.
func (e *Engine) lookAtSpace(s sampled) {
	spacer, ok := s.run.live.(stratum.Spacer)
	if !ok || !s.run.looking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		space, ok := spacer.Space()
		s.run.looking.Store(false)
		if !ok {
			return
		}
		e.sampler.mu.Lock()
		defer e.sampler.mu.Unlock()
		if t := e.sampler.tracks[s.row.ID]; t != nil && t.run == s.run {
			t.fill.see(space)
		}
	}()
}
