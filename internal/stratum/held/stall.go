package held

import "sync/atomic"

// Stall tells whether a machine stands still, as the host has no room for its disks.
type Stall struct {
	now     atomic.Bool
	changed chan struct{} // holds one
}

func (s *Stall) set(now bool) {
	if s.now.Swap(now) == now {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // whoever listens has not heard of the last change yet
	}
}

// Now tells whether it does.
func (s *Stall) Now() bool { return s.now.Load() }

// Changed is sent to when that has changed, for one who listens.
func (s *Stall) Changed() <-chan struct{} { return s.changed }
