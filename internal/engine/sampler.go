package engine

import (
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/history"
	"github.com/strata-project/strata/internal/stratum"
)

// sampleEvery is the time between two samples, diskEvery how many of them pass between
// two looks at a private disk, which changes slowly, and restEvery between two looks at
// the counters of what stood still at the last look and has no traffic.
const (
	sampleEvery = time.Second
	diskEvery   = 10
	restEvery   = 3
)

// sampler keeps what environments used a moment ago, and its history. Its lock is a
// leaf, and is held over no reading.
type sampler struct {
	rounds int        // only the sampling goroutine's, as are all, seen and busy
	all    []sampled  // of the last round, to be used again
	seen   []sighting //
	busy   hostTime   //
	mu     sync.Mutex //
	at     time.Time  // of the last sample
	others time.Time  // when it was of other runs than the one before
	noted  int        // how many were in the last sample
	host   api.HostUsage
	tracks map[string]*track // by id
	marks  map[string]mark   // of runs that an earlier daemon saw, and this one has not yet
	more   bool              // has been seen than is written down
}

// track is what is kept of one environment.
type track struct {
	run     *run // that the figures are of
	row     api.Usage
	changed time.Time // when the row did, but for its time
	last    sighting
	still   bool // nothing had changed at the last look at its counters
	most    most // since the run started
	fill    fill // of its disk, likewise
	history history.History
}

// most is the most of each that was seen at one moment.
type most struct{ CPU, Memory, Processes, Disk, Received, Sent int64 }

// sighting is what was seen of a run at one moment. Its sums only grow.
type sighting struct {
	at     time.Time
	looked time.Time // when the counters of Sample were read; the rest is of at
	stratum.Sample
	Traffic
	disk, diskSize int64
}

// Traffic is what a network card has received and sent. Unit: bytes.
type Traffic struct {
	Received, Sent int64
}

// sampled is an environment that is to be looked at.
type sampled struct {
	en  *entry
	run *run
	row api.Usage // what is known without looking
}

// sampling looks at all that runs, until the engine closes.
func (e *Engine) sampling() {
	e.takeMarks()
	defer e.keepMarks()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		e.sample()
		select {
		case <-tick.C:
		case <-e.life.Done():
			return
		}
	}
}

// sample is one pass over the counters of all that runs.
func (e *Engine) sample() {
	all := e.toSample()
	var traffic map[string]Traffic
	if len(all) > 0 {
		traffic = e.o.Network.Traffic()
	}
	seen := slices.Grow(e.sampler.seen[:0], len(all))[:len(all)]
	clear(seen)
	e.sampler.seen = seen
	disks := e.sampler.rounds%diskEvery == 0
	e.sampler.rounds++
	for i, s := range all {
		c, ok := s.run.live.(stratum.Counter)
		if !ok {
			continue
		}
		if rested, ok := e.sampler.rest(s, i, traffic[s.row.ID]); ok {
			seen[i] = rested
		} else if one, ok := c.Sample(); ok {
			now := time.Now()
			seen[i] = sighting{at: now, looked: now, Sample: one, Traffic: traffic[s.row.ID]}
			e.lookAtSpace(s)
		}
		if disks || e.sampler.fresh(s) {
			seen[i].disk, seen[i].diskSize, _ = disk.Usage(filepath.Join(e.store.Dir(s.row.ID), diskName))
		}
	}
	now := time.Now()
	host := e.sampler.busy.usage(now)
	e.lookOutside(now, time.Duration(e.sampler.busy.used))
	if disks {
		e.forgetGone()
		e.keepMarks()
	}
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	e.sampler.at = now
	promised, noted := int64(0), 0 // and not held yet
	for i, s := range all {
		if !seen[i].at.IsZero() {
			e.sampler.note(s, seen[i])
			if g := s.row.MemoryGuarantee; g > 0 { // what strata spends for it is in what the host holds, too
				promised += max(0, g+int64(e.overhead[s.row.Stratum])-seen[i].Memory)
			}
			noted++
		}
	}
	if noted != e.sampler.noted {
		e.sampler.noted, e.sampler.others = noted, now
	}
	host.MemoryGuaranteed = min(promised, host.MemoryFree)
	host.MemoryFree -= host.MemoryGuaranteed
	e.sampler.host = host
}

