package virtual

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
)

// A processor that QEMU emulates is a thread that translates. The room for translations
// is in parts, of which each thread has one of its own, and takes the next when that is
// full; when all are taken, everything is thrown away and each begins with one. QEMU gives
// up, and the machine with it, where a thread begins while none is left. Source: QEMU 7.2,
// tcg/region.c, tcg_region_initial_alloc.
//
// Nor does it live through a processor that is plugged in where one was taken out: it dies
// of SIGSEGV. So none is taken out; the system inside is told not to use it.

// translations is how much of the room is taken. Unit: bytes.
type translations struct{ taken, whole int64 }

// taken is the line of x-query-jit that says so.
var taken = regexp.MustCompile(`gen code size +(\d+)/(\d+)`)

// readTranslations reads what QEMU says of its translations.
func readTranslations(text string) (t translations, err error) {
	m := taken.FindStringSubmatch(text)
	if m == nil {
		return t, fault.Unablef("QEMU does not say how much it has translated")
	}
	t.taken, err = strconv.ParseInt(m[1], 10, 64)
	if err == nil {
		t.whole, err = strconv.ParseInt(m[2], 10, 64)
	}
	if err != nil || t.whole <= 0 || t.taken < 0 {
		return t, fault.Unablef("QEMU says %q of what it has translated", m[0])
	}
	return t, nil
}

// leastPart is the least size of a part where there are more than threads can begin, of
// which each can then have perThread. Source: as above, tcg_n_regions.
const (
	leastPart = 2 << 20
	perThread = 8
)

// part is the size of one of the parts of a machine of so many sockets.
func (t translations) part(sockets int) int64 {
	n := t.whole / leastPart
	if n <= int64(sockets) {
		n = int64(sockets)
	} else {
		n = min(n, int64(sockets)*perThread)
	}
	return t.whole / n
}

// fits tells whether further threads can begin beside those that have begun: what these
// have not filled of a part is taken as well.
func (t translations) fits(sockets, begun, further int) bool {
	return t.taken+int64(begun+further)*t.part(sockets) <= t.whole
}

// How long QEMU is waited for to throw its translations away, and how often is looked.
const (
	translationsPatience = 30 * time.Second
	translationsLook     = 200 * time.Millisecond
)

// plugEmulated has QEMU begin further threads beside those that have begun, by plug, where
// that is known to go well: while the processors stand still. Kinds: Busy where it is not.
func (l *Live) plugEmulated(ctx context.Context, b board, further int, plug func(monitor) error) (err error) {
	sockets, begun := len(b), b.count()
	if err := l.plugging(true); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = l.plugging(false)
		}
	}()
	return l.Monitor(ctx, func(q *qemu.QMP) (err error) {
		defer func() { err = errors.Join(err, goOn(context.WithoutCancel(ctx), q)) }()
		for end := time.Now().Add(translationsPatience); ; {
			if err := q.Execute(ctx, "stop", nil, nil); err != nil {
				return err
			}
			t, err := translated(ctx, q)
			if err != nil {
				return err
			}
			if t.fits(sockets, begun, further) {
				return plug(q)
			}
			if time.Now().After(end) {
				return fault.Busyf("QEMU emulates this machine, and has no room for what another processor does: %d of %d bytes are taken", t.taken, t.whole).Help("try again when the system inside has done something else")
			}
			if err := errors.Join(coarse(ctx, q, true), q.Execute(ctx, "cont", nil, nil)); err != nil {
				return err
			}
			if err := rest(ctx, translationsLook); err != nil {
				return err
			}
		}
	})
}

func translated(ctx context.Context, q monitor) (translations, error) {
	var said struct {
		Text string `json:"human-readable-text"`
	}
	if err := q.Execute(ctx, "x-query-jit", nil, &said); err != nil {
		return translations{}, err
	}
	return readTranslations(said.Text)
}

// coarse has QEMU translate each instruction for itself, and so anew, which fills the room
// within moments. The command had another name before QEMU 8.1; one that is not known is
// answered in words.
func coarse(ctx context.Context, q monitor, on bool) error {
	value := map[bool]string{true: "on", false: "off"}[on]
	for _, name := range []string{"singlestep", "one-insn-per-tb"} {
		if err := q.Execute(ctx, "human-monitor-command", map[string]string{"command-line": fmt.Sprint(name, " ", value)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// goOn has the machine go on as before.
func goOn(ctx context.Context, q monitor) error {
	return errors.Join(coarse(ctx, q, false), q.Execute(ctx, "cont", nil, nil))
}

// plugging notes whether it is under way.
func (l *Live) plugging(now bool) error {
	l.mu.Lock()
	l.notes.Plugging = now
	n := l.notes
	l.mu.Unlock()
	return l.d.Held.Note(l.ID, n)
}

// plugged ends what a daemon left that died in the midst of plugging in.
func (l *Live) plugged(ctx context.Context) {
	if !l.notes.Plugging {
		return
	}
	err := l.Monitor(ctx, func(q *qemu.QMP) error { return goOn(ctx, q) })
	if err == nil {
		err = l.plugging(false)
	}
	if err != nil {
		l.d.Log.Warn("a machine may stand still that was given processors", "id", l.ID, "error", err)
	}
}
