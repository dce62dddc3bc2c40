package engine

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
)

// The types of event.
const (
	typeEnvironment = "environment"
	typeTemplate    = "template"
	typeKernel      = "kernel"
	typeNetwork     = "network"
	typeProgress    = "progress"
	typeDaemon      = "daemon"
)

// Bounds of what is kept of events. Unit: events.
const (
	pastEvents  = 1024
	queueLength = 512 // besides the past that a subscriber begins with
)

// hub hands events out. Its lock is a leaf and is held over no channel.
type hub struct {
	mu   sync.Mutex
	past []api.Event // the last pastEvents, a ring once full
	next int
	subs map[*subscriber]struct{}
}

type subscriber struct {
	filter  Filter
	queue   []api.Event
	begun   int // with so many past ones
	dropped int
	wake    chan struct{} // holds one
}

// publish never blocks.
func (h *hub) publish(ev api.Event) {
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ev.Type != typeProgress { // progress is of no use to whoever comes later, and there is much of it
		if len(h.past) < pastEvents {
			h.past = append(h.past, ev)
		} else {
			h.past[h.next] = ev
			h.next = (h.next + 1) % pastEvents
		}
	}
	for s := range h.subs {
		if s.filter.passes(ev) {
			s.push(ev)
		}
	}
}

func (s *subscriber) push(ev api.Event) {
	if len(s.queue) >= s.begun+queueLength {
		s.queue = slices.Delete(s.queue, 0, queueLength/4)
		s.dropped += queueLength / 4
	}
	s.queue = append(s.queue, ev)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (f Filter) passes(ev api.Event) bool {
	return (len(f.Types) == 0 || slices.Contains(f.Types, ev.Type)) &&
		(len(f.Names) == 0 || slices.Contains(f.Names, ev.Name) || slices.Contains(f.Names, ev.ID)) &&
		(len(f.Operations) == 0 || slices.Contains(f.Operations, ev.Operation)) &&
		(f.Since.IsZero() || !ev.Time.Before(f.Since)) &&
		(f.Until.IsZero() || !ev.Time.After(f.Until))
}

// subscribe returns the events that pass f: past ones where f.Since is set, and
// all that follow. The channel is closed when ctx ends or end is closed, and at f.Until,
// where that is set, once all until then has been taken.
func (h *hub) subscribe(ctx context.Context, f Filter, end <-chan struct{}) <-chan api.Event {
	s := &subscriber{filter: f, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	if !f.Since.IsZero() {
		for i := range h.past {
			if ev := h.past[(h.next+i)%len(h.past)]; f.passes(ev) {
				s.begun++
				s.push(ev)
			}
		}
	}
	if h.subs == nil {
		h.subs = make(map[*subscriber]struct{})
	}
	h.subs[s] = struct{}{}
	h.mu.Unlock()
	out := make(chan api.Event)
	go func() {
		defer close(out)
		defer func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			delete(h.subs, s)
		}()
		h.feed(ctx, s, out, end)
	}()
	return out
}

func (h *hub) feed(ctx context.Context, s *subscriber, out chan<- api.Event, end <-chan struct{}) {
	var until <-chan time.Time
	if u := s.filter.Until; !u.IsZero() {
		timer := time.NewTimer(time.Until(u))
		defer timer.Stop()
		until = timer.C
	}
	for over := false; ; {
		ev, ok := h.take(s)
		if !ok && over {
			return
		}
		if !ok {
			select {
			case <-until:
				over = true
			case <-ctx.Done():
				return
			case <-end:
				return
			case <-s.wake:
			}
			continue
		}
		select {
		case out <- ev:
		case <-ctx.Done():
			return
		case <-end:
			return
		}
	}
}

// take returns the next event; where some were lost, it says so first.
func (h *hub) take(s *subscriber) (api.Event, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.dropped > 0 {
		n := s.dropped
		s.dropped = 0
		return api.Event{Time: time.Now(), Type: typeDaemon, Action: "dropped", Detail: map[string]string{"events": strconv.Itoa(n)}}, true
	}
	if len(s.queue) == 0 {
		return api.Event{}, false
	}
	ev := s.queue[0]
	s.queue = s.queue[1:]
	return ev, true
}

// Subscribe returns events as they happen, and past ones from f.Since on where it
// is set (progress excepted). A reader that is too slow loses the oldest, and is
// told how many by an event of type daemon, action dropped. The channel is closed
// when ctx ends or the engine closes, and at f.Until where that is set.
func (e *Engine) Subscribe(ctx context.Context, f Filter) <-chan api.Event {
	return e.hub.subscribe(ctx, f, e.life.Done())
}

type operationKey struct{}

// WithOperation returns a context whose work belongs to the operation id: its
// events carry it.
func WithOperation(ctx context.Context, id string) context.Context {
	if id == "" {
		return ctx
	}
	return context.WithValue(ctx, operationKey{}, id)
}

func operation(ctx context.Context) string {
	id, _ := ctx.Value(operationKey{}).(string)
	return id
}

// tell publishes what happened to an environment; detail is pairs of key and value.
func (e *Engine) tell(ctx context.Context, en *entry, action string, detail ...string) {
	en.mu.Lock()
	id, name, template := en.rec.ID, en.rec.Name, en.rec.Spec.Template
	en.mu.Unlock()
	d := map[string]string{"template": template}
	for i := 0; i+1 < len(detail); i += 2 {
		d[detail[i]] = detail[i+1]
	}
	e.hub.publish(api.Event{Type: typeEnvironment, Action: action, ID: id, Name: name, Detail: d, Operation: operation(ctx)})
}

// progress returns what publishes progress of ctx's operation.
func (e *Engine) progress(ctx context.Context) func(api.Progress) {
	id := operation(ctx)
	return func(p api.Progress) {
		e.hub.publish(api.Event{Type: typeProgress, Action: p.Step, Operation: id, Progress: &p})
	}
}
