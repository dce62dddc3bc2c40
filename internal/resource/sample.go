package resource

import (
	"bytes"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Sample is what is read of a group again and again. A figure that this host does
// not keep is 0.
type Sample struct {
	CPU       int64 // nanoseconds
	Throttled int64 // nanoseconds
	Memory    int64 // bytes
	PIDs      int64 // processes and threads
	Read      int64 // bytes from disks
	Written   int64 // bytes to disks
}

// reader reads small files one after the other.
type reader struct {
	b [4096]byte
}

var readers = sync.Pool{New: func() any { return new(reader) }}

// sampled is what a sample is read of, in the order of Gauge's files.
var sampled = [...]func(*Group) (path string, take func([]byte, *Sample)){
	(*Group).memorySampled, (*Group).pidsSampled, (*Group).cpuSampled, (*Group).ioSampled,
}

// cpuSampled is where processor time stands in sampled.
const cpuSampled = 2

func (g *Group) memorySampled() (string, func([]byte, *Sample)) {
	name := "/memory.usage_in_bytes"
	if g.root.homes["memory"] == g.root.unified {
		name = "/memory.current"
	}
	return g.dir("memory") + name, func(b []byte, s *Sample) { s.Memory = count64(b) }
}

func (g *Group) pidsSampled() (string, func([]byte, *Sample)) {
	return g.dir("pids") + "/pids.current", func(b []byte, s *Sample) { s.PIDs = count64(b) }
}

func (g *Group) cpuSampled() (string, func([]byte, *Sample)) {
	const micro = 1000
	if dir := g.unified(); dir != "" {
		return dir + "/cpu.stat", func(b []byte, s *Sample) {
			s.CPU, s.Throttled = field(b, "usage_usec ")*micro, field(b, "throttled_usec ")*micro
		}
	}
	if dir := g.dir("cpuacct"); dir != "" {
		return dir + "/cpuacct.usage", func(b []byte, s *Sample) { s.CPU = count64(b) }
	}
	return "", nil
}

func (g *Group) ioSampled() (string, func([]byte, *Sample)) {
	if dir := g.dir("io"); dir != "" {
		return dir + "/io.stat", func(b []byte, s *Sample) { s.Read, s.Written = sum(b, "rbytes="), sum(b, "wbytes=") }
	}
	if dir := g.dir("blkio"); dir != "" {
		return dir + "/blkio.throttle.io_service_bytes", func(b []byte, s *Sample) { s.Read, s.Written = sum(b, " Read "), sum(b, " Write ") }
	}
	return "", nil
}

// Sample reads the files that change, each once and with no more work than that;
// ok is false where the group is gone. Who does it again and again takes a Gauge.
func (g *Group) Sample() (s Sample, ok bool) {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	for i, of := range sampled {
		path, take := of(g)
		if path == "" {
			continue
		}
		text := r.read(path)
		if text == nil && i == 0 {
			return s, false
		}
		take(text, &s)
	}
	return s, true
}

// read returns the beginning of a file until the next one is read, nil where it
// cannot be read.
func (r *reader) read(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, r.b[:])
	if err != nil || n < 0 {
		return nil
	}
	return r.b[:n]
}

// count64 reads the number that b begins with.
func count64(b []byte) (n int64) {
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<59 {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// field reads the number behind a key at the beginning of a line.
func field(b []byte, key string) int64 {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		if value, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return count64(value)
		}
		b = rest
	}
	return 0
}

// sum adds up the numbers behind all occurrences of a key.
func sum(b []byte, key string) (n int64) {
	for {
		_, rest, ok := bytes.Cut(b, []byte(key))
		if !ok {
			return n
		}
		n += count64(rest)
		b = rest
	}
}

// Pressure is how much of its time something waited for a resource: some of it, or
// all of it at once, in the last 10 seconds. Unit: percent.
// Source: Documentation/accounting/psi.rst.
type Pressure struct {
	Some, Full float64
}

// Pressures are those of the resources that the kernel has it for, by name: cpu,
// memory, io.
type Pressures map[string]Pressure

// Pressure reads the group's, nil where the kernel keeps none.
func (g *Group) Pressure() Pressures {
	if g.unified() == "" {
		return nil
	}
	return pressures(g.unified()+"/", ".pressure")
}

// HostPressure reads the whole host's, nil where the kernel keeps none.
func HostPressure() Pressures { return pressures("/proc/pressure/", "") }

func pressures(before, after string) Pressures {
	var all Pressures
	var r reader
	for _, name := range []string{"cpu", "memory", "io"} {
		if text := r.read(before + name + after); text != nil {
			if all == nil {
				all = Pressures{}
			}
			all[name] = parsePressure(text)
		}
	}
	return all
}

// parsePressure reads "some avg10=0.12 avg60=… total=…" and the line of "full".
func parsePressure(text []byte) (p Pressure) {
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		value, _ := bytes.CutPrefix(f[1], []byte("avg10="))
		percent, err := strconv.ParseFloat(string(value), 64)
		switch {
		case err != nil || !(percent >= 0 && percent <= 100):
		case string(f[0]) == "some":
			p.Some = percent
		case string(f[0]) == "full":
			p.Full = percent
		}
	}
	return p
}
