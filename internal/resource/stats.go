package resource

import (
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Stats are a group's figures at one moment. A figure this host does not keep is
// 0; a limit that is not set is Unlimited.
type Stats struct {
	Memory MemoryStats `json:"memory"`
	CPU    CPUStats    `json:"cpu"`
	PIDs   PIDsStats   `json:"pids"`
	IO     IOStats     `json:"io"`
}

// MemoryStats are in bytes, but for Kills, a count of processes killed for want
// of memory, and Hits, of how often the limit was run into.
type MemoryStats struct {
	Current int64 `json:"current"`
	Peak    int64 `json:"peak"`
	Limit   int64 `json:"limit"`
	Swap    int64 `json:"swap"`
	// Of swap space the limit, and what only v2 counts: the most (0: before 6.5), and how
	// often the limit was run into (-1: not counted).
	SwapLimit int64 `json:"swap_limit"`
	SwapPeak  int64 `json:"swap_peak"`
	SwapHits  int64 `json:"swap_hits"`
	Anon      int64 `json:"anon"` // what programs hold
	File      int64 `json:"file"` // page cache
	Kills     int64 `json:"kills"`
	Hits      int64 `json:"hits"`
}

// CPUStats are in nanoseconds, but for Throttles, a count of periods.
type CPUStats struct {
	Usage     int64 `json:"usage"`
	User      int64 `json:"user"`
	System    int64 `json:"system"`
	Throttled int64 `json:"throttled"`
	Throttles int64 `json:"throttles"`
}

// PIDsStats count processes and threads. Peak is 0 where the kernel keeps none
// (before 6.1).
type PIDsStats struct {
	Current int64 `json:"current"`
	Peak    int64 `json:"peak"`
	Limit   int64 `json:"limit"`
	Hits    int64 `json:"hits"`
}

// IOStats are sums over all devices; Known is false where this host keeps none
// for a group. On v1 what is written through the page cache is not in them.
type IOStats struct {
	Known      bool  `json:"known"`
	ReadBytes  int64 `json:"readBytes"`
	WriteBytes int64 `json:"writeBytes"`
	Reads      int64 `json:"reads"`
	Writes     int64 `json:"writes"`
}

// Stats reads the figures. Kinds: Missing where the group is gone.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	if err := g.memoryStats(&s.Memory); err != nil {
		if !exists(g.dir("memory")) {
			return Stats{}, fault.Missingf("the control group %s is gone", g.id)
		}
		return Stats{}, explain(err, "read the figures of %s", g.id)
	}
	g.cpuStats(&s.CPU)
	pids := g.dir("pids")
	s.PIDs.Current, _ = number(pids, "pids.current")
	s.PIDs.Peak, _ = number(pids, "pids.peak")
	s.PIDs.Limit, _ = number(pids, "pids.max")
	events, _ := keys(pids, "pids.events")
	s.PIDs.Hits = events["max"]
	g.ioStats(&s.IO)
	return s, nil
}

// Whole is the memory of the payload and the keeper, with the most of both at once.
// Kinds: Missing where the group is gone.
func (g *Group) Whole() (held, most int64, err error) {
	now, peak := "memory.usage_in_bytes", "memory.max_usage_in_bytes"
	if g.root.homes["memory"] == g.root.unified {
		now, peak = "memory.current", "memory.peak"
	}
	dir := g.whole("memory")
	if held, err = number(dir, now); err != nil {
		if !exists(dir) {
			return 0, 0, fault.Missingf("the control group %s is gone", g.id)
		}
		return 0, 0, explain(err, "read the figures of %s", g.id)
	}
	most, _ = number(dir, peak)
	return held, most, nil
}