// toSample returns all that has a run, until it is called again.
func (e *Engine) toSample() []sampled {
	entries := e.entries()
	clear(e.sampler.all)
	all := slices.Grow(e.sampler.all[:0], len(entries))
	for _, en := range entries {
		en.mu.Lock()
		if en.run != nil && en.state.Live() {
			l := &en.rec.Spec.Resources
			all = append(all, sampled{en, en.run, api.Usage{
				ID: en.rec.ID, Environment: en.rec.Name, Stratum: en.rec.Stratum, State: en.state.Public(),
				CPULimit: int64(l.CPUs), MemoryLimit: int64(l.Memory), ProcessesLimit: l.PIDs,
				CPUGuarantee: int64(l.CPUGuarantee), MemoryGuarantee: int64(l.MemoryGuarantee),
				ReceivedLimit: int64(l.NetIn), SentLimit: int64(l.NetOut),
			}})
		}
		en.mu.Unlock()
	}
	e.sampler.all = all
	return all
}

// fresh tells whether nothing is known of a run yet.
func (s *sampler) fresh(one sampled) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tracks[one.row.ID]
	return t == nil || t.run != one.run
}

// rest returns what is known of the nth environment where its counters need no look.
func (s *sampler) rest(one sampled, nth int, traffic Traffic) (sighting, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tracks[one.row.ID]
	if t == nil || t.run != one.run || !t.still || t.last.Traffic != traffic || (s.rounds+nth)%restEvery == 0 {
		return sighting{}, false
	}
	known := t.last
	known.at, known.disk, known.diskSize = time.Now(), 0, 0
	return known, true
}

// forgetGone drops what is kept of environments that are gone.
func (e *Engine) forgetGone() {
	known := map[string]bool{}
	e.mu.RLock()
	for id := range e.ids {
		known[id] = true
	}
	e.mu.RUnlock()
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	maps.DeleteFunc(e.sampler.tracks, func(id string, _ *track) bool { return !known[id] })
	maps.DeleteFunc(e.sampler.marks, func(id string, _ mark) bool { return !known[id] })
}

// note takes in what was seen. The caller holds mu.
func (s *sampler) note(one sampled, now sighting) {
	t := s.tracks[one.row.ID]
	if t == nil {
		t = &track{}
		s.tracks[one.row.ID] = t
	}
	if t.run != one.run {
		s.others = s.at
		s.begin(t, one)
	}
	if now.diskSize == 0 {
		now.disk, now.diskSize = t.last.disk, t.last.diskSize
	}
	row := one.row
	row.Time, row.CPUTime, row.Throttled = now.at, now.CPU, now.Throttled
	row.Memory, row.Processes, row.Disk, row.DiskLimit = now.Memory, now.Processes, now.disk, now.diskSize
	row.ReceivedTotal, row.SentTotal = now.Received, now.Sent
	if since := now.at.Sub(t.last.at); !t.last.at.IsZero() && since > 0 {
		if looked := now.looked.Sub(t.last.looked); looked > 0 {
			row.CPU = (now.CPU - t.last.CPU) * 1000 / int64(looked)
			row.Read, row.Written = perSecond(t.last.Read, now.Read, looked), perSecond(t.last.Written, now.Written, looked)
			t.still = now.Sample == t.last.Sample && now.Traffic == t.last.Traffic
		}
		row.Received, row.Sent = perSecond(t.last.Received, now.Received, since), perSecond(t.last.Sent, now.Sent, since)
		t.history.Add(history.Point{
			At: now.at.Unix(), CPU: int32(row.CPU), Processes: int32(row.Processes), Memory: row.Memory,
			Read: row.Read, Written: row.Written, Received: row.Received, Sent: row.Sent,
		})
	}
	before := t.most
	t.most = most{
		CPU: max(before.CPU, row.CPU), Memory: max(before.Memory, row.Memory), Processes: max(before.Processes, row.Processes),
		Disk: max(before.Disk, row.Disk), Received: max(before.Received, row.Received), Sent: max(before.Sent, row.Sent),
	}
	s.more = s.more || t.most != before
	row.MemoryMost = t.most.Memory
	if t.row.Time = row.Time; t.row != row {
		t.changed = s.at
	}
	t.row, t.last = row, now
}

// perSecond is how much a sum grew in a second. One that fell began anew.
func perSecond(before, now int64, since time.Duration) int64 {
	return max(0, int64(float64(now-before)/since.Seconds()))
}
