package keep

import (
	"testing"
	"time"
)

func TestOutputForTheLogAloneIsPaced(t *testing.T) {
	now := time.Unix(1000, 0)
	read := func(c *pace, n int, during time.Duration) (taken int) {
		for end := now.Add(during); now.Before(end); now = now.Add(time.Millisecond) {
			if now.Before(c.resume) {
				continue
			}
			c.resume = time.Time{}
			for range n / (64 << 10) {
				if c.resume.IsZero() {
					c.spend(64<<10, now)
					taken += 64 << 10
				}
			}
		}
		return taken
	}
	const mib = 1 << 20
	var flood, little pace
	if got := read(&flood, mib, 2*time.Second); got < 37*mib || got > 42*mib { // 8 and 2 times 16, less what the reads count
		t.Errorf("a flood is read at %d MiB in 2 s", got/mib)
	}
	now = now.Add(time.Minute)
	if got := read(&flood, mib, time.Second); got < 23*mib || got > 26*mib {
		t.Errorf("after a pause it is read at %d MiB in 1 s", got/mib)
	}
	for range 10 {
		little.spend(mib, now)
		if !little.resume.IsZero() {
			t.Fatal("a little now and then is held up")
		}
		now = now.Add(100 * time.Millisecond)
	}
}

func TestWhoWritesByteByByteIsPacedByReads(t *testing.T) {
	now := time.Unix(1000, 0)
	var c pace
	reads := 0
	for end := now.Add(2 * time.Second); now.Before(end); now = now.Add(10 * time.Microsecond) { // as fast as a keeper reads
		if c.over(now) {
			c.resume = time.Time{}
		}
		if c.resume.IsZero() {
			c.spend(1, now)
			reads++
		}
	}
	if reads < 15_000 || reads > 21_000 { // 4096 at once, and 8192 a second
		t.Errorf("%d reads in 2 s", reads)
	}
}

func TestWhatWasOnItsWayCountsAsWell(t *testing.T) {
	now := time.Unix(1000, 0)
	var c pace
	for range 256 << 10 { // a window of frames of one byte
		c.spend(1, now)
	}
	if rest := c.resume.Sub(now); rest < 30*time.Second || rest > 40*time.Second {
		t.Errorf("it rests %s after 256 thousand frames", rest)
	}
}
