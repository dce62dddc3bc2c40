package guest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/stratum"
)

// MaxStandby bounds Options.Standby.
const MaxStandby = 16

// Rules of the standby.
const (
	// maxClasses is for how many kinds of machine there are spares at once: the two that
	// were started last.
	maxClasses = 2
	// calm is how long no start must have been under way before a spare is made.
	calm = 50 * time.Millisecond
	// retry is how long a class waits of which a spare could not be made, or died.
	retry = 30 * time.Second
	// lookEvery is how often it is looked whether the classes are still what a start
	// would use.
	lookEvery = time.Minute
)

// class is a kind of machine that spares are made of.
type class struct {
	Shape string       // what a user sees of it: kernel, memory, processors
	Key   string       // all that a spare of it depends on
	Of    stratum.Plan // of a guest of it, without anything of an environment
}

// spare is a machine that stands still before its first instruction.
type spare interface {
	Gone() <-chan struct{} // closed when it has died
	End(context.Context)   // and leave nothing
	Bytes() int64          // of memory that it holds
}

// standby keeps spares. Its rules know nothing of machines. The zero want keeps none.
//
// A spare is somebody's once, and never handed out dead or of another key than asked.
// They are made one at a time, and none is begun while a start is under way or soon after.
//
// Lock: mu is a leaf.
type standby struct {
	want  int
	log   *slog.Logger
	make  func(context.Context, class) (spare, error)
	valid func(context.Context, class) bool // it is what a start like it would use now
	wake  chan struct{}

	mu       sync.Mutex
	classes  []*stock // last used first
	starting int
	quiet    time.Time     // when the last start was over
	making   chan struct{} // closed when the one that is being made is made; nil: none is
	closed   bool
}

// stock are the spares of one class.
type stock struct {
	class
	spares []spare
	after  time.Time // none is made before
}

func newStandby(want int, log *slog.Logger) *standby {
	return &standby{want: want, log: log, wake: make(chan struct{}, 1)}
}

// begin notes a start; the caller calls over at its end.
func (s *standby) begin() (over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starting++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.starting--
		s.quiet = time.Now()
		s.nudge()
	}
}

func (s *standby) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take notes that c is in use, and returns a spare of it; nil: there is none.
func (s *standby) take(c class) spare {
	if s.want == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	var own *stock
	var kept []*stock
	for _, t := range s.classes {
		switch {
		case t.Key == c.Key:
			own = t
		case t.Shape == c.Shape || len(kept) == maxClasses-1:
			s.drop(t)
		default:
			kept = append(kept, t)
		}
	}
	if own == nil {
		own = &stock{class: c}
	}
	s.classes = append([]*stock{own}, kept...)
	for len(own.spares) > 0 {
		one := own.spares[0]
		own.spares = own.spares[1:]
		select {
		case <-one.Gone():
			go one.End(context.Background())
		default:
			return one
		}
	}
	return nil
}

// drop ends the spares of a stock, which is no class any more.
func (s *standby) drop(t *stock) {
	for _, one := range t.spares {
		go one.End(context.Background())
	}
	t.spares = nil
}

// run makes spares until ctx ends.
func (s *standby) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		t, wait := s.next()
		if t != nil {
			s.fill(ctx, t)
			continue
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-s.wake:
		case <-again.C:
		case <-look.C:
			s.look(ctx)
		}
		again.Stop()
	}
}

// next is the stock that a spare is to be made for now, and for which s.making is set;
// nil: none, and when to ask again.
func (s *standby) next() (*stock, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.starting > 0 {
		return nil, time.Hour // begin's over and take wake
	}
	now := time.Now()
	if rest := s.quiet.Add(calm).Sub(now); rest > 0 {
		return nil, rest
	}
	wait := time.Hour
	for _, t := range s.classes {
		if len(t.spares) >= s.want {
			continue
		}
		if rest := t.after.Sub(now); rest > 0 {
			wait = min(wait, rest)
			continue
		}
		s.making = make(chan struct{})
		return t, 0
	}
	return nil, wait
}

func (s *standby) fill(ctx context.Context, t *stock) {
	one, err := s.make(ctx, t.class)
	s.mu.Lock()
	close(s.making)
	s.making = nil
	kept := err == nil && !s.closed && slices.Contains(s.classes, t)
	if kept {
		t.spares = append(t.spares, one)
	} else if err != nil {
		t.after = time.Now().Add(retry)
	}
	s.mu.Unlock()
	switch {
	case kept:
		go s.mind(t, one)
	case err == nil:
		one.End(context.WithoutCancel(ctx))
	default:
		s.log.Debug("no spare machine was made", "class", t.Shape, "error", err)
	}
}

// mind waits for the death of a spare, or of the environment that has taken it.
func (s *standby) mind(t *stock, one spare) {
	<-one.Gone()
	s.mu.Lock()
	i := slices.Index(t.spares, one)
	if i >= 0 {
		t.spares = slices.Delete(t.spares, i, i+1)
		t.after = time.Now().Add(retry)
	}
	s.mu.Unlock()
	if i >= 0 {
		s.log.Debug("a spare machine died", "class", t.Shape)
		one.End(context.Background())
		s.nudge()
	}
}

// look ends the spares of classes that no start would use any more.
func (s *standby) look(ctx context.Context) {
	s.mu.Lock()
	all := slices.Clone(s.classes)
	s.mu.Unlock()
	for _, t := range all {
		if s.valid(ctx, t.class) {
			continue
		}
		s.mu.Lock()
		if i := slices.Index(s.classes, t); i >= 0 {
			s.classes = slices.Delete(s.classes, i, i+1)
		}
		s.drop(t)
		s.mu.Unlock()
	}
}

// drain ends all spares, and forgets what was used. Starts go on, without any until the
// next one is made.
func (s *standby) drain(ctx context.Context) {
	s.mu.Lock()
	making := s.making
	var all []spare
	for _, t := range s.classes {
		all = append(all, t.spares...)
		t.spares = nil
	}
	s.classes = nil
	s.mu.Unlock()
	if making != nil {
		select {
		case <-making:
		case <-ctx.Done():
		}
	}
	var each sync.WaitGroup
	for _, one := range all {
		each.Go(func() { one.End(ctx) })
	}
	each.Wait()
}

// close is drain for good.
func (s *standby) close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.drain(ctx)
}

// size tells how many spares there are, and what memory they hold.
func (s *standby) size() (n int, bytes int64) {
	s.mu.Lock()
	var all []spare
	for _, t := range s.classes {
		all = append(all, t.spares...)
	}
	s.mu.Unlock()
	for _, one := range all {
		bytes += one.Bytes()
	}
	return len(all), bytes
}
