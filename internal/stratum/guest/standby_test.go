package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// fakeSpare is a machine that is none.
type fakeSpare struct {
	class class
	gone  chan struct{}
	ended atomic.Bool
}

func (f *fakeSpare) Gone() <-chan struct{} { return f.gone }
func (f *fakeSpare) Bytes() int64          { return 10 }
func (f *fakeSpare) End(context.Context)   { f.ended.Store(true) }

// fakeImage counts those who hold it.
type fakeImage struct {
	held  *atomic.Int32
	stale *atomic.Bool
}

func (f fakeImage) Again() (image, error) { f.held.Add(1); return f, nil }
func (f fakeImage) Current() bool         { return !f.stale.Load() }
func (f fakeImage) Bytes() int64          { return 1000 }
func (f fakeImage) Close()                { f.held.Add(-1) }

// bench is a standby of fakes.
type bench struct {
	*standby
	t     *testing.T
	drawn chan fakeImage  // each image that was made
	of    chan image      // each that a spare was made of
	made  chan *fakeSpare // each that was made
	fails atomic.Bool
	valid atomic.Bool
	once  atomic.Int32 // how many are being made
}

func newBench(t *testing.T, want int) *bench {
	b := &bench{standby: newStandby(want, slog.New(slog.DiscardHandler)), t: t, made: make(chan *fakeSpare, 64), drawn: make(chan fakeImage, 64), of: make(chan image, 64)}
	b.valid.Store(true)
	b.standby.valid = func(context.Context, class) bool { return b.valid.Load() }
	b.standby.write = func(context.Context, class) (image, error) {
		if b.once.Add(1) > 1 {
			t.Error("two are made at once")
		}
		defer b.once.Add(-1)
		if b.fails.Load() {
			return nil, errors.New("not today")
		}
		i := fakeImage{new(atomic.Int32), new(atomic.Bool)}
		i.held.Add(1)
		b.drawn <- i
		return i, nil
	}
	b.standby.make = func(_ context.Context, c class, i image) (spare, error) {
		b.of <- i
		if b.once.Add(1) > 1 {
			t.Error("two are made at once")
		}
		defer b.once.Add(-1)
		if b.fails.Load() {
			return nil, errors.New("not today")
		}
		f := &fakeSpare{class: c, gone: make(chan struct{})}
		b.made <- f
		return f, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// start is a start of a guest of c.
func (b *bench) start(c class) spare {
	defer b.begin()()
	one, i := b.take(c)
	if i != nil {
		b.t.Error("there is an image")
		i.Close()
	}
	return one
}

func (b *bench) next() *fakeSpare {
	b.t.Helper()
	select {
	case f := <-b.made:
		return f
	case <-time.After(20 * time.Second):
		b.t.Fatal("none was made")
		return nil
	}
}

func (b *bench) none() {
	b.t.Helper()
	select {
	case <-b.made:
		b.t.Fatal("one more was made")
	case <-time.After(4 * calm):
	}
}

func (b *bench) until(what string, f func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("not within 20 s: " + what)
		}
	}
}

func (b *bench) count(n int) {
	b.t.Helper()
	b.until("their number", func() bool { got, images, bytes := b.size(); return got == n && images == 0 && bytes == int64(10*n) })
}

var small, large = class{Shape: "small", Key: "s1"}, class{Shape: "large", Key: "l1"}

func TestSparesAreTakenOnceAndRefilled(t *testing.T) {
	b := newBench(t, 2)
	b.none() // nothing is in use
	if b.start(small) != nil {
		t.Fatal("there is one already")
	}
	first, second := b.next(), b.next()
	b.none()
	b.count(2)
	if got := b.start(small); got != first {
		t.Fatalf("%v is not the first", got)
	}
	third := b.next()
	b.count(2)
	if b.start(small) != second || first.ended.Load() {
		t.Fatal("the first was handed out again, or ended")
	}
	b.next()
	b.count(2)
	b.close(t.Context())
	if !third.ended.Load() || first.ended.Load() || b.start(small) != nil {
		t.Fatal("close ends those that are nobody's, and no other")
	}
	b.none()
}

