package keep

import "time"

// A program to which nobody is attached writes for its log alone, or for nobody, and the
// keeper's work on that is not counted to it. So it is read no faster than a log is of use,
// and waits as it would for a slow disk; what it writes now and then is not slowed.
const (
	paceRate  = 16 << 20              // bytes a second
	paceBurst = 8 << 20               // bytes that are read at once after a quiet half second
	pacePause = 20 * time.Millisecond // without reading, once there was more
	// paceRead is what each read counts besides its bytes: who writes byte by byte makes as
	// much work as who writes so many at once.
	paceRead = 2 << 10
)

// pace is how much output has had nobody but a log. The zero value has had none.
type pace struct {
	paid   time.Time // the rate allows what was read until then
	resume time.Time // nothing is read before; zero: it is
}

// spend notes a read of n bytes.
func (c *pace) spend(n int, now time.Time) {
	if most := now.Add(-paceBurst * time.Second / paceRate); c.paid.Before(most) {
		c.paid = most
	}
	c.paid = c.paid.Add(time.Duration(n+paceRead) * time.Second / paceRate)
	if !c.paid.After(now) {
		return
	}
	// What was on its way may go far beyond the rate, as a window's worth of small frames.
	if c.resume = now.Add(pacePause); c.resume.Before(c.paid) {
		c.resume = c.paid
	}
}

// over tells whether a pause has ended, which wake has not seen yet.
func (c *pace) over(now time.Time) bool { return !c.resume.IsZero() && !now.Before(c.resume) }

// rests tells whether p is not read because there was enough of it for now.
func (p *program) rests() bool { return !p.pace.resume.IsZero() && len(p.clients) == 0 }

// resumes is when the first of those that rest is to be read again; zero: none rests.
func (k *keeper) resumes() (first time.Time) {
	first = k.adrift.resume
	for _, p := range k.logged {
		if at := p.pace.resume; first.IsZero() || !at.IsZero() && at.Before(first) {
			first = at
		}
	}
	return first
}

// wake reads on whose pause is over.
func (k *keeper) wake(now time.Time) {
	for _, p := range k.logged {
		if p.pace.over(now) {
			p.pace.resume = time.Time{}
			p.refresh()
		}
	}
	if k.adrift.over(now) {
		k.adrift.resume = time.Time{}
		for i := len(k.execs) - 1; i >= 0; i-- { // one that has ended leaves the list
			k.execs[i].refresh()
		}
	}
}
