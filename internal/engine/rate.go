package engine

import (
	"errors"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Rate is of what an environment receives and sends: bytes in a second as a limit (0:
// none), or packets that a limit refused.
type Rate struct {
	In, Out int64
}

func rateOf(r api.Resources) Rate { return Rate{int64(r.NetIn), int64(r.NetOut)} }

// Rater is a Network that limits rates.
type Rater interface {
	// SetRate limits id's link while it is connected, in place of what was said before.
	SetRate(id string, r Rate) error
	// Dropped counts what id's limits have refused.
	Dropped(id string) Rate
}

// setRate limits a link that was just made, or that runs. Kinds: Unable.
func setRate(n Network, id string, r Rate) error {
	limiter, ok := n.(Rater)
	if !ok && r != (Rate{}) {
		return fault.Unablef("rates cannot be limited here").At("resources.net_in")
	}
	if !ok {
		return nil
	}
	return limiter.SetRate(id, r)
}

// changeRate limits what runs as now says. settle, which is told how the rest of the
// change went, takes it back where that failed. Kinds: Unable.
func (e *Engine) changeRate(en *entry, old, now api.Resources) (settle func(error) error, err error) {
	before, after := rateOf(old), rateOf(now)
	var changed []string // of its own card and of attached ones
	settle = func(err error) error {
		if err == nil {
			return nil
		}
		for _, key := range changed {
			err = errors.Join(err, setRate(e.o.Network, key, before))
		}
		return err
	}
	if before == after {
		return settle, nil
	}
	for _, l := range en.snapshot().Links() {
		if err := setRate(e.o.Network, l.Key, after); err != nil {
			return nil, settle(err)
		}
		changed = append(changed, l.Key)
	}
	return settle, nil
}

// rates are the rows of what an environment receives and sends in a second.
func (e *Engine) rates(w watched, t track) (in, out api.Counter) {
	var hits Rate
	limit := Rate{t.row.ReceivedLimit, t.row.SentLimit}
	if r, ok := e.o.Network.(Rater); ok && limit != (Rate{}) {
		hits = r.Dropped(w.row.ID)
	}
	count := func(held, most, limit, hits int64) stratum.Count {
		c := stratum.Count{Held: held, Most: most, Limit: limit, Hits: hits}
		if t.last.at.IsZero() {
			c.Held, c.Most = stratum.Unknown, stratum.Unknown
		}
		if limit == 0 {
			c.Hits = stratum.Unknown
		}
		return c
	}
	return row("net-in", "bytes/s", count(t.row.Received, t.most.Received, limit.In, hits.In)),
		row("net-out", "bytes/s", count(t.row.Sent, t.most.Sent, limit.Out, hits.Out))
}
