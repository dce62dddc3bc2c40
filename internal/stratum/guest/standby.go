package guest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/fault"
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
	// keepImage is how long an image is kept, in use or not: its copies lie at the same addresses.
	keepImage = time.Hour
	// spoiled is how long a class waits for an image where none could be made, or was used; twice as
	// long each time, mostSpoiled at most.
	spoiled, mostSpoiled = 10 * time.Minute, 24 * time.Hour
	// stuck is how many copies in a row that came up and then failed make an image useless: one
	// alone may have failed for other reasons.
	stuck = 2
)

// class is a kind of machine that spares are made of.
type class struct {
	Shape string       // what a user sees of it: kernel, memory, processors
	Key   string       // all that a spare of it depends on
	Of    stratum.Plan // of a guest of it, without anything of an environment
	// Copyable says that a machine of it can be written down, and others be copies of that.
	Copyable bool
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
	quiet    time.Time          // when the last start was over
	pictured time.Time          // when the last image was made
	making   chan struct{}      // closed when what is being made is made; nil: nothing is
	cancel   func()             // has that be given up
	spoilt   map[string]penance // by the key of a class
	closed   bool
}

// stock is what there is of one class.
type stock struct {
	class
	spares []spare
	after  time.Time // none is made before
	image  image     // nil: there is none
	made   time.Time // when it was
	stuck  int       // copies in a row that failed
	since  time.Time // it is a class without an image
	used   time.Time
}

// penance is how long a class must do without image.
type penance struct {
	until time.Time
	next  time.Duration
}

func newStandby(want int, log *slog.Logger) *standby {
	return &standby{want: want, log: log, wake: make(chan struct{}, 1), spoilt: map[string]penance{}}
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
	if s.closed || s.want == 0 && !c.Copyable {
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
	s.nudge()
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

// forget lets go of t's image.
func (t *stock) forget() {
	if t.image != nil {
		t.image.Close()
	}
	t.image, t.stuck, t.since = nil, 0, time.Now()
}

// tell says whether a copy of the class went on; where it did not, whether it had come up. An image that
// is of no use is taken away.
func (s *standby) tell(key string, wentOn, cameUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.classes {
		switch {
		case t.Key != key || t.image == nil:
		case wentOn:
			t.stuck = 0
			delete(s.spoilt, key)
		default:
			if t.stuck++; !cameUp || t.stuck >= stuck {
				s.spoil(t)
			}
		}
	}
}

// spoil takes away an image, or the prospect of one. The caller has the lock.
func (s *standby) spoil(t *stock) {
	t.forget()
	for key, p := range s.spoilt { // of classes that are long gone
		if time.Since(p.until) > mostSpoiled {
			delete(s.spoilt, key)
		}
	}
	wait := max(spoiled, s.spoilt[t.Key].next)
	s.spoilt[t.Key] = penance{time.Now().Add(wait), min(2*wait, mostSpoiled)}
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
	t.forget()
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
		quiet = now.Add(time.Hour) // begin's over wakes
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
			{t.Copyable && t.image == nil && now.Sub(t.used) < keepImage, []time.Time{s.spoilt[t.Key].until, s.pictured.Add(between), pictured}, s.picture},
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
			ctx, cancel := context.WithCancel(context.Background())
			s.cancel = cancel
			return func(life context.Context) {
				defer cancel()
				defer context.AfterFunc(life, cancel)()
				job.work(ctx, t)
			}, 0
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
		if ctx.Err() == nil && !fault.Is(err, fault.Conflict) { // which passes
			s.spoil(t)
		}
		s.log.Debug("no machine was written down", "class", t.Shape, "error", err)
	case kept:
		t.image, t.made = i, time.Now()
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
	if i != nil && err != nil && ctx.Err() == nil && !fault.Is(err, fault.Conflict) {
		s.spoil(t)
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
		if t.image != nil && (!t.image.Current() || time.Since(t.made) > keepImage) {
			t.forget()
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
		t.forget()
	}
	s.classes = nil
	if making != nil {
		s.cancel()
	}
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
