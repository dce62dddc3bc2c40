package keyed

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestOneAtATimeHoldsAKey(t *testing.T) {
	var locks Locks
	var all sync.WaitGroup
	n := 0
	for range 50 {
		all.Go(func() {
			unlock, err := locks.Lock(t.Context(), "one")
			if err != nil {
				t.Error(err)
				return
			}
			n++ // -race and a lost addition tell of two at once
			unlock()
		})
	}
	all.Wait()
	if n != 50 || locks.Busy("one") {
		t.Errorf("%d of 50 held it; held still: %t", n, locks.Busy("one"))
	}
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	var locks Locks
	one, err := locks.Lock(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := locks.Lock(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	two()
	if !locks.Busy("one") || locks.Busy("two") {
		t.Error("the wrong key is held")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := locks.Lock(over, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits no longer gets %v", err)
	}
	one()
	if unlock, err := locks.Lock(t.Context(), "one"); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
}
