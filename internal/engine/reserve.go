package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/host"
	"github.com/strata-project/strata/internal/unit"
)

// Reserve says where the host's own part comes from, in words.
type Reserve struct {
	Memory, CPUs string
	// Spent is the processor time that all of strata's groups have used, ever. Where it is
	// not nil the reserve of processors is measured, and Host has the least that it may be.
	Spent func() (time.Duration, bool)
}

const (
	// minute is the time of which a load is an average, in samples; loadKept after how many
	// of those it is written down, and enough how many make a reserve.
	minute   = int(time.Minute / sampleEvery)
	loadKept = 30
	enough   = 60
	// mostShare bounds a measured reserve: a host whose other programs take more than a
	// quarter of it and are to go on so has to be told (--reserve-cpus).
	mostShare = 4

	loadName = "load.json"
)

// outside measures what programs of the host besides strata's groups use of its
// processors. All but words is the sampling goroutine's.
type outside struct {
	load       host.Load
	used, ours time.Duration // at the last look
	at         time.Time

	mu    sync.Mutex // a leaf
	words string     // where the reserve comes from; "": as the options say
}

// openOutside takes up what an earlier daemon saw.
func (e *Engine) openOutside() {
	if e.o.Reserve.Spent == nil {
		return
	}
	if text, err := os.ReadFile(e.loadFile()); err == nil && json.Unmarshal(text, &e.outside.load) != nil {
		e.outside.load = host.Load{} // it is seen again
	}
	e.measured()
}

func (e *Engine) loadFile() string { return filepath.Join(e.o.Places.State, loadName) }

// lookOutside is called at every sample, with the processor time that the whole host used.
func (e *Engine) lookOutside(now time.Time, used time.Duration) {
	o := &e.outside
	if e.o.Reserve.Spent == nil || !o.at.IsZero() && now.Sub(o.at) < time.Duration(minute)*sampleEvery {
		return
	}
	ours, ok := e.o.Reserve.Spent()
	if !ok {
		return
	}
	first, others, since := o.at.IsZero(), used-o.used-(ours-o.ours), now.Sub(o.at)
	o.used, o.ours, o.at = used, ours, now
	if first {
		return
	}
	o.load.Add(float64(others) / float64(since) * 1000 / float64(max(e.book.Host().CPUs, 1)))
	e.measured()
	if o.load.Seen()%loadKept == 0 {
		if err := keepSeen(e.loadFile(), &e.outside.load); err != nil {
			e.log.Warn("load of the host not written down", "error", err)
		}
	}
}

// keepSeen writes v down, which was seen and which the next daemon takes up.
func keepSeen(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(path, text)
}

// measured sets the reserve of processors to what is known now. What is guaranteed
// stays so: the reserve is less then, until there is room for it.
func (e *Engine) measured() {
	seen, cpus := e.outside.load.Seen(), e.o.Host.CPUs
	want, words := e.o.Host.ReserveCPUs, fmt.Sprintf("%s, until an hour is measured (%d minutes so far)", e.o.Reserve.CPUs, seen)
	if seen >= enough {
		most := unit.CPUs(e.outside.load.Most() * float64(cpus))
		want = max(want, min(most, cpus/mostShare))
		words = fmt.Sprintf("measured: other programs stayed within %s in 95 of 100 minutes", most)
		if want < most {
			words += "; a quarter of the processors is kept at most"
		}
	}
	before := e.book.Host().ReserveCPUs
	now := e.book.KeepCPUs(want)
	if now < want {
		words += fmt.Sprintf("; %s of it are guaranteed already", want-now)
	}
	e.outside.mu.Lock()
	e.outside.words = words
	e.outside.mu.Unlock()
	if now != before {
		e.share()
	}
}

// reserveWords tells where the reserve of processors comes from.
func (e *Engine) reserveWords() string {
	e.outside.mu.Lock()
	defer e.outside.mu.Unlock()
	if e.outside.words == "" {
		return e.o.Reserve.CPUs
	}
	return e.outside.words
}
