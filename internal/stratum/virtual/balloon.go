package virtual

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// A balloon is a device by which a system gives memory of its machine back to the host:
// inflated, it holds pages that nobody uses. Source: virtio 1.2, 5.5.

// spareInside is what a reclaim leaves free in a system, so that it need not look for
// memory the moment it goes on.
const spareInside = 32 * unit.MiB

// How long a balloon may take, and how often it is looked at. One that makes no way is given up.
const (
	balloonPatience = 30 * time.Second
	balloonStall    = 3 * time.Second
	balloonLook     = 50 * time.Millisecond
)

// monitor is a session of QEMU's monitor, see qemu.QMP.
type monitor interface {
	Execute(ctx context.Context, command string, args, result any, files ...*os.File) error
}

// errNoBalloon is why nothing moves in a machine that has none.
var errNoBalloon = errors.New("the machine has no balloon")

// balloon is that of a machine whose memory is whole.
type balloon struct {
	q     monitor
	whole unit.Size
}

// size is how much of its memory the machine has now. errNoBalloon where it has no balloon.
func (b balloon) size(ctx context.Context) (unit.Size, error) {
	var info struct {
		Actual int64 `json:"actual"`
	}
	err := b.q.Execute(ctx, "query-balloon", nil, &info)
	if no := new(qemu.Refused); errors.As(err, &no) {
		return 0, errNoBalloon
	}
	return unit.Size(info.Actual), err
}

// available is what programs inside could still have, as their kernel says, whose driver
// of the balloon is to answer. errNoBalloon where there is none, or no balloon.
func (b balloon) available(ctx context.Context) (free unit.Size, err error) {
	at := map[string]any{"path": balloonPath, "property": "guest-stats-polling-interval", "value": 1}
	if err := b.q.Execute(ctx, "qom-set", at, nil); err != nil {
		if no := new(qemu.Refused); errors.As(err, &no) {
			return 0, errNoBalloon
		}
		return 0, err
	}
	defer func() {
		at["value"] = 0
		if stop := b.q.Execute(ctx, "qom-set", at, nil); err == nil {
			err = stop
		}
	}()
	asked, end := time.Now().Unix(), time.Now().Add(balloonPatience)
	for {
		var s struct {
			Stats map[string]uint64 `json:"stats"`
			Last  int64             `json:"last-update"`
		}
		if err := b.q.Execute(ctx, "qom-get", map[string]string{"path": balloonPath, "property": "guest-stats"}, &s); err != nil {
			return 0, err
		}
		// What a kernel does not tell is all ones.
		if n := s.Stats["stat-available-memory"]; s.Last >= asked && n != 0 && n < 1<<63 {
			return min(unit.Size(n), b.whole), nil
		}
		if time.Now().After(end) {
			return 0, errNoBalloon
		}
		if err := rest(ctx, balloonLook); err != nil {
			return 0, err
		}
	}
}

// balloonPath is the device, in QEMU's tree.
const balloonPath = "/machine/peripheral/" + qemu.Balloon

// ask has the machine come to a size, and waits for nothing.
func (b balloon) ask(ctx context.Context, to unit.Size) error {
	if _, err := b.size(ctx); err != nil {
		return err
	}
	return b.q.Execute(ctx, "balloon", map[string]int64{"value": int64(to)}, nil)
}

// set has the machine come to a size, and returns to which it came before it made no
// more way: a system that uses what is to be given keeps it.
func (b balloon) set(ctx context.Context, to unit.Size) (unit.Size, error) {
	now, err := b.size(ctx)
	if err != nil || now == to {
		return now, err
	}
	if err := b.q.Execute(ctx, "balloon", map[string]int64{"value": int64(to)}, nil); err != nil {
		return now, err
	}
	end, moved := time.Now().Add(balloonPatience), time.Now()
	for last := now; now != to; last = now {
		if err := rest(ctx, balloonLook); err != nil {
			return now, err
		}
		if now, err = b.size(ctx); err != nil {
			return last, err
		}
		if now != last {
			moved = time.Now()
		}
		if time.Since(moved) > balloonStall || time.Now().After(end) {
			break
		}
	}
	return now, nil
}

