package engine

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Files are reached by commands of the agent that run inside, as root of the
// environment: whatever a hostile link in it points at, it is the environment's
// own. What they write is theirs to hostile design too, so it is bounded.
const (
	agentTarCreate  = "tar-create"
	agentTarExtract = "tar-extract"
	agentStat       = "stat"
)

// maxStat bounds what the agent says of a path. Unit: bytes.
const maxStat = 64 << 10

// CopyOut writes the file or folder at path, absolute inside, to w as a tar stream
// whose top entry has the path's last name. Kinds: Missing, Invalid, Conflict.
func (e *Engine) CopyOut(ctx context.Context, ref, path string, w io.Writer) error {
	return e.files(ctx, ref, path, agentTarCreate, nil, w)
}

// CopyIn unpacks a tar stream into the folder at path, absolute inside.
// Kinds: Missing, Invalid, Conflict.
func (e *Engine) CopyIn(ctx context.Context, ref, path string, tar io.Reader) error {
	return e.files(ctx, ref, path, agentTarExtract, tar, io.Discard)
}

// StatPath tells what is at path, absolute inside; a link is not followed.
// Kinds: Missing, Invalid, Conflict.
func (e *Engine) StatPath(ctx context.Context, ref, path string) (api.PathStat, error) {
	out := limited{max: maxStat}
	var stat api.PathStat
	if err := e.files(ctx, ref, path, agentStat, nil, &out); err != nil {
		return stat, err
	}
	if err := json.Unmarshal(out.data, &stat); err != nil {
		return stat, fault.Internalf("what the agent says of %s cannot be read: %w", path, err)
	}
	return stat, nil
}

// files runs one of the agent's commands on a path.
func (e *Engine) files(ctx context.Context, ref, p, command string, in io.Reader, out io.Writer) error {
	if !strings.HasPrefix(p, "/") || strings.IndexByte(p, 0) >= 0 {
		return fault.Invalidf("%q is not an absolute path", p).At("path").Help("begin it with /")
	}
	en, err := e.find(ref)
	if err != nil {
		return err
	}
	if !en.settled() {
		if err := en.hasAgent("copies no files for strata"); err != nil {
			return err
		}
	}
	var said error // by the agent
	if err := e.withLive(ctx, en, command == agentStat, func(ctx context.Context, live stratum.Live) error {
		errs := limited{max: maxHealthOutput}
		proc := stratum.Process{Args: []string{command, path.Clean(p)}, WorkDir: "/", User: "0:0", Agent: true}
		ended, err := inside(ctx, live, proc, in, out, &errs)
		if err == nil && ended.Status != 0 {
			said = agentFault(p, ended, errs.data)
		}
		return err
	}); err != nil {
		return err
	}
	return said
}

// maxWords bounds what is shown of words from inside. Unit: bytes.
const maxWords = 2 << 10

// fromInside returns words from inside as one line, cut, and without what a terminal acts on.
func fromInside(said string) string { return oneLine(said[:min(len(said), maxWords)]) }

// oneLine returns text as one line, without what a terminal acts on.
func oneLine(text string) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.TrimSpace(fault.Printable(line))
}

// agentFault reads what a command of the agent said when it failed: one line of
// JSON as api.Error has it, or words. Root inside may have another command in its place.
func agentFault(p string, ended stream.Ended, said []byte) error {
	var wire api.Error
	if json.Unmarshal(said, &wire) == nil && fromInside(wire.Message) != "" {
		kind, _ := fault.ParseKind(wire.Kind)
		f := fault.New(kind, "%s", fromInside(wire.Message)).At("path")
		f.Hint = fromInside(wire.Hint)
		return f
	}
	text := fromInside(string(said))
	kind := fault.Internal
	switch {
	case strings.Contains(text, "no such file"), strings.Contains(text, "not found"):
		kind = fault.Missing
	case strings.Contains(text, "not a directory"), strings.Contains(text, "no space left"), strings.Contains(text, "file exists"), strings.Contains(text, "is a directory"):
		kind = fault.Conflict
	}
	switch {
	case text != "":
	case ended.OOM:
		return fault.Unablef("copy at %s: the agent was killed for want of memory", p).At("path").Help("give the environment more memory")
	case ended.Signal != 0:
		return fault.Conflictf("copy at %s: the agent was killed, as all are that run in what is stopped or killed", p).At("path").Help("see what the environment does, and try again")
	default:
		return fault.New(kind, "copy at %s: the agent ended with status %d", p, ended.Status).At("path")
	}
	return fault.New(kind, "%s", text).At("path")
}

