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
	// maxClasses is of how many kinds of machine there are images at once, those that were
	// started last, and spareClasses of how many of them spares.
	maxClasses, spareClasses = 4, 2
	// between is how much time passes from one image to the next: with more kinds in use than there
	// can be images of, each start would ask for another.
	between = 10 * time.Second
	// calm is how long no start must have been under way before a spare is made.
	calm = 50 * time.Millisecond
	// impatient is how long a class waits for such a moment before its image is made all the same: one
	// that is started again and again needs it most.
	impatient = 5 * time.Second
	// retry is how long a class waits of which a spare could not be made, or died.
	retry = 30 * time.Second
	// lookEvery is how often it is looked whether the classes are still what a start
	// would use.
	lookEvery = time.Minute
	// keepImage is how long an image is kept of a class that is not in use.
	keepImage = time.Hour
	// spoiled is how long a class waits for an image where none could be made, or was used.
	spoiled = 10 * time.Minute
)

// class is a kind of machine that spares are made of.
type class struct {
	Shape string       // what a user sees of it: kernel, memory, processors
	Key   string       // all that a spare of it depends on
	Of    stratum.Plan // of a guest of it, without anything of an environment
	// Copied says that a machine of it can be written down, and others be copies of that.
	Copied bool
}

// spare is a machine that stands still before its first instruction.
type spare interface {
	Gone() <-chan struct{} // closed when it has died
	End(context.Context)   // and leave nothing
	Bytes() int64          // of memory that it holds
}

// image is a spare that was written down.
type image interface {
	Again() (image, error) // another hold of it
	Current() bool         // it can be used
	Bytes() int64
	Close()
}

// standby keeps spares, and an image for each class that can have one, whatever want is. Its rules know nothing of
// machines. The zero want keeps no spares.
//
// A spare is somebody's once, and never handed out dead or of another key than asked.
// They and images are made one at a time, and none is begun while a start is under way or soon after.
//
// Lock: mu is a leaf.
type standby struct {
	want  int
	log   *slog.Logger
	write func(context.Context, class) (image, error)
	make  func(context.Context, class, image) (spare, error) // image nil: there is none
	valid func(context.Context, class) bool                  // it is what a start like it would use now
	wake  chan struct{}

	mu       sync.Mutex
	classes  []*stock // last used first
	starting int
	quiet    time.Time     // when the last start was over
	pictured time.Time     // when the last image was made
	making   chan struct{} // closed when what is being made is made; nil: nothing is
	closed   bool
}

// stock is what there is of one class.
type stock struct {
	class
	spares     []spare
	after      time.Time // none is made before
	image      image     // nil: there is none
	imageAfter time.Time // none is made before
	since      time.Time // it is a class
	used       time.Time
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

// note notes that c is in use.
func (s *standby) note(c class) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.use(c) != nil {
		s.nudge()
	}
}

// use is the stock of c, which is in use; nil: none is kept. The caller has the lock.
func (s *standby) use(c class) *stock {
	if s.closed || s.want == 0 && !c.Copied {
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
		own = &stock{class: c, since: time.Now()}
	}
	own.used = time.Now()
	s.classes = append([]*stock{own}, kept...)
	for _, t := range s.classes[min(spareClasses, len(s.classes)):] {
		t.end()
	}
	return own
}

// take notes that c is in use, and returns a spare of it, or an image, which the caller closes; nil: there is none.
func (s *standby) take(c class) (spare, image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.use(c)
	if own == nil {
		return nil, nil
	}
	for len(own.spares) > 0 {
		one := own.spares[0]
		own.spares = own.spares[1:]
		select {
		case <-one.Gone():
			go one.End(context.Background())
		default:
			return one, nil
		}
	}
	return nil, own.hold()
}

// hold is another hold of t's image; nil: it has none that can be used.
func (t *stock) hold() image {
	if t.image == nil || !t.image.Current() {
		return nil
	}
	i, err := t.image.Again()
	if err != nil {
		return nil
	}
	return i
}

