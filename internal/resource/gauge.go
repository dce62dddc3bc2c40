package resource

import (
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxGauges is how many gauges at once keep their files open; the others open them each
// time. Less where the process may not have so many descriptors: see gaugeRoom.
const maxGauges = 2048

// Gauge samples one group again and again, and keeps open what it reads: looking up a
// path takes the kernel as long as reading most of the files. An open file does not keep
// a group from being removed. It is safe for concurrent use; what it holds is closed when
// the group is found to be gone, by Close, or with the last reference to it.
type Gauge struct {
	group *Group

	mu    sync.Mutex
	files *gaugeFiles // nil: none are open
	last  Sample
	rests int // how many looks ago all of last was read
}

// wholeEvery bounds how old the figures of a group are in which nothing runs.
const wholeEvery = 4

type gaugeFiles struct {
	fds    [len(sampled)]int // -1: there is none
	takes  [len(sampled)]func([]byte, *Sample)
	closed sync.Once
}

// Gauge returns one for g, which holds nothing yet.
func (g *Group) Gauge() *Gauge { return &Gauge{group: g} }

// gauges is how many have files open.
var gauges atomic.Int64

// gaugeRoom is how many may: a quarter of the descriptors is theirs.
var gaugeRoom = sync.OnceValue(func() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int64(min(l.Cur/(4*uint64(len(sampled))), maxGauges))
})

// Sample is Group.Sample, but where the processor time is what it was at the last look,
// nothing ran that could have changed another figure: those are read every fourth time
// then, as the host alone changes them (by taking page cache back).
func (a *Gauge) Sample() (s Sample, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.files == nil && !a.open() {
		return a.group.Sample()
	}
	r := readers.Get().(*reader)
	defer readers.Put(r)
	s = a.last
	rested := a.read(r, cpuSampled, &s) && s == a.last && a.last.CPU > 0
	if a.rests++; rested && a.rests < wholeEvery {
		return s, true
	}
	for i := range a.files.fds {
		if i == cpuSampled { // that was read
			continue
		}
		if ok := a.read(r, i, &s); i == 0 && !ok { // ENODEV: the group was removed
			a.drop()
			return Sample{}, false
		}
	}
	a.last, a.rests = s, 0
	return s, true
}

// read takes one of the files in; false where it is not there.
func (a *Gauge) read(r *reader, file int, into *Sample) bool {
	fd := a.files.fds[file]
	if fd < 0 {
		return false
	}
	n, err := unix.Pread(fd, r.b[:], 0)
	if err != nil || n <= 0 {
		return false
	}
	a.files.takes[file](r.b[:n], into)
	return true
}

// Close closes what is open. The gauge can be used again.
func (a *Gauge) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drop()
}

// open opens the files where there is room for it, with mu held.
func (a *Gauge) open() bool {
	if gauges.Add(1) > gaugeRoom() {
		gauges.Add(-1)
		return false
	}
	f := &gaugeFiles{}
	for i, of := range sampled {
		path, take := of(a.group)
		f.fds[i], f.takes[i] = -1, take
		if path == "" {
			continue
		}
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			f.fds[i] = fd
		}
	}
	if f.fds[0] < 0 { // it is gone, which Group.Sample says
		f.close()
		return false
	}
	a.files = f
	runtime.AddCleanup(a, (*gaugeFiles).close, f)
	return true
}

// drop is called with mu held.
func (a *Gauge) drop() {
	if a.files != nil {
		a.files.close()
		a.files, a.last, a.rests = nil, Sample{}, 0
	}
}

func (f *gaugeFiles) close() {
	f.closed.Do(func() {
		for _, fd := range f.fds {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		gauges.Add(-1)
	})
}
