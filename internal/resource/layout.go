package resource

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// The layouts.
const (
	V1     = "v1"
	Hybrid = "hybrid"
	V2     = "v2"
)

// limiting are the controllers that limits need.
var limiting = []string{"cpu", "memory", "pids"}

// accounting are those that only add figures; they are used where v2 has them.
var accounting = []string{"io"}

// Layout says where the controllers of a host are at home.
type Layout struct {
	Version string // V1, Hybrid or V2
	// Controllers maps each controller in use to its hierarchy's mount point.
	Controllers map[string]string
	// Unified is where the v2 hierarchy is mounted, "" for nowhere.
	Unified string
	// Missing lists the controllers that limits need and this host has not.
	Missing []string
	// Swap tells whether swap is accounted for, so that it can be limited. It is
	// known once a root is open.
	Swap bool
}

// hierarchies are the mounts of control groups, from mountinfo.
type hierarchies struct {
	v1      map[string]string // controller, or "name=systemd" -> mount point
	unified string
}

// v1Names are the controllers of v1 that may be in a mount's options, among
// words such as rw and xattr.
var v1Names = []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer", "blkio", "cpuset", "name=systemd"}

// parseMounts reads /proc/self/mountinfo. Of several mounts of one hierarchy the
// one that shows its top counts, and of those the first.
func parseMounts(mountinfo string) hierarchies {
	h := hierarchies{v1: map[string]string{}}
	whole := map[string]bool{}
	keep := func(name, root, point string, have bool) bool {
		if have && (whole[name] || root != "/") {
			return false
		}
		whole[name] = root == "/"
		return true
	}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		root, point := left[3], unescape(left[4])
		switch right[0] {
		case "cgroup2":
			if keep("unified", root, point, h.unified != "") {
				h.unified = point
			}
		case "cgroup":
			for _, option := range strings.Split(right[2], ",") {
				if slices.Contains(v1Names, option) && keep(option, root, point, h.v1[option] != "") {
					h.v1[option] = point
				}
			}
		}
	}
	return h
}

// unescape undoes mountinfo's octal escapes. Source: fs/proc_namespace.c, show_mountinfo.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// layout gives every controller its home: v1 where it is mounted there, since
// the kernel serves a controller in one hierarchy only, else v2.
func (h hierarchies) layout() (Layout, error) {
	l := Layout{Controllers: map[string]string{}, Unified: h.unified}
	var v2 []string
	if h.unified != "" {
		text, err := get(h.unified, "cgroup.controllers")
		if err != nil {
			return Layout{}, fault.Unablef("read the controllers of cgroup v2: %w", err)
		}
		v2 = strings.Fields(text)
	}
	old := false
	for _, c := range limiting {
		switch {
		case h.v1[c] != "":
			l.Controllers[c] = h.v1[c]
			old = true
		case slices.Contains(v2, c):
			l.Controllers[c] = h.unified
		default:
			l.Missing = append(l.Missing, c)
		}
	}
	for _, c := range accounting {
		if slices.Contains(v2, c) {
			l.Controllers[c] = h.unified
		}
	}
	switch {
	case h.unified == "" && len(h.v1) == 0:
		return Layout{}, fault.Unablef("no control groups are mounted").Help("mount cgroup2 on /sys/fs/cgroup, or boot with systemd")
	case h.unified == "":
		l.Version = V1
	case old || len(h.v1) > 0:
		l.Version = Hybrid
	default:
		l.Version = V2
	}
	return l, nil
}

// Detect returns this host's layout and makes nothing. Kinds: Unable.
func Detect() (Layout, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Layout{}, fault.Unablef("read mounts: %w", err)
	}
	l, err := parseMounts(string(text)).layout()
	if err != nil {
		return l, err
	}
	if dir := l.Controllers["memory"]; dir != "" && dir != l.Unified {
		l.Swap = exists(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
	}
	return l, nil
}

// ownGroup returns the path of a process in the unified hierarchy, "" for unknown.
func ownGroup(procCgroup string) string {
	for line := range strings.Lines(procCgroup) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return ""
}
