package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

// subscribePatience bounds the wait for the stream of progress: work does not
// wait for being watched.
const subscribePatience = 2 * time.Second

// watched does long work under an operation id of its own and shows its
// progress on standard error: as bars on a terminal, else as a line for each
// new step.
func watched[T any](ctx context.Context, a *app, c *client.Client, quiet bool, do func(context.Context) (T, error)) (T, error) {
	if quiet {
		return do(ctx)
	}
	id := rand.Text()
	events, err := subscribe(ctx, c, id)
	if err != nil {
		return do(client.WithOperation(ctx, id))
	}
	var show shower = &lines{out: a.err, seen: map[string]bool{}}
	if file, ok := a.err.(*os.File); ok && a.errTTY {
		show = newBars(file)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			e, err := events.Next()
			if err != nil {
				return
			}
			if e.Progress != nil {
				show.progress(*e.Progress)
			}
		}
	})
	v, err := do(client.WithOperation(ctx, id))
	_ = events.Close()
	reading.Wait()
	show.end(err == nil)
	return v, err
}

func subscribe(ctx context.Context, c *client.Client, id string) (*client.Subscription, error) {
	type result struct {
		s   *client.Subscription
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := c.Subscribe(ctx, client.EventFilter{Types: []string{"progress"}, Operation: id})
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

// shower shows how far work is.
type shower interface {
	progress(api.Progress)
	end(well bool)
}

// lines writes one line for the begin of each step.
type lines struct {
	out  io.Writer
	seen map[string]bool
}

func (l *lines) progress(p api.Progress) {
	key := p.Step + " " + p.Item
	if l.seen[key] {
		return
	}
	l.seen[key] = true
	text := p.Step
	if p.Item != "" {
		text += " " + shortID(p.Item)
	}
	if p.Total > 0 && p.Step != "build" {
		text += " (" + bytesText(p.Total) + ")"
	}
	fmt.Fprintln(l.out, printable(text))
}

func (*lines) end(bool) {}

// progressText writes progress for a line of events.
func progressText(p api.Progress) string {
	text := p.Step
	if p.Item != "" {
		text += " " + shortID(p.Item)
	}
	if p.Total > 0 {
		return fmt.Sprintf("%s %d%%", text, 100*p.Done/p.Total)
	}
	return fmt.Sprintf("%s %d", text, p.Done)
}

// bars draws one bar for each item.
type bars struct {
	all *mpb.Progress
	one map[string]*mpb.Bar
}

func newBars(out *os.File) *bars {
	return &bars{all: mpb.New(mpb.WithOutput(out), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond)), one: map[string]*mpb.Bar{}}
}

func (b *bars) progress(p api.Progress) {
	key := p.Step + " " + p.Item
	bar := b.one[key]
	if bar == nil {
		name := printable(p.Step)
		if p.Item != "" {
			name += " " + printable(shortID(p.Item))
		}
		bar = b.all.AddBar(p.Total, mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.OnComplete(decor.CountersKibiByte("% .1f / % .1f"), "done")))
		b.one[key] = bar
	}
	if p.Total > 0 {
		bar.SetTotal(p.Total, false)
	}
	bar.SetCurrent(p.Done)
	if p.Total > 0 && p.Done >= p.Total {
		bar.SetTotal(p.Total, true)
	}
}

func (b *bars) end(well bool) {
	for _, bar := range b.one {
		if well {
			bar.SetTotal(-1, true)
		} else {
			bar.Abort(false)
		}
	}
	b.all.Wait()
}

// sending counts what is read of a source whose progress only this side knows.
type sending struct {
	io.Reader
	show        shower
	item        string
	done, total int64
	told        time.Time
}

// Read implements io.Reader.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.done += int64(n)
	if now := time.Now(); now.Sub(s.told) > 100*time.Millisecond || err != nil {
		s.told = now
		s.show.progress(api.Progress{Step: "send", Item: s.item, Done: s.done, Total: s.total})
	}
	return n, err
}
