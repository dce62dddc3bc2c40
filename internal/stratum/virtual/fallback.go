package virtual

import (
	"context"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// judge takes note of how a boot by KVM went: see accel.Judge.
type judge interface {
	Confirm(p qemu.Program, err error) accel.Verdict
}

// attempts are one launch's: now starts it as it is, again prepares it once more,
// so that nothing of the first attempt is in it.
type attempts struct {
	now   func(context.Context) (*Live, error)
	again func(ctx context.Context, accelerator string) error
}

// AttemptTwice starts l, and once more where it did not come up though nothing that was
// asked for is to blame: by TCG where it is the first system by this KVM, else, where it
// hangs, by the same accelerator. again prepares *l anew, for the one that it is given.
func (d *Driver) AttemptTwice(ctx context.Context, p stratum.Plan, l *Launch, o stratum.StartOptions, again func(ctx context.Context, accelerator string) error) (*Live, error) {
	return twice(ctx, d.Judge, l, attempts{
		now: func(ctx context.Context) (*Live, error) { return d.Attempt(ctx, p, l, o) },
		again: func(ctx context.Context, accelerator string) error {
			d.Log.Warn("a "+d.o.Stratum+" did not boot, and is booted once more", "id", p.ID, "accelerator", l.Notes.Boot.Accelerator)
			return again(ctx, accelerator)
		},
	})
}

// twice gives KVM up where the second attempt does better: what no accelerator boots
// is not a fault of one.
func twice(ctx context.Context, j judge, l *Launch, a attempts) (*Live, error) {
	live, err := a.now(ctx)
	if err == nil || !l.suspects() && !l.hung(err) || ctx.Err() != nil || Blames(err) {
		return live, err
	}
	if l.hung(err) {
		if err := a.again(ctx, l.Notes.Boot.Accelerator); err != nil {
			return nil, err
		}
		l.Last = true
		return a.now(ctx)
	}
	if err := a.again(ctx, qemu.TCG); err != nil {
		return nil, err
	}
	l.Last, l.Proven, l.Notes.Boot.Accelerator, l.Notes.Boot.Why = true, false, qemu.TCG, accel.Unbooted(err)
	live, second := a.now(ctx)
	if l.Met {
		j.Confirm(l.QEMU, err)
	}
	return live, second
}

// suspects tells whether the accelerator may be why l did not come up.
func (l *Launch) suspects() bool {
	return l.Notes.Boot.Accelerator == qemu.KVM && !l.Proven && l.Begun && !l.Met
}

// hung tells whether l came to nothing by an accelerator that has run others. That is
// seen of a KVM inside an emulated machine, about once in forty starts, and of TCG on a
// busy host, once in some hundreds: its console stays empty, or says that it has no timer. What goes on from a saved
// state is not done again: it may have run, and its disk is no longer what it knows.
func (l *Launch) hung(err error) bool {
	known := l.Notes.Boot.Accelerator == qemu.TCG || l.Proven
	return known && l.From == nil && l.Begun && !l.Met && (fault.KindOf(err) == fault.Busy || timerless(err))
}

// timerless tells of a system that ended as it booted because the host had held it up while it
// measured its timer. It says so on its console; nobody else's program runs there yet.
func timerless(err error) bool { return strings.Contains(err.Error(), spec.NoTimer) }

// stall is how long l may show no sign of life; usual is the time where there will be no
// further attempt.
func (l *Launch) stall(usual time.Duration) time.Duration {
	if l.Last {
		return usual
	}
	return min(firstPatience, usual)
}

// Blames tells whether err is of what the user asked for, which another boot would
// not change.
func Blames(err error) bool {
	for _, e := range fault.All(err) {
		if e.Field != "" {
			return true
		}
	}
	return false
}
