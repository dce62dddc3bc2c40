// Package keyed locks by name, for work that is done once for all who want its result:
// whoever waits gives up with its context.
package keyed

import (
	"context"
	"sync"
)

// Locks is a set of locks by name. The zero value is ready for use.
type Locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Busy tells whether somebody holds key now.
func (l *Locks) Busy(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, taken := l.held[key]
	return taken
}

// Lock waits until nobody else holds key, or ctx is over.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		if l.held == nil {
			l.held = map[string]chan struct{}{}
		}
		gone, taken := l.held[key]
		if !taken {
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
