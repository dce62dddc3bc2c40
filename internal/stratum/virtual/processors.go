package virtual

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/unit"
)

// socket is where a processor is, or can be. Source: QEMU, qapi/machine.json, HotpluggableCPU.
type socket struct {
	Type  string   `json:"type"`
	Props position `json:"props"`
	Path  string   `json:"qom-path"` // "": it is empty
}

// position is where a socket is: a board of ours has cores of one package.
type position struct {
	Socket int64 `json:"socket-id"`
	Core   int64 `json:"core-id"`
	Thread int64 `json:"thread-id"`
}

// board are all sockets of a machine, in the order of their processors' numbers.
type board []socket

// readBoard asks which sockets a machine has, and what is in them.
func readBoard(ctx context.Context, q monitor) (board, error) {
	var b board
	if err := q.Execute(ctx, "query-hotpluggable-cpus", nil, &b); err != nil {
		return nil, err
	}
	slices.SortFunc(b, func(a, c socket) int { return cmp.Compare(a.Props.Core, c.Props.Core) })
	return b, nil
}

// count is how many processors there are.
func (b board) count() (n int) {
	for _, s := range b {
		if s.Path != "" {
			n++
		}
	}
	return n
}

// row tells whether the processors are the board's first ones: only such a machine can
// be made again by their number.
func (b board) row() bool {
	n := b.count()
	return !slices.ContainsFunc(b[n:], func(s socket) bool { return s.Path != "" })
}

// missing are the sockets to be filled, the first first, so that there are n processors.
func (b board) missing(n int) (empty board) {
	n -= b.count()
	for _, s := range b {
		if s.Path == "" && len(empty) < n {
			empty = append(empty, s)
		}
	}
	return empty
}

// surplus are the processors to be taken, the last first, so that n are left. The first
// is never taken: a system begins and ends on it.
func (b board) surplus(n int) (full board) {
	n = b.count() - max(n, 1)
	for i := len(b) - 1; i > 0 && len(full) < n; i-- {
		if b[i].Path != "" {
			full = append(full, b[i])
		}
	}
	return full
}

// device is a processor in s, as device_add takes it.
func (s socket) device() map[string]any {
	return map[string]any{
		"driver": s.Type, "id": fmt.Sprint("processor", s.Props.Core), "socket-id": s.Props.Socket, "core-id": s.Props.Core, "thread-id": s.Props.Thread,
	}
}

// How long a system may take to let go of a processor, and how often is looked.
const (
	letGo     = 15 * time.Second
	letGoLook = 100 * time.Millisecond
)

// target is how many processors a machine that has some is to have for r. One without a
// limit keeps what it has.
func target(r api.Resources, have int) (int, error) {
	n, err := machineProcessors(max(r.CPUs, r.CPUGuarantee))
	if r.CPUs == 0 {
		n = max(n, have)
	}
	return n, err
}

// plugIn gives the machine processors until it has n, and takes them out again where what
// follows fails. It returns how many there are.
func (l *Live) plugIn(ctx context.Context, n int, back *undo.Stack) (have int, err error) {
	if l.most() == 0 {
		return l.noted().Present, nil
	}
	b, err := l.sockets(ctx)
	if err != nil {
		return 0, err
	}
	have = b.count()
	empty := b.missing(n)
	if len(empty) == 0 {
		return have, nil
	}
	if l.Paused() {
		return have, fault.Conflictf("the system is paused, so it cannot be given processors").Help("resume it first")
	}
	back.Push("take the processors out", func(ctx context.Context) error { return l.takeOut(ctx, have) })
	plug := func(q monitor) error {
		for _, s := range empty {
			if err := q.Execute(ctx, "device_add", s.device(), nil); err != nil {
				return fault.Wrap(err, "plug a processor in")
			}
		}
		return nil
	}
	if l.Boot().Accelerator == qemu.TCG {
		return have + len(empty), l.plugEmulated(ctx, b, len(empty), plug)
	}
	return have + len(empty), l.Monitor(ctx, func(q *qemu.QMP) error { return plug(q) })
}

// takeOut asks the system to let go of processors until n are left, where QEMU lives
// through that, see plugEmulated. One that keeps them is no error: they get no more of the
// host than its limit says.
func (l *Live) takeOut(ctx context.Context, n int) error {
	if l.most() == 0 || l.Paused() || l.Boot().Accelerator == qemu.TCG {
		return nil
	}
	b, err := l.sockets(ctx)
	if err != nil {
		return err
	}
	for _, s := range b.surplus(n) {
		gone, err := l.release(ctx, s)
		if err != nil {
			return fault.Wrap(err, "take a processor out")
		}
		if !gone {
			l.d.Log.Debug("a system keeps a processor that it was asked to let go of", "id", l.ID, "processor", s.Props.Core)
			return nil // those before it would leave a hole
		}
	}
	return nil
}

