package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/oom"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// wordOfKill is how long the end of a run for want of memory waits for the kernel's
// words of it, which come by another way.
const wordOfKill = time.Second

// WatchKills returns an Options.Kills that reads the host's kernel, where root is
// the name of the control group that environments' groups are in.
func WatchKills(root string) func(context.Context, func(oom.Kill)) error {
	return func(ctx context.Context, tell func(oom.Kill)) error { return oom.Watch(ctx, root, tell) }
}

// watchKills tells of what the host's kernel kills, until the engine closes.
func (e *Engine) watchKills() {
	err := e.o.Kills(e.life, func(k oom.Kill) {
		en := e.inGroup(k.ID)
		if en == nil {
			return
		}
		o := api.OOM{Process: k.Process, Held: unit.Size(k.Held), Short: api.OOMLimit}
		en.mu.Lock()
		zone := en.rec.Stratum == stratum.Zone
		en.mu.Unlock()
		if zone {
			o.PID = oom.Inside(k.PID, k.Process)
		}
		switch {
		case k.Short == oom.Whole:
			o.Short = api.OOMHost
		case k.Short == oom.Group:
			o.Short = api.OOMGroup
		case !zone: // QEMU, or who serves it
			o.Short = api.OOMMachine
		}
		e.killed(en, o)
	})
	if err != nil {
		e.log.Warn("which processes die for want of memory is only counted", "error", err)
	}
}

// inGroup is the environment whose run is in the control group of that name; nil: it is
// nobody's.
func (e *Engine) inGroup(name string) *entry {
	e.mu.RLock()
	en := e.ids[name]
	e.mu.RUnlock()
	if en != nil && en.aside { // nothing is written down of it
		return nil
	}
	if en != nil {
		return en
	}
	for _, en := range e.entries() {
		en.mu.Lock()
		r := en.run
		en.mu.Unlock()
		if r == nil {
			continue
		}
		if g, ok := r.live.(stratum.Grouped); ok && g.GroupName() == name {
			return en
		}
	}
	return nil
}

// watchConsole tells of what the kernel of a system of its own kills, which says so on
// its console, until the run is over. Only what is said from since on counts.
func (e *Engine) watchConsole(en *entry, r *run, since time.Time) {
	var words oom.Console
	dir := filepath.Join(e.store.Dir(en.id()), consoleDir)
	err := e.o.Logs(e.life, dir, LogOptions{Since: since, Tail: -1, Follow: true}, r.done, func(l api.LogLine) error {
		for _, k := range words.Write(l.Data) {
			o := api.OOM{Process: k.Process, PID: k.PID, Held: unit.Size(k.Held), Short: api.OOMLimit}
			if k.Short == oom.Whole {
				o.Short = api.OOMMachine
			}
			e.killed(en, o)
		}
		return nil
	})
	if err != nil && e.life.Err() == nil {
		e.log.Debug("a console is not watched for what its kernel kills", "id", en.id(), "error", err)
	}
}

// killsEvery is how often kills in one environment are told: one that makes many
// processes can have many killed, and all of them are counted.
const killsEvery = time.Second

// killed notes a kill in what runs, and tells of it.
func (e *Engine) killed(en *entry, o api.OOM) {
	o.At = time.Now()
	told, remove := false, false
	en.do(func() {
		if o.Short == api.OOMLimit {
			o.Limit = en.rec.Spec.Resources.Memory
		}
		last := en.rec.OOM
		told = last == nil || !last.At.After(en.rec.Started) || o.At.Sub(last.At) >= killsEvery
		if told {
			en.rec.OOM = &o
		}
		remove = en.rec.Spec.AutoRemove
	})
	if !told {
		return
	}
	e.keepKill(en, o)
	e.tell(e.life, en, "oom", "text", o.String(), "process", o.Process, "pid", itoa(o.PID), "held", o.Held.String(), "limit", o.Limit.String(), "short", o.Short)
	if !remove {
		e.saveSoon(en)
	}
}

// killsSize bounds each of the two files that keep what the host's kernel killed in a zone.
const killsSize = 64 * unit.KiB

// keepKill writes a kill into what `logs --kernel` shows of a zone, whose kernel's own log
// is the host's: what its program wrote stays as it was written. A system with a kernel of
// its own has it in that kernel's log. It is for the one who watches the host's kernel.
func (e *Engine) keepKill(en *entry, o api.OOM) {
	en.mu.Lock()
	zone := en.rec.Stratum == stratum.Zone
	en.mu.Unlock()
	if !zone {
		return
	}
	dir := filepath.Join(e.store.Dir(en.id()), kernelDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return // removed meanwhile
	}
	w := logfile.Writer{Dir: dir, Size: int64(killsSize), Files: 2}
	defer w.Close()
	w.Append(logfile.Stdout, o.At.UnixNano(), []byte(o.String()+"\n"))
}

// knowsKill tells whether a kill in this run was told, with mu held.
func (en *entry) knowsKill() bool { return en.rec.OOM != nil && en.rec.OOM.At.After(en.rec.Started) }

// awaitKill gives the kernel's words of what ended a run time to come.
func (e *Engine) awaitKill(ctx context.Context, en *entry) {
	if e.o.Kills == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wordOfKill)
	defer cancel()
	_ = en.until(ctx, en.knowsKill) // it is told without them where they do not come
}
