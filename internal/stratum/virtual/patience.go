package virtual

import (
	"context"
	"time"
)

// How long is waited for a system that starts. A limit on the whole would have to
// suit the slowest host, such as one that is emulated itself, where a boot that goes
// well takes minutes; so what counts is how long nothing was seen to go on.
const (
	bootPatience = 90 * time.Second
	// firstPatience is for a first attempt: a KVM may be one that opens and runs nothing,
	// and TCG is still to be tried; and what hangs is started once more.
	firstPatience = 45 * time.Second
	// wholePatience bounds what goes on and comes to no end, as of a system that only
	// eats memory.
	wholePatience = 5 * time.Minute
)

// look is how often it is looked what goes on.
const look = 500 * time.Millisecond

// Patient returns a context that ends when used has not grown for stall. used tells
// how much memory a machine uses (unit: bytes): a system that starts touches new
// pages all the time, one that hangs or turns in a loop does not. Where it cannot
// be told, stall bounds the whole.
func Patient(ctx context.Context, stall time.Duration, used func() (int64, error)) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, wholePatience)
	go func() {
		tick := time.NewTicker(min(look, stall/4))
		defer tick.Stop()
		var most int64
		for last := time.Now(); time.Since(last) < stall; {
			if n, err := used(); err == nil && n > most {
				most, last = n, time.Now()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	return ctx, cancel
}