// memoryStats fails only where the current use cannot be read: the other files
// depend on the kernel's age.
func (g *Group) memoryStats(m *MemoryStats) (err error) {
	dir := g.dir("memory")
	if g.root.homes["memory"] == g.root.unified {
		if m.Current, err = number(dir, "memory.current"); err != nil {
			return err
		}
		m.Peak, _ = number(dir, "memory.peak")
		m.Limit, _ = number(dir, "memory.max")
		m.Swap, _ = number(dir, "memory.swap.current")
		m.SwapLimit, _ = number(dir, "memory.swap.max")
		m.SwapPeak, _ = number(dir, "memory.swap.peak")
		swapped, err := keys(dir, "memory.swap.events")
		if m.SwapHits = swapped["max"]; err != nil {
			m.SwapHits = -1
		}
		stat, _ := keys(dir, "memory.stat")
		m.Anon, m.File = stat["anon"], stat["file"]
		events, _ := keys(dir, "memory.events")
		m.Kills, m.Hits = events["oom_kill"], events["max"]
		return nil
	}
	if m.Current, err = number(dir, "memory.usage_in_bytes"); err != nil {
		return err
	}
	m.Peak, _ = number(dir, "memory.max_usage_in_bytes")
	m.Limit, _ = number(dir, "memory.limit_in_bytes")
	m.SwapHits = -1
	if both, err := number(dir, "memory.memsw.limit_in_bytes"); err == nil && both > 0 && m.Limit > 0 {
		m.SwapLimit = both - m.Limit
	}
	m.Hits, _ = number(dir, "memory.failcnt")
	stat, _ := keys(dir, "memory.stat")
	m.Anon, m.File, m.Swap = stat["total_rss"], stat["total_cache"], stat["total_swap"]
	events, _ := keys(dir, "memory.oom_control")
	m.Kills = events["oom_kill"]
	return nil
}

func (g *Group) cpuStats(c *CPUStats) {
	const micro = 1000
	if dir := g.unified(); dir != "" {
		// The unified hierarchy counts time whether or not it has the controller.
		stat, _ := keys(dir, "cpu.stat")
		c.Usage, c.User, c.System = stat["usage_usec"]*micro, stat["user_usec"]*micro, stat["system_usec"]*micro
		c.Throttled, c.Throttles = stat["throttled_usec"]*micro, stat["nr_throttled"]
	} else if dir := g.dir("cpuacct"); dir != "" {
		c.Usage, _ = number(dir, "cpuacct.usage")
		c.User, _ = number(dir, "cpuacct.usage_user")
		c.System, _ = number(dir, "cpuacct.usage_sys")
	}
	if g.root.homes["cpu"] != g.root.unified {
		stat, _ := keys(g.dir("cpu"), "cpu.stat")
		c.Throttled, c.Throttles = stat["throttled_time"], stat["nr_throttled"]
	}
}

// ioStats sums the lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func (g *Group) ioStats(s *IOStats) {
	dir := g.dir("io")
	if dir == "" {
		g.ioStatsV1(s)
		return
	}
	text, err := get(dir, "io.stat")
	s.Known = err == nil
	into := map[string]*int64{"rbytes": &s.ReadBytes, "wbytes": &s.WriteBytes, "rios": &s.Reads, "wios": &s.Writes}
	for _, word := range strings.Fields(text) {
		key, value, _ := strings.Cut(word, "=")
		if sum := into[key]; sum != nil {
			n, _ := strconv.ParseInt(value, 10, 64)
			*sum += n
		}
	}
}

// ioStatsV1 sums the lines "8:0 Read 1" of what went past the throttle.
func (g *Group) ioStatsV1(s *IOStats) {
	dir := g.dir("blkio")
	if dir == "" {
		return
	}
	bytes, err := get(dir, "blkio.throttle.io_service_bytes")
	s.Known = err == nil
	ops, _ := get(dir, "blkio.throttle.io_serviced")
	s.ReadBytes, s.WriteBytes = sum([]byte(bytes), " Read "), sum([]byte(bytes), " Write ")
	s.Reads, s.Writes = sum([]byte(ops), " Read "), sum([]byte(ops), " Write ")
}

// OOMSource returns the file in which the line with the given key counts the
// processes of the group killed for want of memory.
func (g *Group) OOMSource() (file, key string) {
	if g.root.homes["memory"] == g.root.unified {
		return g.dir("memory") + "/memory.events", "oom_kill"
	}
	return g.dir("memory") + "/memory.oom_control", "oom_kill"
}

func sizeText(n int64) string { return unit.Size(n).String() }
