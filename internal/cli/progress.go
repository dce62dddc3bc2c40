package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// subscribePatience bounds the wait for the stream of progress: work does not
// wait for being watched.
const subscribePatience = 2 * time.Second

// lastEvents is how long events of work that has ended are waited for.
const lastEvents = 200 * time.Millisecond

// watching is how long work is shown.
type watching struct {
	quiet bool
	adorn func(*api.Progress) // adds what only this side knows; nil: nothing
	rare  bool                // mostly there is nothing to show, and then nothing is waited for
}

// watched does long work under an operation id of its own and shows its
// progress on standard error: as bars on a terminal, else as a line for each
// new step.
func watched[T any](ctx context.Context, a *app, c *client.Client, w watching, do func(context.Context) (T, error)) (T, error) {
	if w.quiet {
		return do(ctx)
	}
	id := rand.Text()
	events, err := subscribe(ctx, c, id)
	if err != nil {
		return do(client.WithOperation(ctx, id))
	}
	var show shower // made by the first event
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			e, err := events.Next()
			if err != nil {
				return
			}
			if e.Progress == nil {
				continue
			}
			if w.adorn != nil {
				w.adorn(e.Progress)
			}
			if show == nil {
				show = a.newShower()
			}
			show.progress(*e.Progress)
		}
	})
	v, err := do(client.WithOperation(ctx, id))
	// The answer and the last events come by two connections: what is still under
	// way has a moment to arrive.
	wait := lastEvents
	if w.rare {
		wait = 0
	}
	late := time.AfterFunc(wait, func() { _ = events.Close() })
	reading.Wait()
	late.Stop()
	if show != nil {
		show.end(err == nil)
	}
	return v, err
}

func subscribe(ctx context.Context, c *client.Client, id string) (*client.Subscription, error) {
	type result struct {
		s   *client.Subscription
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := c.Subscribe(ctx, client.EventFilter{Types: []string{"progress"}, Operations: []string{id}})
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-time.After(subscribePatience):
		go func() {
			if r := <-done; r.err == nil {
				_ = r.s.Close()
			}
		}()
		return nil, context.DeadlineExceeded
	}
}

// shower shows how far work is. Both methods may be called from several goroutines.
type shower interface {
	progress(api.Progress)
	end(well bool)
}

func (a *app) newShower() shower {
	if file, ok := a.err.(*os.File); ok && a.errTTY {
		return newBars(file)
	}
	return &lines{out: a.err, seen: map[string]bool{}}
}

// itemText names what progress is about: a digest short, all else whole, and
// nothing where it only says the step again.
func itemText(p api.Progress) string {
	hex, digest := strings.CutPrefix(p.Item, "sha256:")
	switch {
	case p.Item == p.Step:
		return ""
	case digest || len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == "":
		return hex[:min(12, len(hex))]
	}
	return p.Item
}

// stepText is one piece of progress in words.
func stepText(p api.Progress) string {
	return fault.Printable(strings.TrimSpace(p.Step + " " + itemText(p)))
}

// progressText writes progress for a line of events.
func progressText(p api.Progress) string {
	switch {
	case p.Total > 0:
		return fmt.Sprintf("%s %d%%", stepText(p), 100*p.Done/p.Total)
	case p.Done > 0:
		return stepText(p) + " " + bytesText(p.Done)
	}
	return stepText(p)
}

// headline returns what a builder says of its own steps; the many lines that are
// none are the tools' that it runs. Source: mmdebstrap(1), "I:", "W:" and "E:".
func headline(line string) (string, bool) {
	if text, ok := strings.CutPrefix(line, "I: "); ok {
		return strings.TrimRight(text, "."), true
	}
	return line, strings.HasPrefix(line, "W: ") || strings.HasPrefix(line, "E: ")
}

// lines writes a line at the begin of each step, and during a build one now and
// then, so that a log shows that it goes on.
type lines struct {
	mu   sync.Mutex
	out  io.Writer
	seen map[string]bool
	told time.Time
}

// buildSilence is how long a build may say nothing of the tools that it runs.
const buildSilence = 5 * time.Second

func (l *lines) progress(p api.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := stepText(p)
	if p.Step == stepBuild {
		line, step := headline(p.Item)
		if !step && time.Since(l.told) < buildSilence {
			return
		}
		text = fault.Printable(stepBuild + ": " + line)
	} else if l.seen[text] {
		return
	}
	l.seen[text], l.told = true, time.Now()
	if p.Total > 0 {
		text += " (" + bytesText(p.Total) + ")"
	}
	fmt.Fprintln(l.out, text)
}

func (*lines) end(bool) {}

// stepBuild is the step whose items are lines of a builder's output; stepMeasure is
// the one whose items are what is measured.
const (
	stepBuild   = "build"
	stepMeasure = "measure"
)

// running tells whether a step's items follow one another in one line.
func running(p api.Progress) bool { return p.Step == stepBuild || p.Step == stepMeasure }

// bars draws one bar for each item, and for a build its step and last line.
type bars struct {
	mu    sync.Mutex
	all   *mpb.Progress
	one   map[string]*mpb.Bar
	build buildView
}

// buildView is what a build shows: the builder's step, and the last line of the
// tool that it runs.
type buildView struct {
	mu         sync.Mutex
	step, line string
}

func (v *buildView) take(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if text, step := headline(line); step {
		v.step, v.line = fault.Printable(text), ""
	} else {
		v.line = fault.Printable(line)
	}
}

func (v *buildView) text(decor.Statistics) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.line == "" {
		return v.step
	}
	return v.step + ": " + v.line
}

func newBars(out *os.File) *bars {
	return &bars{all: mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond)), one: map[string]*mpb.Bar{}}
}

func (b *bars) progress(p api.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := stepText(p)
	if running(p) {
		name = p.Step
		b.build.take(p.Item)
	}
	bar := b.one[name]
	if bar == nil {
		bar = b.add(name, p)
		b.one[name] = bar
	}
	if p.Total > 0 {
		bar.SetTotal(p.Total, false)
	}
	bar.SetCurrent(p.Done)
	if p.Total > 0 && p.Done >= p.Total {
		bar.SetTotal(p.Total, true)
	}
}

// add makes the bar of an item; one whose total is not known only turns.
func (b *bars) add(name string, p api.Progress) *mpb.Bar {
	title := mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR))
	turning := mpb.SpinnerStyle().PositionLeft()
	switch {
	case running(p):
		return b.all.New(0, turning, mpb.BarWidth(1), title,
			mpb.AppendDecorators(decor.OnComplete(decor.Any(b.build.text), "done")))
	case p.Total <= 0:
		return b.all.New(0, turning, mpb.BarWidth(1), title,
			mpb.AppendDecorators(decor.CurrentKibiByte("% .1f")))
	}
	return b.all.AddBar(0, title, // a bar made with a total ends by itself only
		mpb.AppendDecorators(decor.OnComplete(decor.CountersKibiByte("% .1f / % .1f"), "done")))
}

func (b *bars) end(well bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.one {
		if well {
			bar.SetTotal(-1, true)
		}
		bar.Abort(false) // nothing, where it is complete; Wait must never wait
	}
	b.all.Wait()
}
