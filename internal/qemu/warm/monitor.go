package warm

import (
	"context"
	"os"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
)

// ignoreShared is the capability by which QEMU leaves memory that is shared out of
// what it saves; who loads needs it as well. Source: QEMU, qapi/migration.json.
const ignoreShared = "x-ignore-shared"

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
	return q.Migrated(ctx)
}

// Restore lets the machine behind q, which waits for a saved system, go on from i:
// its agent answers from then on. disk is the size of the private disk, in bytes; 0: that of
// the source's. ctx bounds the wait. Kinds: Unable (QEMU refuses the image: the machine is of no more use),
// Busy where ctx ended.
func Restore(ctx context.Context, q *qemu.QMP, i *Image, disk int64) error {
	if err := Load(ctx, q, i); err != nil {
		return err
	}
	return resume(ctx, q, disk)
}

// Load is the first half of Restore: the machine has the saved system, and stands still.
func Load(ctx context.Context, q *qemu.QMP, i *Image) error {
	state, err := reopen(i.state)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := capable(ctx, q); err != nil {
		return err
	}
	if err := q.AnnounceLate(ctx); err != nil {
		return err
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": "state"}, nil, state); err != nil {
		return err
	}
	if err := q.Execute(ctx, "migrate-incoming", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	return fault.Wrap(q.Migrated(ctx), "load a saved system")
}

// resume lets a machine go on that stands still, with a disk of that many bytes; 0: as many
// as the source's.
func resume(ctx context.Context, q *qemu.QMP, disk int64) error {
	if disk != 0 { // the system knows the size of the source's until it is told
		if err := q.Execute(ctx, "block_resize", map[string]any{"node-name": qemu.DiskNode, "size": disk}, nil); err != nil {
			return err
		}
	}
	return q.Execute(ctx, "cont", nil, nil)
}
