package warm

import (
	"context"
	"os"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
)

// ignoreShared is the capability by which QEMU leaves memory that is shared out of
// what it saves; who loads needs it as well. Source: QEMU, qapi/migration.json.
const ignoreShared = "x-ignore-shared"

// Bounds of waiting for QEMU. It tells of its progress by an event only where a
// capability asks for those, and who reads a monitor's events is not ours to say.
const (
	askEvery = 500 * time.Microsecond
	askMost  = 10 * time.Millisecond
)

type capability struct {
	Capability string `json:"capability"`
	State      bool   `json:"state"`
}

func capable(ctx context.Context, q *qemu.QMP) error {
	return q.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []capability{{ignoreShared, true}}}, nil)
}

// Save stops the machine behind q for good, and writes the state of its devices to f.
// Its memory is not written: it is in a file already. Kinds: Unable, Busy where ctx ended.
func Save(ctx context.Context, q *qemu.QMP, f *os.File) error {
	if err := capable(ctx, q); err != nil {
		return err
	}
	if err := q.Execute(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": "state"}, nil, f); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	return settled(ctx, q)
}

// Restore lets the machine behind q, which waits for a saved system, go on from i:
// its agent answers from then on. disk is the size of the private disk, in bytes; 0: that of
// the source's. ctx bounds the wait. Kinds: Unable (QEMU refuses the image: the machine is of no more use),
// Busy where ctx ended.
func Restore(ctx context.Context, q *qemu.QMP, i *Image, disk int64) error {
	state, err := reopen(i.state)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := capable(ctx, q); err != nil {
		return err
	}
	// A card that has moved has the system tell its neighbours, several times. This one has
	// no address yet.
	if err := q.Execute(ctx, "migrate-set-parameters", map[string]int{"announce-rounds": 0}, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": "state"}, nil, state); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate-incoming", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	if err := settled(ctx, q); err != nil {
		return fault.Wrap(err, "load a saved system")
	}
	if disk != 0 { // the system knows the size of the source's until it is told
		if err := q.Execute(ctx, "block_resize", map[string]any{"node-name": "disk", "size": disk}, nil); err != nil {
			return err
		}
	}
	return q.Execute(ctx, "cont", nil, nil)
}

// settled waits until a migration is over.
func settled(ctx context.Context, q *qemu.QMP) error {
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
