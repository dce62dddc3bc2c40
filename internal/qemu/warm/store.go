package warm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Options bound what a Store keeps. Zero fields take the defaults.
type Options struct {
	Resident int           // images in memory; default 4
	Kept     int           // images on disk; default 8
	Size     unit.Size     // of those on disk together; default 2 GiB
	MaxAge   time.Duration // after which an image is made anew; default a week
	Log      *slog.Logger  // nil: nothing is logged
}

func (o Options) filled() Options {
	if o.Resident <= 0 {
		o.Resident = 4
	}
	if o.Kept <= 0 {
		o.Kept = 8
	}
	if o.Size <= 0 {
		o.Size = 2 * unit.GiB
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 7 * 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Boot boots a machine in memory, which it maps shared, waits for its agent, has
// Save write the state of its devices, and ends it: when it returns nobody has the
// memory mapped any more. It ends with ctx.
type Boot func(ctx context.Context, memory, state *os.File) error

// makePatience bounds how long an image may take. Booting is most of it.
const makePatience = 6 * time.Minute

// Store keeps images below one folder, which is its own. It is safe for concurrent use.
type Store struct {
	dir string
	o   Options

	mu       sync.Mutex
	resident map[string]*resident // by digest
	flights  map[string]*flight   // what is being read or made, by digest
	failed   map[string]time.Time // when one could not be made last, or was thrown away again
	thrown   map[string]time.Time // when one was thrown away last
}

// resident is an image in memory.
type resident struct {
	memory, state *os.File // sealed
	made, used    time.Time
	tsc           int
	stuck         int // clones in a row that did not go on
}

func (r *resident) close() {
	r.memory.Close()
	r.state.Close()
}

type flight struct {
	boots chan struct{} // closed once it boots, for want of what could be read
	done  chan struct{}
	err   error
}

func newFlight() *flight { return &flight{boots: make(chan struct{}), done: make(chan struct{})} }

const workDir = "work"

// Open opens the store in dir, which is made where it is missing. Only one process
// may have it. Kinds: Internal.
func Open(dir string, o Options) (*Store, error) {
	work := filepath.Join(dir, workDir)
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o700)); err != nil {
		return nil, fault.Internalf("open the folder of saved systems: %w", err)
	}
	return &Store{dir: dir, o: o.filled(), resident: map[string]*resident{}, flights: map[string]*flight{}, failed: map[string]time.Time{}, thrown: map[string]time.Time{}}, nil
}

// Close lets go of the memory; clones go on.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, r := range s.resident {
		r.close()
		delete(s.resident, digest)
	}
	return nil
}

// Get returns the image of k where there is one, after reading it. Nothing is booted
// for it, nor does it wait for who boots. Kinds: Missing, Busy where ctx ended.
func (s *Store) Get(ctx context.Context, k Key) (*Image, error) { return s.Image(ctx, k, nil) }

// Image returns the image of k, which is made by boot where there is none. Of several
// callers at once, one boots; that one goes on when its caller's ctx ends. The caller
// closes the image. Kinds: those of boot, Busy where ctx ended, Missing without boot.
func (s *Store) Image(ctx context.Context, k Key, boot Boot) (*Image, error) {
	digest := k.Digest()
	for {
		s.mu.Lock()
		if r := s.fresh(digest, k); r != nil {
			i, err := r.open()
			s.mu.Unlock()
			return i, err
		}
		f := s.flights[digest]
		if f == nil {
			f = newFlight()
			s.flights[digest] = f
			go s.fly(context.WithoutCancel(ctx), f, k, boot)
		}
		s.mu.Unlock()
		var boots chan struct{} // who would boot waits for who does
		if boot == nil {
			boots = f.boots
		}
		select {
		case <-f.done:
		case <-boots:
			return nil, errNoBoot
		case <-ctx.Done():
			return nil, fault.Busyf("the saved system is not ready yet: %w", ctx.Err())
		}
		// A flight of somebody who would not boot tells nothing to who would.
		if f.err != nil && (boot == nil || !errors.Is(f.err, errNoBoot)) {
			return nil, f.err
		}
	}
}

// retryAfter is how long Make makes nothing of a key whose image could not be made, or
// was thrown away twice within that time.
const retryAfter = 10 * time.Minute

// Make has the image of k made in the background where there is none, and calls made, where that is not nil, when
// it is. It returns at once.
func (s *Store) Make(k Key, boot Boot, made func()) {
	digest := k.Digest()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resident[digest] != nil || s.flights[digest] != nil || time.Since(s.failed[digest]) < retryAfter {
		return
	}
	f := newFlight()
	s.flights[digest] = f
	go func() {
		s.fly(context.Background(), f, k, boot)
		s.mu.Lock()
		done := s.resident[digest] != nil
		s.mu.Unlock()
		if done && made != nil {
			made()
		}
	}()
}

// spoilt is how many clones in a row do not go on from an image that is not to be used
// again. One alone may have been late for other reasons.
const spoilt = 2

