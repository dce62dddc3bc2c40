package engine

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// mark is what was seen of a run by all daemons that looked at it.
type mark struct {
	Started time.Time // of the run
	Most    most
	Fill    fill
}

// Marks lie where runs do, and go with them when the host is booted anew. What the last
// diskEvery samples of a daemon that was killed saw is not in them.
const (
	marksName = "marks.json"
	marksMost = 64 << 20 // bytes; a mark is some 200
)

func (e *Engine) marksFile() string { return filepath.Join(e.o.Places.Run, marksName) }

// takeMarks takes up what an earlier daemon saw.
func (e *Engine) takeMarks() {
	f, err := os.Open(e.marksFile())
	if err != nil {
		return // nobody has seen anything yet
	}
	defer f.Close()
	var marks map[string]mark
	if err := json.NewDecoder(io.LimitReader(f, marksMost)).Decode(&marks); err != nil {
		e.log.Warn("what an earlier daemon saw of environments is not known", "error", err)
		return
	}
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	e.sampler.marks = marks
}

// keepMarks writes down for the next daemon what was seen, where that is more than before.
func (e *Engine) keepMarks() {
	marks := e.sampler.marked()
	if marks == nil {
		return
	}
	if err := keepSeen(e.marksFile(), marks); err != nil {
		e.log.Warn("what was seen of environments is not written down", "error", err)
		e.sampler.mu.Lock()
		e.sampler.more = true
		e.sampler.mu.Unlock()
	}
}

// marked returns what was seen of each; nil: nothing new.
func (s *sampler) marked() map[string]mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.more {
		return nil
	}
	s.more = false
	marks := maps.Clone(s.marks) // of what was not looked at yet
	if marks == nil {
		marks = make(map[string]mark, len(s.tracks))
	}
	for id, t := range s.tracks {
		marks[id] = mark{t.run.started, t.most, t.fill}
	}
	return marks
}

// begin has t be of another run, of which an earlier daemon may have seen something. The
// caller holds mu.
func (s *sampler) begin(t *track, one sampled) {
	t.run, t.last, t.still = one.run, sighting{}, false
	t.most, t.fill = most{}, fill{}
	if m, ok := s.marks[one.row.ID]; ok {
		delete(s.marks, one.row.ID)
		if m.Started.Equal(one.run.started) {
			t.most, t.fill = m.Most, m.Fill
		}
	}
}
