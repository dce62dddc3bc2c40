package keep

import "time"

// A program to which nobody is attached writes for its log alone, and the keeper's work on
// that is not counted to it. So it is read no faster than a log is of use, and waits as it
// would for a slow disk; what it writes now and then is not slowed.
const (
	paceRate  = 16 << 20              // bytes a second
	paceBurst = 8 << 20               // bytes that are read at once after a quiet half second
	pacePause = 20 * time.Millisecond // without reading, once there was more
)

// pace is how much of a program's output the log has had. The zero value has had none.
type pace struct {
	paid   time.Time // the rate allows what was read until then
	resume time.Time // nothing is read before; zero: it is
}

// spend notes n bytes.
func (c *pace) spend(n int, now time.Time) {
	if most := now.Add(-paceBurst * time.Second / paceRate); c.paid.Before(most) {
		c.paid = most
	}
	c.paid = c.paid.Add(time.Duration(n) * time.Second / paceRate)
	if c.paid.After(now) {
		c.resume = now.Add(pacePause)
	}
}

// rests tells whether p is not read because its log has had enough for now.
func (p *program) rests() bool { return !p.pace.resume.IsZero() && len(p.clients) == 0 }

// resumes is when the first of those that rest is to be read again; zero: none rests.
func (k *keeper) resumes() (first time.Time) {
	for _, p := range k.logged {
		if at := p.pace.resume; p.rests() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// wake reads on whose pause is over.
func (k *keeper) wake(now time.Time) {
	for _, p := range k.logged {
		if p.rests() && !now.Before(p.pace.resume) {
			p.pace.resume = time.Time{}
			p.refresh()
		}
	}
}