// squeeze takes all from the machine that its system does not use, but leaves it least,
// and lets it go on with normal.
func (b balloon) squeeze(ctx context.Context, least, normal unit.Size) error {
	now, err := b.size(ctx)
	if err != nil {
		return err
	}
	free, err := b.available(ctx)
	if err != nil {
		return err
	}
	to := max(now-max(free-spareInside, 0), least)
	if to < now {
		if _, err = b.set(ctx, to); err != nil {
			err = fault.Wrap(err, "inflate the balloon")
		}
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), balloonPatience)
	defer cancel()
	_, out := b.set(back, normal)
	return errors.Join(err, fault.Wrap(out, "deflate the balloon"))
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fault.Wrap(ctx.Err(), "wait for the balloon")
	}
}

// ballooned is how much of its memory a machine has whose programs may use r: they, and
// their kernel. Without a limit it has all.
func ballooned(r api.Resources, whole unit.Size) unit.Size {
	if r.Memory == 0 {
		return whole
	}
	return min(max(r.Memory+api.OwnShare, leastSize(r)), whole)
}

// leastSize is what no balloon takes a machine below: what its kernel came up with, and
// its guarantee.
func leastSize(r api.Resources) unit.Size {
	if r.MemoryGuarantee == 0 {
		return smallest
	}
	return max(smallest, r.MemoryGuarantee+api.OwnShare)
}

// shrink has the machine come to what its limits ask for, in its own time. One without a
// balloon stays as it is: its limit is kept inside all the same.
func (l *Live) shrink(ctx context.Context, r api.Resources) error {
	if l.notes.Fixed {
		return nil
	}
	err := l.Monitor(ctx, func(q *qemu.QMP) error {
		whole := l.Boot().Memory
		return balloon{q, whole}.ask(ctx, ballooned(r, whole))
	})
	if errors.Is(err, errNoBalloon) {
		return nil
	}
	return fault.Wrap(err, "move the balloon")
}

// Reclaim implements stratum.Reclaimer.
func (l *Live) Reclaim(ctx context.Context, r api.Resources) (stratum.Reclaimed, error) {
	if l.Paused() {
		return stratum.Reclaimed{}, fault.Conflictf("the system is paused, so it cannot give memory").Help("resume it first")
	}
	before, err := l.Group.Stats()
	if err != nil {
		return stratum.Reclaimed{}, err
	}
	out := stratum.Reclaimed{Before: before.Memory.Current}
	err = errNoBalloon
	if !l.notes.Fixed {
		err = l.Monitor(ctx, func(q *qemu.QMP) error {
			whole := l.Boot().Memory
			return balloon{q, whole}.squeeze(ctx, leastSize(r), ballooned(r, whole))
		})
	}
	switch {
	case l.notes.Fixed:
		out.Kept = "its memory is a saved system's, which cannot be given back; a start with --cold, or with reclaim=idle, has a balloon"
	case r.HugePages != 0:
		out.Kept = "its memory lies in huge pages, of which no part goes back"
	case errors.Is(err, errNoBalloon):
		out.Kept = "no balloon answers inside"
	case err != nil:
		return out, err
	default:
		out.By = append(out.By, "balloon")
	}
	// What the host has of its disks in memory is QEMU's, and no guarantee's.
	if err := l.Group.Reclaim(ctx, 0); err != nil {
		return out, err
	}
	out.By = append(out.By, "page cache")
	after, err := l.Group.Stats()
	if err != nil {
		return out, err
	}
	out.After = after.Memory.Current
	return out, nil
}

var _ stratum.Reclaimer = (*Live)(nil)
