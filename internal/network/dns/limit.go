package dns

import (
	"net/netip"
	"sync"
	"time"
)

// What askers may do. An ordinary program asks a few questions a second.
const (
	askerRate    = 1000 // questions per second and asker, over time
	askerBurst   = 2000 // and at once
	askerUnder   = 64   // questions of one asker that others are asked at a time
	totalUnder   = 512  // and of all askers
	askersKept   = 8192 // askers whose rate is known; more than the addresses of two networks
	rateSeconds  = float64(time.Second)
	forgottenAge = 10 * time.Second
)

// limits keeps count of what each asker does. Safe for concurrent use.
type limits struct {
	now func() time.Time

	mu     sync.Mutex
	askers map[netip.Addr]*asker
	under  int
	forgot time.Time
}

type asker struct {
	tokens float64
	at     time.Time
	under  int
}

func newLimits() *limits { return &limits{now: time.Now, askers: map[netip.Addr]*asker{}} }

// of finds the asker, with l.mu held; nil where too many are known.
func (l *limits) of(a netip.Addr) *asker {
	now := l.now()
	k := l.askers[a]
	if k == nil {
		if len(l.askers) >= askersKept && now.Sub(l.forgot) > time.Second {
			l.forgot = now // it looks at all of them: not for every question
			l.forget(now)
		}
		if len(l.askers) >= askersKept {
			return nil
		}
		k = &asker{tokens: askerBurst, at: now}
		l.askers[a] = k
	}
	k.tokens = min(askerBurst, k.tokens+float64(now.Sub(k.at))*askerRate/rateSeconds)
	k.at = now
	return k
}

// forget drops those who have been quiet, with l.mu held.
func (l *limits) forget(now time.Time) {
	for a, k := range l.askers {
		if k.under == 0 && now.Sub(k.at) > forgottenAge {
			delete(l.askers, a)
		}
	}
}

// allow tells whether one more question of a is within its rate.
func (l *limits) allow(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.of(a)
	if k == nil || k.tokens < 1 {
		return false
	}
	k.tokens--
	return true
}

// begin tells whether others may be asked for a; then end must follow.
func (l *limits) begin(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.of(a)
	if k == nil || k.under >= askerUnder || l.under >= totalUnder {
		return false
	}
	k.under++
	l.under++
	return true
}

func (l *limits) end(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.under--
	if k := l.askers[a]; k != nil {
		k.under--
	}
}