// release asks for one processor, and tells whether it is gone.
func (l *Live) release(ctx context.Context, s socket) (gone bool, err error) {
	err = l.Execute(ctx, "device_del", map[string]string{"id": s.Path}, nil)
	if no := new(qemu.Refused); errors.As(err, &no) { // such as a firmware's that lets none go
		l.d.Log.Debug("a processor cannot be taken out", "id", l.ID, "err", err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for end := time.Now().Add(letGo); ; {
		b, err := l.sockets(ctx)
		if err != nil {
			return false, err
		}
		if !slices.ContainsFunc(b, func(o socket) bool { return o.Path == s.Path }) {
			return true, nil
		}
		if time.Now().After(end) {
			return false, nil
		}
		if err := rest(ctx, letGoLook); err != nil {
			return false, err
		}
	}
}

// sockets asks in a session of its own: one keeps others waiting.
func (l *Live) sockets(ctx context.Context) (b board, err error) {
	err = l.Monitor(ctx, func(q *qemu.QMP) error {
		b, err = readBoard(ctx, q)
		return err
	})
	return b, err
}

// most is how many processors the machine can have while it runs; 0: those that it has.
func (l *Live) most() int { return l.Boot().MostCPUs }

// counted asks QEMU how many processors there are, which is what a system that let go of
// one late, or a daemon that died meanwhile, has left.
func (l *Live) counted(ctx context.Context) error {
	if l.most() == 0 {
		return nil
	}
	b, err := l.sockets(ctx)
	if err != nil {
		return fault.Wrap(err, "count the processors")
	}
	if !b.row() {
		return fault.Conflictf("the system let go of a processor in the midst of others, so a machine like this one cannot be made again").At("resources.cpus").
			Help("set cpus to the number that it has left, or to one, and try again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes.Present = b.count()
	if l.notes.Boot.CPUs > l.notes.Present || l.notes.Boot.Accelerator != qemu.TCG {
		l.notes.Boot.CPUs = l.notes.Present
	}
	return nil
}

// Resize has the machine come to the processors that r asks for, and its group to r. tell
// does what there is to do inside, with so many processors to be in use, 0: as they are, and
// says whether somebody did that. Where nobody is, the system does it by itself, or not at all.
func (l *Live) Resize(ctx context.Context, r api.Resources, tell func(use int) (told bool, err error)) (err error) {
	var back undo.Stack
	defer back.Unless(ctx, &err)
	was := l.noted()
	want, err := target(r, was.Boot.CPUs)
	if err != nil {
		return err
	}
	have, err := l.plugIn(ctx, want, &back)
	if err != nil {
		return err
	}
	if err := l.Group.Set(hostLimits(was.Boot.Memory, r, was.Disks)); err != nil {
		return err
	}
	use := 0 // unless it changes; also again, as a daemon may have ended before it said so
	if was.Boot.MostCPUs > 0 && (want != was.Boot.CPUs || r.CPUs != was.Limits.CPUs || r.CPUGuarantee != was.Limits.CPUGuarantee) {
		use = want
	}
	told, err := tell(use)
	if err != nil {
		return err
	}
	if err := l.takeOut(ctx, want); err != nil {
		return err
	}
	l.mu.Lock()
	l.limits, l.notes.Limits = r, r
	if use > 0 && told {
		l.notes.Boot.CPUs = want
	} else if use > 0 {
		l.notes.Boot.CPUs = have
	}
	l.mu.Unlock()
	if err := l.counted(ctx); err != nil && !fault.Is(err, fault.Conflict) {
		return err
	}
	return l.d.Held.Note(l.ID, l.noted()) // for the daemon after this one
}

// noted are the notes as they are now.
func (l *Live) noted() Notes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notes
}

// Limits are what it runs with.
func (l *Live) Limits() api.Resources { return l.noted().Limits }

// Room refuses more processors than the machine can have while it runs. Kinds: Conflict,
// Invalid.
func (l *Live) Room(r api.Resources) error {
	boot := l.Boot()
	for _, p := range []struct {
		field string
		cpus  unit.CPUs
	}{{"cpus", r.CPUs}, {"cpu_guarantee", r.CPUGuarantee}} {
		n, err := machineProcessors(p.cpus)
		if err != nil {
			return err
		}
		if p.cpus == 0 || n <= max(boot.CPUs, boot.MostCPUs) {
			continue
		}
		if boot.MostCPUs > 0 {
			return fault.Conflictf("the machine has room for %d processors while it runs", boot.MostCPUs).At("resources." + p.field).Help("stop it first: its next start gets more")
		}
		help := "stop it first: its next start gets more"
		if l.d.Stratum() == stratum.Guest {
			help += "; a machine takes processors while it runs: strata move NAME machine"
		}
		return fault.Conflictf("the machine has fewer processors: %d, and its board takes none while it runs", boot.CPUs).At("resources."+p.field).Help("%s", help)
	}
	return nil
}