func TestNoneIsMadeWhileAStartIsUnderWay(t *testing.T) {
	b := newBench(t, 1)
	over := b.begin()
	b.take(small)
	other := b.begin()
	other()
	b.none()
	over()
	b.next()
}

func TestADeadSpareIsNotHandedOut(t *testing.T) {
	b := newBench(t, 1)
	b.start(small)
	f := b.next()
	b.count(1)
	close(f.gone)
	if b.start(small) != nil {
		t.Fatal("a dead one was handed out")
	}
	b.until("its end", f.ended.Load)
	b.count(0)
}

func TestAChangeOfWhatTheyDependOnEndsThem(t *testing.T) {
	b := newBench(t, 1)
	b.start(small)
	old := b.next()
	b.count(1)
	changed := small
	changed.Key = "s2"
	if b.start(changed) != nil {
		t.Fatal("one of before was handed out")
	}
	b.until("the end of the old", old.ended.Load)
	now := b.next()
	b.count(1)
	if now.class.Key != "s2" {
		t.Fatal("it is made of what was before")
	}
	b.valid.Store(false)
	b.look(t.Context())
	b.until("the end of one that no start would use", now.ended.Load)
	b.count(0)
	b.none()
}

func TestOnlyTheClassesThatWereUsedLastHaveSpares(t *testing.T) {
	b := newBench(t, 1)
	b.start(small)
	first := b.next()
	b.start(large)
	b.next()
	b.count(2)
	b.start(class{Shape: "huge", Key: "h1"})
	b.until("the end of the class that was used first", first.ended.Load)
	b.next()
	b.count(2)
	b.drain(t.Context())
	b.count(0)
	b.none()
}

func TestAFailureWaitsBeforeTheNext(t *testing.T) {
	b := newBench(t, 1)
	b.fails.Store(true)
	b.start(small)
	b.until("the failure", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.classes) == 1 && !b.classes[0].after.IsZero()
	})
	b.fails.Store(false)
	b.none()
}

func TestNoneAreKeptUnlessAsked(t *testing.T) {
	b := newBench(t, 0)
	b.start(small)
	b.none()
}

var copied = class{Shape: "copied", Key: "c1", Copyable: true}

// image waits for one that is made, whenever the last was.
func (b *bench) image() fakeImage {
	b.t.Helper()
	b.mu.Lock()
	b.pictured = time.Time{}
	b.mu.Unlock()
	b.nudge()
	select {
	case i := <-b.drawn:
		return i
	case <-time.After(20 * time.Second):
		b.t.Fatal("no image was made")
		return fakeImage{}
	}
}

// hold is a start of a guest of c that is to get an image, or none.
func (b *bench) hold(c class, want bool) {
	b.t.Helper()
	b.until("an image, or none", func() bool {
		over := b.begin()
		defer over()
		one, i := b.take(c)
		if i != nil {
			i.Close()
		}
		return one == nil && (i != nil) == want
	})
}

func TestAnImageIsMadeOnceAndHeldByWhoUsesIt(t *testing.T) {
	b := newBench(t, 0)
	b.hold(small, false) // of which none can be made
	b.hold(copied, false)
	i := b.image()
	b.hold(copied, true)
	b.hold(copied, true)
	if n, images, bytes := b.size(); n != 0 || images != 1 || bytes != 1000 {
		t.Errorf("there are %d, %d, %d", n, images, bytes)
	}
	_, held := b.take(copied)
	b.close(t.Context())
	if i.held.Load() != 1 {
		t.Errorf("%d hold it when all is closed, and one uses it", i.held.Load())
	}
	held.Close()
	if len(b.drawn) > 0 || len(b.made) > 0 {
		t.Error("something else was made")
	}
}

