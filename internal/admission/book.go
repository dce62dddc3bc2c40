package admission

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Host is what there is to give. The zero value of a ratio sets no bound.
type Host struct {
	Memory        unit.Size // of the host
	CPUs          unit.CPUs // of the host
	ReserveMemory unit.Size // the host's own
	ReserveCPUs   unit.CPUs
	// Overcommit are the ratios by which limits together may pass the capacity. 0: as
	// they like. What has no limit counts as the whole capacity then.
	OvercommitMemory, OvercommitCPUs float64
}

// Capacity is what guarantees may take of each resource.
func (h Host) Capacity() (unit.Size, unit.CPUs) {
	return max(h.Memory-h.ReserveMemory, 0), max(h.CPUs-h.ReserveCPUs, 0)
}

// Claim is what one environment takes while it runs.
type Claim struct {
	ID, Name, Stratum string
	Memory            unit.Size // guaranteed
	CPUs              unit.CPUs // guaranteed
	Overhead          unit.Size // strata's own, for it
	MemoryLimit       unit.Size // 0: none
	CPULimit          unit.CPUs // 0: none
	Weight            int       // of processor time; 0: 100
}

// memory is what the claim counts as.
func (c Claim) memory() unit.Size { return c.Memory + c.Overhead }

// Beside is what is taken while what old and c guarantee is to be had at the same time.
func (c Claim) Beside(old Claim) Claim {
	c.Memory, c.CPUs, c.Overhead = max(c.Memory, old.Memory), max(c.CPUs, old.CPUs), max(c.Overhead, old.Overhead)
	return c
}

// MaxWaiting is how many claims wait at most.
const MaxWaiting = 256

// Book holds the claims of one host. Make one with New.
type Book struct {
	mu      sync.Mutex
	host    Host
	claims  map[string]Claim
	waiting []*waiter // in the order of asking
}

type waiter struct {
	claim Claim
	taken chan struct{} // closed when the claim is taken
}

// New returns an empty book.
func New(h Host) *Book { return &Book{host: h, claims: map[string]Claim{}} }

// Host returns what the book gives.
func (b *Book) Host() Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.host
}

// KeepCPUs sets the host's own part of its processors, and returns what it is: less where
// so much is guaranteed already that the sum would pass the capacity.
func (b *Book) KeepCPUs(reserve unit.CPUs) unit.CPUs {
	b.mu.Lock()
	defer b.mu.Unlock()
	given := b.host.Total(b.sorted("")).CPUs
	b.host.ReserveCPUs = max(min(reserve, b.host.CPUs-given), 0)
	b.serve()
	return b.host.ReserveCPUs
}

// Take takes a claim, instead of the one of the same id that it has. If it fails
// that one stays. Kinds: Full, with the arithmetic.
func (b *Book) Take(c Claim) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fits(c); err != nil {
		return err
	}
	b.put(c)
	return nil
}

// Wait takes a claim as Take does, as soon as it fits, and returns when it has; of what
// the one of the same id has by then it gives nothing back.
// A claim that could never fit is refused at once. Kinds: Full; Busy where too many
// wait, or ctx's deadline passes.
func (b *Book) Wait(ctx context.Context, c Claim) error {
	b.mu.Lock()
	c = c.Beside(b.claims[c.ID])
	if err := New(b.host).fits(c); err != nil {
		b.mu.Unlock()
		return fault.Wrap(err, "it would wait forever")
	}
	if len(b.waiting) == 0 && b.fits(c) == nil {
		b.put(c)
		b.mu.Unlock()
		return nil
	}
	if len(b.waiting) >= MaxWaiting {
		b.mu.Unlock()
		return fault.Busyf("%d starts wait for room already", MaxWaiting)
	}
	w := &waiter{c, make(chan struct{})}
	b.waiting = append(b.waiting, w)
	b.mu.Unlock()
	select {
	case <-w.taken:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.taken: // in the last moment
		return nil
	default:
	}
	full := b.fits(c)
	b.waiting = slices.DeleteFunc(b.waiting, func(other *waiter) bool { return other == w })
	b.serve() // those behind it may fit
	return late(ctx.Err(), full)
}

// late says why a wait is over: where its time is, with the arithmetic as it is now.
func late(over, full error) error {
	if !errors.Is(over, context.DeadlineExceeded) {
		return over
	}
	if full == nil {
		return fault.Busyf("there was no room in time: others wait for more, before it")
	}
	why := fault.All(full)[0]
	return fault.Busyf("there was no room in time: %s", why.Message).At(why.Field).Help("%s", strings.Replace(why.Hint, waiting, longer, 1))
}

// Restore takes the claim of what runs already, whether or not there is room.
func (b *Book) Restore(c Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(c)
}

// Give gives a claim back. One that is not there is no error.
func (b *Book) Give(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.claims, id)
	b.serve()
}

// put takes c, which may make room by being smaller than the one before it.
func (b *Book) put(c Claim) {
	b.claims[c.ID] = c
	b.serve()
}

// serve takes what waits and fits, in order.
func (b *Book) serve() {
	for len(b.waiting) > 0 {
		w := b.waiting[0]
		c := w.claim.Beside(b.claims[w.claim.ID])
		if b.fits(c) != nil {
			return
		}
		b.waiting = b.waiting[1:]
		b.claims[c.ID] = c
		close(w.taken)
	}
}

// Claims returns what is held, the largest guarantee first, and what waits, in order.
func (b *Book) Claims() (held, waiting []Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.waiting {
		waiting = append(waiting, w.claim)
	}
	return b.sorted(""), waiting
}

// sorted are all claims but one.
func (b *Book) sorted(but string) []Claim {
	var all []Claim
	for id, c := range b.claims {
		if id != but {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(x, y Claim) int {
		return cmp.Or(cmp.Compare(y.memory(), x.memory()), cmp.Compare(y.CPUs, x.CPUs), strings.Compare(x.Name, y.Name))
	})
	return all
}
