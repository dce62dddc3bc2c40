package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// topView is what top shows, and how; drawing it touches nothing.
type topView struct {
	processes bool   // each process, not each environment
	sort      string // one of topSorts
	filter    string
	typing    bool // the filter is being typed
	skip      int  // rows above the first one shown
	usage     api.UsageReport
	tasks     []topTask
	problem   string // why the figures are old
}

// topTask is a process with what it uses now.
type topTask struct {
	api.Task
	now float64 // percent of one processor
}

// topSorts are the orders of rows, by the key that chooses each.
var topSorts = map[byte]string{'c': "cpu", 'm': "memory", 'n': "name", 'p': "processes", 'd': "disk", 'r': "network"}

func topSortNames() []string {
	return []string{"cpu", "memory", "name", "processes", "disk", "network"}
}

// topKeys is the last line.
const topKeys = "q quit  t processes  / filter  sort: c cpu m memory n name p procs d disk r net"

// draw returns the lines of a screen, none of them wider than width; height 0 is all
// there are, without the line of keys.
func (v *topView) draw(width, height int) []string {
	lines := v.head()
	titles, all, row := v.rows()
	first, shown := 0, all
	if height > 0 {
		room := max(0, height-len(lines)-2) // the titles, and the line of keys
		v.skip = max(0, min(v.skip, all-room))
		first, shown = v.skip, min(all-v.skip, room)
	}
	lines = append(lines, titles)
	for i := range shown {
		lines = append(lines, row(first+i))
	}
	if height > 0 {
		for len(lines) < height-1 {
			lines = append(lines, "")
		}
		lines = append(lines[:max(0, height-1)], v.foot())
	}
	for i := range lines {
		lines[i] = cutTo(fault.Printable(lines[i]), width)
	}
	return lines
}

func cutTo(line string, width int) string {
	line = strings.TrimRight(line, " ")
	if r := []rune(line); width > 0 && len(r) > width {
		return string(r[:width])
	}
	return line
}

func (v *topView) foot() string {
	switch {
	case v.typing:
		return "filter: " + v.filter + "_"
	case v.problem != "":
		return v.problem
	}
	return topKeys
}

// head is the host: what of it is used, shared, guaranteed and free.
func (v *topView) head() []string {
	h, of := &v.usage.Host, int64(0)
	for i := range v.usage.Environments {
		of += v.usage.Environments[i].CPU
	}
	title := fmt.Sprintf("strata top  %s  %d running  sorted by %s", v.usage.Time.Local().Format(time.TimeOnly), len(v.usage.Environments), v.sort)
	if v.filter != "" {
		title += "  filter " + v.filter
	}
	used := max(h.CPU, of)
	cpu := fmt.Sprintf("CPU     %d: used %.2f (%.2f by environments), free %.2f", h.CPUs, cores(used), cores(of), cores(max(0, int64(h.CPUs)*1000-used)))
	memory := fmt.Sprintf("memory  %s: used %s, shared %s, guaranteed %s, free %s", orZero(h.Memory), orZero(h.MemoryUsed), orZero(h.MemoryShared), orZero(h.MemoryGuaranteed), orZero(h.MemoryFree))
	if p := h.Pressure; p != nil {
		cpu += fmt.Sprintf(", waited %.0f%%", p["cpu"].Some)
		memory += fmt.Sprintf(", waited %.0f%%", p["memory"].Some)
	}
	return []string{title, cpu, memory, ""}
}

func cores(milli int64) float64 { return float64(milli) / 1000 }

