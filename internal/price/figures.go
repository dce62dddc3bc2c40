package price

import (
	"slices"

	"github.com/strata-project/strata/api"
)

// Names of figures that others speak of.
const (
	Start       = "start"
	StartWarm   = "start-warm"
	Stop        = "stop"
	Memory      = "memory"
	MemoryNext  = "memory-next"
	Kernel      = "kernel-memory"
	Cache       = "cache"
	CacheNext   = "cache-next"
	CacheShared = "cache-shared"
	latency     = "network-latency"
	incoming    = "network-in"
	outgoing    = "network-out"
)

// figure is one row of what is measured. docs/reference/price.md says the same at length.
type figure struct {
	name  string
	means string
	unit  string
	more  bool    // more is better
	scale float64 // the measuring command's unit over this one; 0: 1
	part  string  // of package gauge; "": taken from outside
	only  string  // a stratum that alone has it; "": all
}

// Units of figures.
const (
	Millisecond = "ms"
	Microsecond = "µs"
	Nanosecond  = "ns"
	MiB         = "MiB"
	MBs         = "MB/s"
	PerSecond   = "/s"
	Million     = "M/s"
)

var figures = []figure{
	{name: Start, means: "from nothing to the end of its first command", unit: Millisecond},
	{name: StartWarm, means: "the same, from a saved system", unit: Millisecond, only: "guest"},
	{name: Stop, means: "from asking its main program to end until all is gone", unit: Millisecond},
	{name: Memory, means: "memory of all its processes on the host, idle", unit: MiB, scale: 1 << 20},
	{name: MemoryNext, means: "the same of a second one beside it", unit: MiB, scale: 1 << 20},
	{name: Kernel, means: "the host kernel's memory for it, idle", unit: MiB, scale: 1 << 20},
	{name: Cache, means: "page cache that is charged to it, idle", unit: MiB, scale: 1 << 20},
	{name: CacheNext, means: "the same of a second one beside it", unit: MiB, scale: 1 << 20},
	{name: CacheShared, means: "page cache of its template, once for all", unit: MiB, scale: 1 << 20},
	{name: "cpu", means: "integer arithmetic", unit: Million, more: true, scale: 1e6, part: "cpu"},
	{name: "memory-access", means: "one access to memory in random order", unit: Nanosecond, part: "memory"},
	{name: "syscall", means: "one system call", unit: Nanosecond, part: "syscall"},
	{name: "process", means: "starting a program and waiting for its end", unit: Microsecond, scale: 1e3, part: "process"},
	{name: "disk-write", means: "writing in order, and through", unit: MBs, more: true, scale: 1e6, part: "disk"},
	{name: "disk-read", means: "reading in order", unit: MBs, more: true, scale: 1e6, part: "disk"},
	{name: "disk-random", means: "reads of 4 KiB here and there", unit: PerSecond, more: true, part: "disk"},
	{name: "disk-fsync", means: "an append of 4 KiB, written through", unit: Microsecond, scale: 1e3, part: "disk"},
	{name: latency, means: "a byte to it and back", unit: Microsecond, scale: 1e3, part: "network"},
	{name: incoming, means: "bytes from the host to it", unit: MBs, more: true, scale: 1e6, part: "network"},
	{name: outgoing, means: "bytes from it to the host", unit: MBs, more: true, scale: 1e6, part: "network"},
}

// named returns the row of a figure, nil for none.
func named(name string) *figure {
	i := slices.IndexFunc(figures, func(f figure) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return &figures[i]
}

// takings are the raw figures of one stratum.
type takings struct {
	inside, outside map[string][]float64
	why             map[string]string // why a figure has none, by figure or part
}

func newTakings() *takings {
	return &takings{inside: map[string][]float64{}, outside: map[string][]float64{}, why: map[string]string{}}
}

// table is everything that stratum can have, measured or not.
func (t *takings) table(stratum string) []api.PriceFigure {
	var all []api.PriceFigure
	for _, f := range figures {
		in, host := f.scaled(t.inside[f.name]), f.scaled(t.outside[f.name])
		if f.only != "" && (f.only != stratum || len(in) == 0) {
			continue
		}
		row := api.PriceFigure{Name: f.name, Means: f.means, Unit: f.unit, More: f.more}
		if row.Inside, row.Host = sample(in), sample(host); row.Inside == nil {
			row.Host, row.Why = nil, t.reason(f)
		}
		row.Times = times(in, host, f.more)
		all = append(all, row)
	}
	return all
}

// reason says why a figure was not measured.
func (t *takings) reason(f figure) string {
	for _, of := range []string{f.name, f.part} {
		if why := t.why[of]; why != "" {
			return why
		}
	}
	return "it cannot be had here"
}

func (f figure) scaled(raw []float64) []float64 {
	if f.scale == 0 {
		return raw
	}
	out := make([]float64, len(raw))
	for i, v := range raw {
		out[i] = v / f.scale
	}
	return out
}
