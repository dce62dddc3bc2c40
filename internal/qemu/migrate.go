package qemu

import (
	"context"
	"os"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// Bounds of waiting for QEMU. It tells of its progress by an event only where a
// capability asks for those, and who reads a monitor's events is not ours to say.
const (
	askEvery = 500 * time.Microsecond
	askMost  = 10 * time.Millisecond
)

// Migrated waits until a migration, out or in, is over. Kinds: Unable where it failed,
// Busy where ctx ended.
func (q *QMP) Migrated(ctx context.Context) error {
	for wait := askEvery; ; wait = min(2*wait, askMost) {
		var m struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := q.Execute(ctx, "query-migrate", nil, &m); err != nil {
			return err
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fault.Unablef("QEMU's migration has %s: %q", m.Status, m.Error[:min(len(m.Error), 200)])
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fault.Busyf("QEMU's migration does not end: %w", ctx.Err())
		}
	}
}

// unbounded is more than any disk takes: QEMU would write 128 MiB a second. Unit: bytes
// a second. Source: QEMU, migration/migration.c, MAX_THROTTLE.
const unbounded = 64 << 30

// SaveAll stops the machine's processors, and writes its memory and the state of its
// devices to f, which is a file, or a pipe that somebody reads. Where it fails the
// processors still stand. Kinds: Unable, Busy where ctx ended.
func (q *QMP) SaveAll(ctx context.Context, f *os.File) error {
	if err := q.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	// A clone was loaded without its memory (package warm), and would be refused with it.
	whole := map[string]any{"capabilities": []map[string]any{{"capability": "x-ignore-shared", "state": false}}}
	if err := q.Execute(ctx, "migrate-set-capabilities", whole, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate-set-parameters", map[string]int64{"max-bandwidth": unbounded}, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": "state"}, nil, f); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	if err := q.Migrated(ctx); err != nil {
		// What was given up must not go on writing.
		_ = q.Execute(context.WithoutCancel(ctx), "migrate_cancel", nil, nil) // it may be over
		return err
	}
	return nil
}

// announceLast is the latest that QEMU has a card announce itself after a move. Unit: milliseconds.
// Source: QEMU, qapi/migration.json, announce-initial: at most 100000.
const announceLast = 100_000

// AnnounceLate is for a machine that is about to load a saved state. A card that has moved
// has the system tell its neighbours, at once and several times; this one has no address
// yet. With no round at all QEMU 7.2 dies when the card is
// reset, as by an agent that is to have no network: it has no timer to stop then.
func (q *QMP) AnnounceLate(ctx context.Context) error {
	once := map[string]int{"announce-rounds": 1, "announce-initial": announceLast, "announce-max": announceLast}
	return q.Execute(ctx, "migrate-set-parameters", once, nil)
}

// LoadAll reads what SaveAll wrote into a machine that waits for it (-incoming defer).
// Its processors stand still then. Kinds: as SaveAll's; the machine is of no more use.
func (q *QMP) LoadAll(ctx context.Context, f *os.File) error {
	if err := q.AnnounceLate(ctx); err != nil {
		return err
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": "state"}, nil, f); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate-incoming", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	return q.Migrated(ctx)
}