// withLive runs do with a run of the environment: the one that there is, else one
// that only reaches files, which is ended afterwards, or with keep, unless do failed, kept
// for the next one. The latter holds the operation lock, so nobody starts the environment
// meanwhile; Remove with force ends it.
func (e *Engine) withLive(ctx context.Context, en *entry, keep bool, do func(context.Context, stratum.Live) error) (err error) {
	en.mu.Lock()
	live := en.run != nil && en.state.Live()
	en.mu.Unlock()
	if live {
		r, err := en.current("copied")
		if err != nil {
			return err
		}
		return do(ctx, r.live)
	}
	if err := e.open(); err != nil {
		return err
	}
	if err := en.share(ctx); err != nil {
		return err
	}
	var kept *idleRun
	defer func() {
		en.unlock()
		if kept != nil {
			e.goes(func() { e.letGo(en, kept) })
		}
	}()
	en.mu.Lock()
	state, r := en.state, en.run
	ctx, cancel := e.until(ctx)
	var removed atomic.Bool
	en.copying = func() { removed.Store(true); cancel() }
	en.mu.Unlock()
	defer func() {
		if err != nil && removed.Load() {
			err = fault.Conflictf("environment %s is being removed", en.name())
		}
		cancel()
		en.mu.Lock()
		defer en.mu.Unlock()
		en.copying = nil
	}()
	switch {
	case r != nil: // it was being started when we looked
		return do(ctx, r.live)
	case state == environment.Suspended:
		return fault.Conflictf("environment %s is suspended, so its disk is in use by what is in its memory", en.name()).Help("resume it first: strata resume %s", en.name())
	case state.Active() || !en.visible():
		return fault.Conflictf("environment %s is %s, so nothing can be copied", en.name(), state).Help("try again")
	}
	idle := en.takeKept()
	if idle == nil {
		if idle, err = e.idle(ctx, en); err != nil {
			return err
		}
	}
	err = do(ctx, idle.live)
	if keep && err == nil {
		kept = &idleRun{live: idle.live, end: idle.end, taken: make(chan struct{})}
		en.kept = kept
	} else {
		idle.end()
	}
	return err
}

// idleRun is a run without a main program.
type idleRun struct {
	live  stratum.Live
	end   func()
	taken chan struct{} // closed when it is kept no more
}

// betweenRequests is how long an idle run is kept for the next request for files: who copies
// looks at the path first, and would have a machine boot for each. Nothing else waits
// for it.
const betweenRequests = 2 * time.Second

// letGo ends what was kept where nobody has taken it in time, or the engine closes.
func (e *Engine) letGo(en *entry, kept *idleRun) {
	select {
	case <-kept.taken:
		return
	case <-time.After(betweenRequests):
	case <-e.life.Done():
	}
	_ = en.share(context.Background()) // which has no end
	defer en.unlock()
	if en.kept == kept {
		en.endKept()
	}
}

// takeKept returns the idle run that was kept, nil where none was. It is called with op.
func (en *entry) takeKept() *idleRun {
	kept := en.kept
	if kept != nil {
		en.kept = nil
		close(kept.taken)
	}
	return kept
}

// endKept ends the idle run that was kept. It is called with op.
func (en *entry) endKept() {
	if kept := en.takeKept(); kept != nil {
		kept.end()
	}
}

// phase writes a phase down.
func (e *Engine) phase(en *entry, p environment.Phase) error {
	en.do(func() { en.rec.Phase = p })
	return e.save(en)
}

// idle starts a run without a main program.
func (e *Engine) idle(ctx context.Context, en *entry) (*idleRun, error) {
	d, err := e.driver(en)
	if err != nil {
		return nil, err
	}
	rec := en.snapshot()
	p, err := e.plan(ctx, rec, true)
	if err != nil {
		return nil, err
	}
	if err := e.fixImages(ctx, en, d, &p); err != nil {
		return nil, err
	}
	settle := func() {}
	if rec.Spec.AutoRemove { // whose starts are not written down: this is none
		if err := e.phase(en, environment.PhaseCopying); err != nil {
			return nil, err
		}
		settle = func() {
			if err := e.phase(en, rec.Phase); err != nil {
				e.log.Warn("record not written", "id", rec.ID, "error", err)
			}
		}
	}
	live, err := d.Start(ctx, p, stratum.StartOptions{Link: link{network: e.o.Network, id: rec.ID}})
	if err != nil {
		settle()
		return nil, fault.Wrap(err, "open the files of %s", rec.Name)
	}
	return &idleRun{live: live, end: func() {
		ctx, cancel := tidy(context.Background())
		defer cancel()
		e.endUnwanted(ctx, d, rec.ID, live)
		settle()
	}}, nil
}
