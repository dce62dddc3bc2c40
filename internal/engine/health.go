package engine

import (
	"context"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/environment"
)

// What a health check says.
const (
	starting  = "starting"
	healthy   = "healthy"
	unhealthy = "unhealthy"
)

// maxHealthOutput bounds what is kept of a check's output. Unit: bytes. Source:
// docker keeps as much.
const maxHealthOutput = 4096

// checkHealth checks a run again and again until ctx ends. As docker's: the first
// check is one interval after the start; failures within the start period do not
// count; as many failures in a row as retries make it unhealthy, one success
// healthy.
func (e *Engine) checkHealth(ctx context.Context, en *entry, r *run, h *api.Health) {
	begun := time.Now()
	timer := time.NewTimer(time.Duration(h.Interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		en.mu.Lock()
		paused := en.state == environment.Paused
		en.mu.Unlock()
		if !paused {
			output, well := e.probe(ctx, en, r, h)
			if ctx.Err() != nil {
				return
			}
			spared := time.Since(begun) < time.Duration(h.StartPeriod)
			if now, changed := en.noteHealth(r, h, well, spared); changed {
				e.tell(ctx, en, "health_status", "health", now, "output", output)
			}
		}
		timer.Reset(time.Duration(h.Interval))
	}
}

// noteHealth counts one check and returns the health after it. A failure that is
// spared does not count before the first success.
func (en *entry) noteHealth(r *run, h *api.Health, well, spared bool) (now string, changed bool) {
	en.do(func() {
		before := r.health
		switch {
		case well:
			r.health, r.failing = healthy, 0
		case spared && r.health == starting:
		default:
			if r.failing++; r.failing >= h.Retries {
				r.health = unhealthy
			}
		}
		now, changed = r.health, r.health != before
	})
	return now, changed
}

// probe runs the check once, and returns what it said as one line. One that takes
// longer than its timeout is killed, and counts as a failure.
func (e *Engine) probe(ctx context.Context, en *entry, r *run, h *api.Health) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(h.Timeout))
	defer cancel()
	p := process(en.snapshot(), api.Process{Command: environment.HealthArgs(h)})
	var out limited
	out.max = maxHealthOutput
	ended, err := inside(ctx, r.live, p, nil, &out, &out)
	if err != nil {
		return fromInside(err.Error()), false
	}
	return oneLine(string(out.data)), ended.Status == 0
}

// limited keeps the first bytes that are written to it and drops the others.
type limited struct {
	data []byte
	max  int
}

func (l *limited) Write(p []byte) (int, error) {
	l.data = append(l.data, p[:min(len(p), l.max-len(l.data))]...)
	return len(p), nil
}

// killFrame asks for the end of an exec'd program.
var killFrame = []byte{byte(stream.Signal), 0, 0, 0, 1, byte(syscall.SIGKILL)}