// Tell says whether a clone of the image of k went on. An image that nothing goes on from,
// as it was saved in an unlucky moment, is let go, so that another is made; where the one
// before it was let go just so, not at once.
func (s *Store) Tell(k Key, wentOn bool) {
	digest := k.Digest()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resident[digest]
	switch {
	case r == nil:
		return
	case wentOn:
		r.stuck = 0
		return
	}
	if r.stuck++; r.stuck < spoilt {
		return
	}
	s.o.Log.Warn("a saved system from which guests do not go on is thrown away", "key", digest)
	r.close()
	delete(s.resident, digest)
	if time.Since(s.thrown[digest]) < retryAfter {
		s.failed[digest] = time.Now()
	}
	s.thrown[digest] = time.Now()
	if err := os.RemoveAll(filepath.Join(s.dir, digest)); err != nil {
		s.o.Log.Warn("it could not be removed", "key", digest, "error", err)
	}
}

// Settle waits until nothing is being read or made any more, or ctx ends.
func (s *Store) Settle(ctx context.Context) {
	for {
		s.mu.Lock()
		var one *flight
		for _, f := range s.flights {
			one = f
		}
		s.mu.Unlock()
		if one == nil {
			return
		}
		select {
		case <-one.done:
		case <-ctx.Done():
			return
		}
	}
}

var errNoBoot = fault.Missingf("there is no saved system to start from")

// fresh returns the image in memory that k can go on from; one that it cannot go
// on from any more is let go. It is called with mu held.
func (s *Store) fresh(digest string, k Key) *resident {
	r := s.resident[digest]
	if r == nil {
		return nil
	}
	if !k.near(r.tsc) || time.Since(r.made) > s.o.MaxAge {
		r.close()
		delete(s.resident, digest)
		return nil
	}
	r.used = time.Now()
	return r
}

// fly reads the image of k, or makes it.
func (s *Store) fly(ctx context.Context, f *flight, k Key, boot Boot) {
	digest := k.Digest()
	r, err := s.load(k)
	if err != nil {
		s.o.Log.Debug("no saved system to read", "key", digest, "err", err)
		r, err = nil, errNoBoot
		if boot != nil {
			close(f.boots)
			r, err = s.make(ctx, k, boot)
		}
	}
	s.mu.Lock()
	if err == nil {
		s.resident[digest] = r
		s.shrink(digest)
		delete(s.failed, digest)
	} else if boot != nil {
		s.failed[digest] = time.Now()
		s.o.Log.Debug("no system could be saved to start from", "key", digest, "err", err)
	}
	f.err = err
	delete(s.flights, digest)
	s.mu.Unlock()
	close(f.done)
}

// shrink lets go of the images that were not used for longest. It is called with mu held.
func (s *Store) shrink(but string) {
	for len(s.resident) > s.o.Resident {
		oldest := ""
		for digest, r := range s.resident {
			if digest != but && (oldest == "" || r.used.Before(s.resident[oldest].used)) {
				oldest = digest
			}
		}
		if oldest == "" {
			return
		}
		s.resident[oldest].close()
		delete(s.resident, oldest)
	}
}

// make boots a machine and saves it.
func (s *Store) make(ctx context.Context, k Key, boot Boot) (_ *resident, err error) {
	ctx, cancel := context.WithTimeout(ctx, makePatience)
	defer cancel()
	r := &resident{made: time.Now(), used: time.Now(), tsc: k.TSC}
	if r.memory, err = allocate("memory", int64(k.Memory)); err != nil {
		return nil, err
	}
	if r.state, err = allocate("state", 0); err != nil {
		r.memory.Close()
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := boot(ctx, r.memory, r.state); err != nil {
		return nil, fault.Wrap(err, "save a system that has booted")
	}
	if info, err := r.state.Stat(); err != nil || info.Size() == 0 || info.Size() > maxState {
		return nil, fault.Internalf("the state of a saved system is none")
	}
	// It serves from memory even where there is no room for it on the disk.
	if err := s.keep(k, r); err != nil {
		s.o.Log.Debug("a saved system is not kept", "key", k.Digest(), "err", err)
	}
	if err := errors.Join(seal(r.memory), seal(r.state)); err != nil {
		return nil, err
	}
	return r, nil
}

// Image is a saved system, for one clone. It is safe for concurrent use.
type Image struct {
	// Memory is to be the clone's, by its descriptor's name and not shared. It is
	// sealed: nobody can change it.
	Memory *os.File
	Made   time.Time // when it was booted

	state *os.File
}

// open returns the image for one more clone. It is called with mu held, so that r is not closed.
func (r *resident) open() (i *Image, err error) {
	i = &Image{Made: r.made}
	if i.Memory, err = reopen(r.memory); err != nil {
		return nil, err
	}
	if i.state, err = reopen(r.state); err != nil {
		i.Memory.Close()
		return nil, err
	}
	return i, nil
}

// Close gives the descriptors back; machines that have them go on.
func (i *Image) Close() error { return errors.Join(i.Memory.Close(), i.state.Close()) }
