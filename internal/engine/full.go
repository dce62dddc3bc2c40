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
	Times int64
	Full  bool
	Known bool // somebody looked
}

func (f *fill) see(s stratum.Space) {
	least := max(s.Size/fullShare, fullFree)
	switch {
	case !f.Full && s.Free < least:
		f.Full, f.Times = true, f.Times+1
	case f.Full && s.Free >= 2*least:
		f.Full = false
	}
	f.Known = true
}

// hits is what the table of resources shows.
func (f *fill) hits() int64 {
	if !f.Known {
		return stratum.Unknown
	}
	return f.Times
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
			before := t.fill
			t.fill.see(space)
			e.sampler.more = e.sampler.more || t.fill != before
		}
	}()
}
