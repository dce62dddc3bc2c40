// Package history keeps what was counted of something for a while, in bounded
// memory: the last minute by the second, the last hour by the minute, the last two
// days by the hour.
//
// A Point is an average of its time for what flows (processor, bytes) and the most
// of its time for what is held (memory, processes). Points are made of finer ones
// as those come: nothing is computed when it is asked for. A History is not safe for
// concurrent use.
//
// What it does not do: read anything, or know what it keeps the history of.
package history

import "time"

// Point is what was counted in the time that ends at At.
type Point struct {
	At        int64 // unix seconds
	CPU       int32 // thousandths of a processor
	Processes int32
	Memory    int64 // bytes
	Read      int64 // bytes in a second, from disks
	Written   int64 // bytes in a second, to disks
	Received  int64 // bytes in a second, from the network
	Sent      int64 // bytes in a second, to the network
}

// Step is the time between two points.
type Step int

// The steps that are kept.
const (
	Second Step = iota
	Minute
	Hour
	steps
)

// The lengths of steps, and how many points are kept of each.
var (
	lengths = [steps]int64{1, 60, 3600}
	kept    = [steps]int{60, 60, 48}
)

// ParseStep reads 1s, 1m or 1h.
func ParseStep(text string) (Step, bool) {
	for s := range steps {
		if d, err := time.ParseDuration(text); err == nil && d == time.Duration(lengths[s])*time.Second {
			return s, true
		}
	}
	return 0, false
}

// History is the history of one thing. The zero value is empty.
type History struct {
	rings [steps]ring
	sums  [steps]sum // of the points that the next one of that step is made of
}

// Add puts in the next point of a second. Points come in the order of time; one
// that is not later than the last is left out.
func (h *History) Add(p Point) {
	if last, ok := h.rings[Second].last(); ok && p.At <= last.At {
		return
	}
	h.add(Second, p)
}

func (h *History) add(s Step, p Point) {
	h.rings[s].push(p, kept[s])
	next := s + 1
	if next == steps {
		return
	}
	coarse, turn := &h.sums[next], (p.At-1)/lengths[next]
	if coarse.n > 0 && turn != coarse.turn {
		h.add(next, coarse.point((coarse.turn+1)*lengths[next]))
		*coarse = sum{}
	}
	coarse.turn = turn
	coarse.add(p)
}

// Points returns those of a step, the oldest first.
func (h *History) Points(s Step) []Point {
	if s < 0 || s >= steps {
		return nil
	}
	return h.rings[s].all()
}

// sum is a coarser point in the making.
type sum struct {
	turn                               int64
	n                                  int64
	cpu, read, written, received, sent int64
	memory                             int64
	processes                          int32
}

func (s *sum) add(p Point) {
	s.n++
	s.cpu += int64(p.CPU)
	s.read, s.written, s.received, s.sent = s.read+p.Read, s.written+p.Written, s.received+p.Received, s.sent+p.Sent
	s.memory, s.processes = max(s.memory, p.Memory), max(s.processes, p.Processes)
}

func (s *sum) point(at int64) Point {
	return Point{At: at, CPU: int32(s.cpu / s.n), Processes: s.processes, Memory: s.memory,
		Read: s.read / s.n, Written: s.written / s.n, Received: s.received / s.n, Sent: s.sent / s.n}
}

// ring grows to its bound and then turns over.
type ring struct {
	points []Point
	next   int // where the oldest is, once it is full
}

func (r *ring) push(p Point, most int) {
	if len(r.points) < most {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % most
}

func (r *ring) last() (Point, bool) {
	if len(r.points) == 0 {
		return Point{}, false
	}
	return r.points[(r.next+len(r.points)-1)%len(r.points)], true
}

func (r *ring) all() []Point {
	out := make([]Point, 0, len(r.points))
	return append(append(out, r.points[r.next:]...), r.points[:r.next]...)
}
