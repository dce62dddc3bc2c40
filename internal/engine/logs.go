package engine

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Logs calls emit for each piece of what the main program, or another source,
// wrote, in order; emit may keep nothing of it. The kernel's log of a zone is what the
// host's kernel did to it, in strata's words: its processes that were killed for want of
// memory. With Follow it goes on until the
// environment has stopped for good or is gone. Kinds: Missing, Unable where the
// stratum has no such source, Conflict where the source needs a run, and emit's own.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, emit func(api.LogLine) error) error {
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	dir := logDir
	if o.Source != SourceConsole && !(o.Source == SourceKernel && en.settled()) {
		if err := en.hasAgent("has no main program and no kernel whose output strata gets"); err != nil {
			return err
		}
	}
	switch o.Source {
	case SourceConsole:
		if err := e.able(en, stratum.CanConsole, "has no console"); err != nil {
			return err
		}
		dir = consoleDir
	case SourceKernel:
		if en.snapshot().Stratum != stratum.Zone {
			return e.kernelLog(ctx, en, o, emit)
		}
		dir = kernelDir
	}
	ctx, cancel := e.until(ctx)
	defer cancel()
	ended := make(chan struct{})
	if o.Follow {
		go func() {
			defer close(ended)
			// Where ctx ends the reader does as well.
			_ = en.until(ctx, func() bool { return !en.state.Active() })
		}()
	} else {
		close(ended)
	}
	return e.o.Logs(ctx, filepath.Join(e.store.Dir(en.id()), dir), o, ended, emit)
}

// levels stand before a kernel's lines. Source: printk's, as syslog(2) gives them.
var levels = regexp.MustCompile(`(?m)^<\d+>`)

// kernelLog emits the log of the kernel inside, as it stands now.
func (e *Engine) kernelLog(ctx context.Context, en *entry, o LogOptions, emit func(api.LogLine) error) error {
	if err := e.able(en, stratum.CanKernelLog, "has no kernel of its own"); err != nil {
		return err
	}
	if o.Follow || !o.Since.IsZero() || !o.Until.IsZero() {
		return fault.Invalidf("the kernel's log is read whole, as it stands").At("source").Help("leave out follow, since and until; `--tail` does")
	}
	r, err := en.current("asked for its kernel's log")
	if err != nil {
		return fault.All(err)[0].Help("`strata console %s` has what was kept of its console, where a kernel that panics says why", en.name())
	}
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	text, err := r.live.(stratum.KernelLogger).KernelLog(ctx)
	if err != nil {
		return fault.Wrap(err, "read the log of the kernel of %s", en.name())
	}
	text = levels.ReplaceAll(text, nil)
	if o.Tail >= 0 {
		lines := bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
		text = append(bytes.Join(lines[max(0, len(lines)-o.Tail):], nil), '\n')
	}
	return emit(api.LogLine{Time: time.Now(), Stream: "stdout", Data: text})
}

// statsPatience bounds one look at what an environment uses.
const statsPatience = 5 * time.Second

// Stats returns what a running environment uses now. One whose agent does not answer says
// so, with what the host knows. Kinds: Missing, Conflict.
func (e *Engine) Stats(ctx context.Context, ref string) (api.Stats, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.Stats{}, err
	}
	en.mu.Lock()
	r, state, id, name := en.run, en.state, en.rec.ID, en.rec.Name
	en.mu.Unlock()
	if r == nil {
		return api.Stats{}, fault.Conflictf("environment %s is %s, so it uses nothing", name, state).Help("start it first: strata start %s", name)
	}
	ctx, cancel := context.WithTimeout(ctx, r.patience(statsPatience))
	defer cancel()
	s, err := r.live.Stats(ctx)
	switch {
	case err == nil:
	case s.CPUTime == 0 || fault.Is(err, fault.Missing): // the host knows nothing of it
		return api.Stats{}, fault.Wrap(err, "look at what %s uses", name)
	default:
		said := err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			said = silent
		}
		s.Missing = r.reason(said)
	}
	s.ID, s.Name = id, name
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	return s, nil
}

// detail adds to v what takes a look at the host.
func (e *Engine) detail(ctx context.Context, en *entry, v *api.Environment) {
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	if used, size, err := disk.Usage(e.diskOf(en.snapshot())); err == nil {
		v.DiskUsed, v.DiskSize = used, size
		if v.Spec.Foreign != nil { // the file is as large as what was written
			v.DiskSize = int64(v.Spec.Resources.Disk)
		}
	}
	if r == nil || v.State == environment.Stopping.Public() {
		return
	}
	if l, err := e.diskGrower(en, r); err == nil && v.Spec.Foreign == nil {
		if most, err := l.MostDisk(e.diskOf(en.snapshot())); err == nil {
			v.DiskMost = int64(most)
		}
	}
	if r.stalls() {
		v.Trouble = e.roomless(v.ID) // and nobody inside can be asked
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statsPatience)
	defer cancel()
	if s, err := r.live.Stats(ctx); err == nil { // it may have ended meanwhile
		v.MemoryUsed, v.ProcessCount = s.Memory, s.PIDs
	}
}
