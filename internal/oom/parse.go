package oom

import (
	"slices"
	"strconv"
	"strings"
)

// Kill is one process killed for want of memory.
type Kill struct {
	ID      string // of the environment's control group; "" where it was not said
	Process string // the name that it gave itself, printable
	PID     int    // as the kernel numbers it that killed
	Held    int64  // of memory when it was killed. Unit: bytes
	Short   Short
}

// Short says what was short of memory.
type Short string

// What can be.
const (
	Limit Short = "limit" // the environment's own limit was reached
	Group Short = "group" // that of a group within the environment
	Whole Short = "whole" // the whole system, or the limit of something above
)

// Bounds of what is read.
const (
	maxLine = 8 << 10 // linux/printk.h, PRINTK_MESSAGE_MAX is 2 KiB, each byte escaped as four
	maxName = 64      // linux/sched.h, TASK_COMM_LEN, likewise
)

// Parser puts the two messages of a kill together. The zero value parses a system's own
// messages, with which no group is told.
type Parser struct {
	Root string // name of strata's group, which the groups of environments are in; "": none

	open Kill // from a first message
}

// The messages. Source: Linux, mm/oom_kill.c, dump_oom_victim and __oom_kill_process;
// kernel/cgroup/cpuset.c names the cpuset before the groups, without a slash.
const (
	firstMessage = "oom-kill:constraint="
	ofGroup      = "Memory cgroup out of memory: Killed process "
	ofSystem     = "Out of memory: Killed process "
)

// Line takes one message, without level and time, and returns a kill where it ends one.
func (p *Parser) Line(text string) (Kill, bool) {
	if len(text) > maxLine {
		return Kill{}, false
	}
	if rest, ok := strings.CutPrefix(text, firstMessage); ok {
		p.open, _ = p.first(rest)
		return Kill{}, false
	}
	short := Limit
	rest, ok := strings.CutPrefix(text, ofGroup)
	if !ok {
		short = Whole
		if rest, ok = strings.CutPrefix(text, ofSystem); !ok {
			return Kill{}, false
		}
	}
	k, ok := second(rest)
	if !ok {
		return Kill{}, false
	}
	k.Short = short
	if p.open.PID == k.PID {
		k.ID, k.Short = p.open.ID, p.open.Short
	}
	p.open = Kill{}
	return k, true
}

// first reads "…,oom_memcg=/strata/ID,task_memcg=/strata/ID/x,task=NAME,pid=1,uid=1", or
// "…,global_oom,task_memcg=…".
func (p *Parser) first(text string) (k Kill, ok bool) {
	front, uid, ok := cutLast(text, ",uid=")
	if !ok || number(uid) < 0 {
		return k, false
	}
	front, pid, ok := cutLast(front, ",pid=")
	if k.PID = int(number(pid)); !ok || k.PID <= 0 {
		return Kill{}, false
	}
	k.Short = Whole
	if _, group, limited := strings.Cut(front, ",oom_memcg=/"); limited {
		id, below := p.id(group)
		if id != "" {
			k.ID, k.Short = id, Limit
			if below {
				k.Short = Group
			}
			return k, true
		}
	}
	if _, group, found := strings.Cut(front, ",task_memcg=/"); found {
		k.ID, _ = p.id(group)
	}
	return k, true
}

// id finds the environment's id in a path that begins text: it comes after the first
// name of strata's. below tells that the path goes on.
func (p *Parser) id(text string) (id string, below bool) {
	path, _, _ := strings.Cut(text, ",") // neither strata's names nor ids have one
	parts := strings.Split(path, "/")
	for i, part := range parts[:max(0, len(parts)-1)] {
		if part == p.Root && part != "" {
			id, _, _ := strings.Cut(parts[i+1], ".") // package resource, a mark
			return id, i+3 < len(parts)              // what the limit is of lies in the environment's group
		}
	}
	return "", false
}

// member is k with the environment that the process's groups (its file "cgroup" in /proc)
// are of, if it is one. Whose limit it was cannot be told of a process in a group within
// the environment's; that stays unsaid.
func (p *Parser) member(k Kill, groups string) Kill {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // cgroups(7): number, controllers, path
		if len(f) != 3 || f[0] != "0" && !slices.Contains(strings.Split(f[1], ","), "memory") {
			continue
		}
		if id, below := p.id(strings.TrimPrefix(f[2], "/")); !below || k.Short == Whole {
			k.ID = id
		}
		if f[0] != "0" {
			break // memory is at home in v1, and its groups are what was short
		}
	}
	return k
}

// second reads "1 (NAME) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB, UID:1 …".
func second(text string) (k Kill, ok bool) {
	front, rest, ok := cutLast(text, ") total-vm:")
	if !ok {
		if front, rest, ok = cutLast(text, "), total-vm:"); !ok { // before 5.3
			return k, false
		}
	}
	pid, name, ok := strings.Cut(front, " (")
	if k.PID = int(number(pid)); !ok || k.PID <= 0 {
		return Kill{}, false
	}
	k.Process = printable(name)
	for _, word := range strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ',' }) {
		key, value, _ := strings.Cut(word, "-rss:")
		if key == "anon" || key == "file" || key == "shmem" {
			n := number(strings.TrimSuffix(value, "kB"))
			if n < 0 || n > 1<<50 {
				return Kill{}, false
			}
			k.Held += n << 10
		}
	}
	return k, true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// number reads digits, -1 for anything else.
func number(s string) int64 {
	if n, err := strconv.ParseUint(s, 10, 62); err == nil {
		return int64(n)
	}
	return -1
}

// printable is a name that can be shown.
func printable(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
	return clean[:min(len(clean), maxName)]
}
