package virtual

import (
	"context"
	"errors"
	"fmt"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Block is what memory is plugged in by: Linux lists less than that nowhere, and leaves it
// alone. Source: arch/x86/include/asm/sparsemem.h, SECTION_SIZE_BITS.
const Block = 128 * unit.MiB

// MemorySlots is how often memory can be plugged in: each slot is a line of the firmware's
// tables.
const MemorySlots = 32

// Memory is how much a machine has at its start for r, and how much its board has room for
// where its programs may be given most while it runs; 0 where it has that already. Kinds:
// Invalid.
func Memory(r api.Resources, most unit.Size) (base, room unit.Size, err error) {
	base, _, err = wanted(r)
	if need := most + api.OwnShare; err == nil && most > 0 && need > base {
		room = base + blocks(need-base)
	}
	return base, room, err
}

// blocks is n in whole blocks.
func blocks(n unit.Size) unit.Size { return (n + Block - 1) / Block * Block }

// memorySize is what QEMU says of a machine's memory. Source: qapi/machine.json, MemoryInfo.
type memorySize struct {
	Base    unit.Size `json:"base-memory"`
	Plugged unit.Size `json:"plugged-memory"`
}

// Grow plugs memory in until the machine has need. What was plugged in stays until the
// machine's end: no system lets go of memory on demand. Kinds: Conflict.
func (l *Live) Grow(ctx context.Context, need unit.Size) error {
	boot := l.Boot()
	if need <= boot.Memory {
		return nil
	}
	if need > boot.MostMemory {
		return fault.Conflictf("the machine has room for %s of memory while it runs", boot.MostMemory).At("resources.memory").Help("stop it first: its next start gets more")
	}
	err := l.Monitor(ctx, func(q *qemu.QMP) error {
		var have memorySize
		if err := q.Execute(ctx, "query-memory-size-summary", nil, &have); err != nil {
			return err
		}
		whole := have.Base + have.Plugged // also what a daemon plugged in that ended before it said so
		if need > whole {
			more := blocks(need - whole)
			if err := l.plugMemory(ctx, q, more); err != nil {
				return err
			}
			whole += more
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.notes.Boot.Memory, l.notes.Plugged = whole, whole-have.Base
		return nil
	})
	if err != nil {
		return fault.Wrap(err, "plug memory in")
	}
	return l.d.Held.Note(l.ID, l.noted())
}

// plugMemory adds a module of size.
func (l *Live) plugMemory(ctx context.Context, q monitor, size unit.Size) error {
	var all []any
	if err := q.Execute(ctx, "query-memory-devices", nil, &all); err != nil {
		return err
	}
	id, module := fmt.Sprint("memory", len(all)), fmt.Sprint("module", len(all))
	drop := func(ctx context.Context) error { return q.Execute(ctx, "object-del", map[string]string{"id": id}, nil) }
	if no := new(qemu.Refused); len(all) >= MemorySlots {
		return fault.Conflictf("memory was plugged in %d times, and the board has no more places", len(all)).At("resources.memory").Help("stop it first: its next start has it in one piece")
	} else if err := drop(ctx); err != nil && !errors.As(err, &no) { // one that a daemon left that ended here
		return err
	}
	ram := map[string]any{"qom-type": "memory-backend-ram", "id": id, "size": int64(size)}
	if l.notes.Volumes > 0 { // whose servers look into it
		ram["qom-type"], ram["share"] = "memory-backend-memfd", true
	}
	if err := q.Execute(ctx, "object-add", ram, nil); err != nil {
		return err
	}
	if err := q.Execute(ctx, "device_add", map[string]string{"driver": "pc-dimm", "id": module, "memdev": id}, nil); err != nil {
		return errors.Join(err, drop(context.WithoutCancel(ctx)))
	}
	return nil
}

// Populate is what an agent inside is told of memory that was plugged in, 0 where none was.
func (l *Live) Populate(limits spec.Limits) spec.Limits {
	if n := l.noted(); n.Plugged > 0 {
		limits.Whole = int64(n.Boot.Memory)
	}
	return limits
}