func orZero(n int64) string {
	if n <= 0 {
		return "0"
	}
	return roundText(n)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// rows are the titles, how many pass the filter, and the line of each: what is not shown
// is not written.
func (v *topView) rows() (titles string, all int, row func(int) string) {
	if v.processes {
		return v.taskRows()
	}
	titles = fmt.Sprintf("%-14s %-7s %6s %6s %7s %7s %5s %7s %6s %6s", "ENVIRONMENT", "STRATUM", "CPU%", "LIMIT", "MEMORY", "LIMIT", "PROC", "DISK", "IN/s", "OUT/s")
	environments := v.environments()
	return titles, len(environments), func(i int) string {
		e, limit := environments[i], ""
		if e.CPULimit > 0 {
			limit = fmt.Sprint(e.CPULimit / 10)
		}
		return fmt.Sprintf("%-14s %-7s %6.1f %6s %7s %7s %5d %7s %6s %6s", cutTo(e.Environment, 14), e.Stratum, float64(e.CPU)/10, orDash(limit),
			orDash(roundText(e.Memory)), orDash(roundText(e.MemoryLimit)), e.Processes, orDash(roundText(e.Disk)), orDash(roundText(e.Received)), orDash(roundText(e.Sent)))
	}
}

func (v *topView) environments() []*api.Usage {
	var all []*api.Usage
	for i := range v.usage.Environments {
		e := &v.usage.Environments[i]
		if v.filter == "" || strings.Contains(e.Environment+" "+e.Stratum, v.filter) {
			all = append(all, e)
		}
	}
	value := map[string]func(*api.Usage) int64{
		"cpu": func(u *api.Usage) int64 { return u.CPU }, "memory": func(u *api.Usage) int64 { return u.Memory },
		"processes": func(u *api.Usage) int64 { return u.Processes }, "disk": func(u *api.Usage) int64 { return u.Disk },
		"network": func(u *api.Usage) int64 { return u.Received + u.Sent },
	}[v.sort]
	slices.SortStableFunc(all, func(a, b *api.Usage) int {
		if value != nil {
			if c := cmp.Compare(value(b), value(a)); c != 0 {
				return c
			}
		}
		return strings.Compare(a.Environment, b.Environment)
	})
	return all
}

func (v *topView) taskRows() (titles string, n int, row func(int) string) {
	titles = fmt.Sprintf("%-14s %7s %-9s %6s %7s %10s %s", "ENVIRONMENT", "PID", "USER", "CPU%", "MEMORY", "TIME", "COMMAND")
	var all []*topTask
	for i := range v.tasks {
		t := &v.tasks[i]
		if v.filter == "" || strings.Contains(t.Environment+" "+t.Stratum+" "+t.User+" "+t.Command, v.filter) {
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(a, b *topTask) int {
		c := 0
		switch v.sort {
		case "cpu":
			c = cmp.Compare(b.now, a.now)
		case "memory":
			c = cmp.Compare(b.Memory, a.Memory)
		}
		return cmp.Or(c, strings.Compare(a.Environment, b.Environment), cmp.Compare(a.PID, b.PID))
	})
	return titles, len(all), func(i int) string {
		t := all[i]
		if t.Missing != "" {
			return fmt.Sprintf("%-14s %7s (%s)", cutTo(t.Environment, 14), "-", t.Missing)
		}
		return fmt.Sprintf("%-14s %7d %-9s %6.1f %7s %10s %s", cutTo(t.Environment, 14), t.PID, cutTo(t.User, 9), t.now, orDash(roundText(t.Memory)), clockText(t.CPUTime), t.Command)
	}
}

// key does what a key stands for; it returns false where top is to end.
func (v *topView) key(b byte) bool {
	const escape, enter, back, interrupt, erase = 27, '\r', 127, 3, 21
	switch {
	case b == interrupt:
		return false
	case v.typing && (b == enter || b == escape):
		v.typing = false
		if b == escape {
			v.filter = ""
		}
	case v.typing && (b == back || b == '\b'):
		if r := []rune(v.filter); len(r) > 0 {
			v.filter = string(r[:len(r)-1])
		}
	case v.typing && b == erase:
		v.filter = ""
	case v.typing:
		if b >= ' ' && b < back && len(v.filter) < 64 {
			v.filter += string(rune(b))
		}
	case b == 'q':
		return false
	case b == '/':
		v.typing, v.skip = true, 0
	case b == 't':
		v.processes, v.skip = !v.processes, 0
	case b == 'j':
		v.skip++
	case b == 'k':
		v.skip = max(0, v.skip-1)
	case topSorts[b] != "":
		v.sort, v.skip = topSorts[b], 0
	}
	return true
}