func TestAnImageThatIsOfNoUseIsNotUsed(t *testing.T) {
	b := newBench(t, 0)
	b.hold(copied, false)
	first := b.image()
	b.hold(copied, true)
	b.tell(copied.Key, false, true) // one alone
	b.tell(copied.Key, true, true)
	b.tell(copied.Key, false, true)
	b.hold(copied, true)
	b.tell(copied.Key, false, true)
	b.hold(copied, false) // nor made again at once
	if first.held.Load() != 0 || len(b.drawn) > 0 {
		t.Error("it is there still, or another")
	}
	if again := b.spoilt[copied.Key]; time.Until(again.until) > spoiled || again.next != 2*spoiled {
		t.Errorf("it is made again after %v", again)
	}
	b.mu.Lock()
	clear(b.spoilt)
	b.mu.Unlock()
	b.nudge()
	second := b.image()
	b.hold(copied, true)
	second.stale.Store(true)
	b.hold(copied, false)
	b.look(t.Context())
	b.nudge()
	third := b.image()
	b.hold(copied, true)
	b.mu.Lock()
	b.classes[0].made, b.classes[0].used = time.Now().Add(-2*keepImage), time.Now().Add(-2*keepImage)
	b.mu.Unlock()
	b.look(t.Context())
	if second.held.Load() != 0 || third.held.Load() != 0 {
		t.Error("what is stale, or in no use, is kept")
	}
	b.nudge()
	time.Sleep(4 * calm)
	if len(b.drawn) > 0 {
		t.Error("one was made that nobody asked for")
	}
	b.hold(copied, false)
	b.image()
	b.hold(copied, true)
	b.tell(copied.Key, false, false) // it did not even come up
	b.hold(copied, false)
	b.valid.Store(false)
	b.look(t.Context())
	if _, images, _ := b.size(); images != 0 {
		t.Error("of a class that is none any more it is kept")
	}
}

func TestSparesAreCopiesWhereThereIsAnImage(t *testing.T) {
	b := newBench(t, 1)
	b.hold(copied, false)
	i := b.image()
	b.next()
	if of := <-b.of; of != i {
		t.Errorf("the spare is a copy of %v", of)
	}
	b.until("the hold of who made it", func() bool { return i.held.Load() == 1 })
	b.fails.Store(true)
	if b.start(copied) == nil {
		t.Fatal("there is no spare")
	}
	b.until("its end", func() bool { return i.held.Load() == 0 }) // it was good for nothing
}

// A class that is started again and again has no quiet moment.
func TestAnImageDoesNotWaitForever(t *testing.T) {
	b := newBench(t, 0)
	over := b.begin()
	defer over()
	b.take(copied)
	b.nudge()
	time.Sleep(4 * calm)
	if len(b.drawn) > 0 {
		t.Error("it was made while a start was under way")
	}
	b.mu.Lock()
	b.classes[0].since = time.Now().Add(-2 * impatient)
	b.mu.Unlock()
	b.nudge()
	b.image()
}

func TestImagesOfMoreKindsThanThereCanBeAreNotMadeAgainAndAgain(t *testing.T) {
	b := newBench(t, 0)
	for n := range maxClasses {
		b.hold(class{Shape: fmt.Sprint(n), Key: fmt.Sprint(n), Copyable: true}, false)
		b.image()
	}
	b.until("their number", func() bool { _, images, _ := b.size(); return images == maxClasses })
	for n := range 3 {
		b.hold(class{Shape: fmt.Sprint("other", n), Key: fmt.Sprint("other", n), Copyable: true}, false)
		time.Sleep(4 * calm)
	}
	if _, images, _ := b.size(); images != maxClasses-3 || len(b.drawn) > 0 {
		t.Errorf("%d are left, and %d were made at once", images, len(b.drawn))
	}
}

func TestTheEndDoesNotWaitForWhatIsBeingMade(t *testing.T) {
	b := newBench(t, 0)
	began := make(chan bool)
	b.mu.Lock()
	b.write = func(ctx context.Context, _ class) (image, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	b.mu.Unlock()
	b.hold(copied, false)
	<-began
	b.close(t.Context())
	if len(b.spoilt) > 0 {
		t.Error("what was given up counts as a failure")
	}
}