// forget lets go of t's image; none is made for that long.
func (t *stock) forget(wait time.Duration) {
	if t.image != nil {
		t.image.Close()
	}
	t.image, t.imageAfter = nil, time.Now().Add(wait)
}

// spoil takes away the image of a class of which a copy did not go on.
func (s *standby) spoil(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.classes {
		if t.Key == key {
			t.forget(spoiled)
		}
	}
}

// end ends t's spares.
func (t *stock) end() {
	for _, one := range t.spares {
		go one.End(context.Background())
	}
	t.spares = nil
}

// drop lets go of a stock, which is no class any more.
func (s *standby) drop(t *stock) {
	t.end()
	t.forget(0)
}

// run makes spares until ctx ends.
func (s *standby) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		work, wait := s.next()
		if work != nil {
			work(ctx)
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

// next makes what is to be made now, for which s.making is set; nil: nothing is, and when to ask again.
func (s *standby) next() (func(context.Context), time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, time.Hour
	}
	now := time.Now()
	quiet := s.quiet.Add(calm)
	if s.starting > 0 {
		quiet = now.Add(time.Hour) // begin's over and take wake
	}
	wait := time.Hour
	for n, t := range s.classes {
		pictured := quiet
		if late := t.since.Add(impatient); late.Before(quiet) {
			pictured = late
		}
		for _, job := range []struct {
			wanted bool
			after  []time.Time
			work   func(context.Context, *stock)
		}{
			{t.Copied && t.image == nil && now.Sub(t.used) < keepImage, []time.Time{t.imageAfter, s.pictured.Add(between), pictured}, s.picture},
			{n < spareClasses && len(t.spares) < s.want, []time.Time{t.after, quiet}, s.fill},
		} {
			if !job.wanted {
				continue
			}
			if rest := slices.MaxFunc(job.after, time.Time.Compare).Sub(now); rest > 0 {
				wait = min(wait, rest)
				continue
			}
			s.making = make(chan struct{})
			return func(ctx context.Context) { job.work(ctx, t) }, 0
		}
	}
	return nil, wait
}

// made notes that what was being made is made, and tells whether t is a class still. The caller has the lock.
func (s *standby) made(t *stock) bool {
	close(s.making)
	s.making = nil
	return !s.closed && slices.Contains(s.classes, t)
}

// picture has t's image made.
func (s *standby) picture(ctx context.Context, t *stock) {
	i, err := s.write(ctx, t.class)
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.made(t)
	s.pictured = time.Now()
	switch {
	case err != nil:
		t.imageAfter = time.Now().Add(spoiled)
		s.log.Debug("no machine was written down", "class", t.Shape, "error", err)
	case kept:
		t.image = i
	default:
		i.Close()
	}
}

func (s *standby) fill(ctx context.Context, t *stock) {
	s.mu.Lock()
	i := t.hold()
	s.mu.Unlock()
	one, err := s.make(ctx, t.class, i)
	if i != nil {
		i.Close()
	}
	s.mu.Lock()
	if i != nil && err != nil {
		t.forget(spoiled)
	}
	kept := s.made(t) && err == nil
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

// look ends what there is of classes that no start would use any more.
func (s *standby) look(ctx context.Context) {
	s.mu.Lock()
	all := slices.Clone(s.classes)
	s.mu.Unlock()
	for _, t := range all {
		s.mu.Lock()
		if t.image != nil && (!t.image.Current() || time.Since(t.used) > keepImage) {
			t.forget(0)
		}
		s.mu.Unlock()
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
		t.forget(0)
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

// size tells how many spares and images there are, and what memory they hold.
func (s *standby) size() (spares, images int, bytes int64) {
	s.mu.Lock()
	var all []spare
	for _, t := range s.classes {
		all = append(all, t.spares...)
		if t.image != nil {
			images++
			bytes += t.image.Bytes()
		}
	}
	s.mu.Unlock()
	for _, one := range all {
		bytes += one.Bytes()
	}
	return len(all), images, bytes
}
