package guest

import (
	"context"
	"time"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/stratum"
)

// judge takes note of how a boot by KVM went: see accel.Judge.
type judge interface {
	Confirm(p qemu.Program, err error) accel.Verdict
}

// attempts are one guest's: now starts l as it is, byTCG makes it one that QEMU
// translates, because of why.
type attempts struct {
	now   func(context.Context, *launch) (stratum.Live, error)
	byTCG func(ctx context.Context, l *launch, why error) error
}

// orByTCG starts l, and once more by TCG where it is the first guest by this KVM and
// its agent was not met. That KVM is given up where the second attempt does better:
// what no accelerator boots is not a fault of one.
func orByTCG(ctx context.Context, j judge, l *launch, a attempts) (stratum.Live, error) {
	live, err := a.now(ctx, l)
	if err == nil || !l.suspects() || ctx.Err() != nil || blames(err) {
		return live, err
	}
	if err := a.byTCG(ctx, l, err); err != nil {
		return nil, err
	}
	live, second := a.now(ctx, l)
	if l.Met {
		j.Confirm(l.QEMU, err)
	}
	return live, second
}

// suspects tells whether the accelerator may be why l did not come up.
func (l *launch) suspects() bool {
	return l.Machine.Accelerator == qemu.KVM && !l.Proven && l.Begun && !l.Met
}

// stall is how long l may show no sign of life; usual is the time of one whose
// accelerator has run a guest.
func (l *launch) stall(usual time.Duration) time.Duration {
	if l.Machine.Accelerator == qemu.KVM && !l.Proven {
		return min(unprovenPatience, usual)
	}
	return usual
}
