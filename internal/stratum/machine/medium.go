package machine

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
)

// Insert implements stratum.Changer.
func (f *Foreign) Insert(ctx context.Context, iso string) error {
	c, err := openCD(iso)
	if err != nil {
		return err
	}
	defer c.Close()
	return f.Monitor(ctx, func(q *qemu.QMP) (err error) {
		// QEMU opens nothing by itself; what is in use of a set stays when the set goes.
		var set struct {
			Number int `json:"fdset-id"`
		}
		if err := q.Execute(ctx, "add-fd", nil, &set, c.Layers[0].Parts[0].File); err != nil {
			return err
		}
		defer func() {
			err = errors.Join(err, q.Execute(ctx, "remove-fd", map[string]int{"fdset-id": set.Number}, nil))
		}()
		return opened(ctx, func() error {
			return q.Execute(ctx, "blockdev-change-medium", map[string]string{
				"id": foreignCD, "filename": "/dev/fdset/" + strconv.Itoa(set.Number), "format": "raw", "read-only-mode": "read-only",
			}, nil)
		})
	})
}

// Eject implements stratum.Changer.
func (f *Foreign) Eject(ctx context.Context) error {
	return opened(ctx, func() error { return f.Execute(ctx, "eject", map[string]string{"id": foreignCD}, nil) })
}

// openPatience is how long a system may take to open its drive: Linux has it locked as long
// as there is a CD in it, and looks every two seconds whether it is asked to open it.
// Source: drivers/scsi/sr.c, block/disk-events.c; systemd's 60-cdrom_id.rules.
const (
	openPatience = 10 * time.Second
	openLook     = 500 * time.Millisecond
)

// opened does what takes an open drive, which the system inside is asked for where it is not.
func opened(ctx context.Context, do func() error) error {
	for end := time.Now().Add(openPatience); ; {
		err := do()
		if err == nil || !locked(err) || time.Now().After(end) {
			return shut(err)
		}
		select {
		case <-ctx.Done():
			return shut(err)
		case <-time.After(openLook):
		}
	}
}

// locked tells whether the system inside keeps the drive shut. Source: QEMU,
// block/qapi-sysemu.c, do_open_tray.
func locked(err error) bool { return err != nil && strings.Contains(err.Error(), "is locked") }

// shut says it in strata's words where it does.
func shut(err error) error {
	if !locked(err) {
		return err
	}
	return fault.Conflictf("the system inside keeps the CD drive shut, and was asked to open it").At("foreign.iso").Help("have it let go of the CD (eject, umount), and try again")
}

var _ stratum.Changer = (*Foreign)(nil)
