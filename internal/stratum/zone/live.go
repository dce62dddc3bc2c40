package zone

import (
	"context"
	"os"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
)

// Live is one run of a zone.
type Live struct {
	*held.Run
	d     *Driver
	notes notes
}

// Adopt implements stratum.Driver.
func (d *Driver) Adopt(ctx context.Context, id string) (stratum.Live, error) {
	k, group, err := d.runs.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	var n notes
	if err := d.runs.Notes(id, &n); err != nil {
		return nil, err
	}
	return &Live{d.runs.Take(id, k, group), d, n}, nil
}

// Exec implements stratum.Live.
func (l *Live) Exec(ctx context.Context, p stratum.Process, conn *os.File) error {
	facts, err := l.d.facts()
	if err != nil {
		return err
	}
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fault.Invalidf("there is no command to run").At("command")
	}
	return l.Keeper.Exec(ctx, wire.Exec{Process: *process(p, l.notes, facts), Join: l.Group.ExecFiles()}, conn)
}

// Stats implements stratum.Live. The name is left to whoever knows it.
func (l *Live) Stats(context.Context) (api.Stats, error) {
	s, err := l.Group.Stats()
	if err != nil {
		return api.Stats{}, err
	}
	return api.Stats{
		ID: l.ID, Time: time.Now(), CPUTime: s.CPU.Usage, Memory: s.Memory.Current, MemoryPeak: s.Memory.Peak,
		MemoryLimit: limit(s.Memory.Limit), PIDs: s.PIDs.Current, PIDsLimit: limit(s.PIDs.Limit), OOMKills: s.Memory.Kills,
	}, nil
}

// limit turns "unlimited" into what the API leaves out.
func limit(n int64) int64 { return max(n, 0) }

// Pause implements stratum.Pauser.
func (l *Live) Pause(ctx context.Context) error { return l.Group.Freeze(ctx) }

// Resume implements stratum.Pauser.
func (l *Live) Resume(ctx context.Context) error { return l.Group.Thaw(ctx) }

// Paused tells whether it is held still, for a daemon that adopts it.
func (l *Live) Paused() bool {
	frozen, err := l.Group.Frozen()
	return err == nil && frozen
}

var (
	_ stratum.Driver  = (*Driver)(nil)
	_ stratum.Live    = (*Live)(nil)
	_ stratum.Pauser  = (*Live)(nil)
	_ stratum.Limiter = (*Live)(nil)
)
