package vmagent

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// group is the control group of the environment's programs. The agent is outside,
// so that no limit of theirs is its own.
type group struct {
	dir  int // the group itself
	exec int // where further programs are born
	ns   int // the cgroup namespace in which it is the root

	events int // its memory.events, open since each program's start reads it; -1: the kernel has none
}

// execFolder is where an init's group has the programs that strata starts: once it
// has divided its group, none can be in the group itself.
const execFolder = "strata.exec"

// makeGroup mounts the hierarchy and makes the environment's group, with a namespace that
// shows it as the root. The calling thread is in that namespace then.
func makeGroup() (g group, err error) {
	if err := unix.Mount("strata", groupPlace, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return g, root.Wrap(err, "mount cgroup2")
	}
	for _, c := range strings.Fields(readLine(groupPlace + "/cgroup.controllers")) {
		_ = writeFile(groupPlace+"/cgroup.subtree_control", "+"+c) // what is missing is missed where a limit is set
	}
	return newGroup(ownGroup)
}

// The groups below the hierarchy's root.
const (
	ownGroup       = "/environment"
	rehearsalGroup = "/rehearsal"
)

// newGroup makes one of the groups. The calling thread is in a namespace then that shows
// it as the whole.
func newGroup(name string) (g group, err error) {
	place := groupPlace + name
	if err := unix.Mkdir(place, 0o755); err != nil && err != unix.EEXIST {
		return g, err
	}
	if g.dir, err = unix.Open(place, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return g, err
	}
	g.exec = g.dir
	g.watch()
	g.ns, err = shown(place)
	return g, err
}

// watch opens what event reads.
func (g *group) watch() {
	var err error
	if g.events, err = unix.Openat(g.dir, "memory.events", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
		g.events = -1
	}
}

// divide makes a place in the group for programs beside those of an init.
func (g *group) divide() error {
	err := unix.Mkdirat(g.dir, execFolder, 0o755)
	if err != nil && err != unix.EEXIST {
		return err
	}
	g.exec, err = unix.Openat(g.dir, execFolder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// shown makes a namespace whose root is the group at place. It is of the calling
// thread; the group was that of the whole process for a moment.
func shown(place string) (int, error) {
	if err := writeFile(place+"/cgroup.procs", "0"); err != nil {
		return -1, root.Wrap(err, "enter the group")
	}
	err := unix.Unshare(unix.CLONE_NEWCGROUP)
	if back := writeFile(groupPlace+"/cgroup.procs", "0"); err == nil {
		err = back
	}
	if err != nil {
		return -1, root.Wrap(err, "show the group as a whole")
	}
	return unix.Open("/proc/thread-self/ns/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// limit sets what the programs may use.
func (g *group) limit(l spec.Limits) error {
	if l.Memory < 0 || l.PIDs < 0 {
		return root.Fail(root.Invalid, "limits", "a limit is not negative")
	}
	if err := g.makeRoom(l.Memory); err != nil {
		return err
	}
	for _, one := range []struct {
		file, field string
		value       int64
	}{{"memory.max", "memory", l.Memory}, {"pids.max", "pids", l.PIDs}} {
		text := "max"
		if one.value > 0 {
			text = strconv.FormatInt(one.value, 10)
		}
		err := writeAt(g.dir, one.file, text)
		if err == unix.ENOENT && one.value == 0 {
			continue // this kernel cannot, and nobody asked
		}
		if err != nil {
			return root.In(root.Wrap(err, "set "+one.file), one.field)
		}
	}
	return nil
}

// stats reads what the programs use; what this kernel does not count is 0.
func (g *group) stats() spec.Stats {
	return spec.Stats{
		CPU: g.key("cpu.stat", "usage_usec") * 1000, Memory: g.number("memory.current"), MemoryPeak: g.number("memory.peak"),
		OOMKills: g.kills(), PIDs: g.number("pids.current"), MemoryHits: g.event("max"),
		Swap: g.number("memory.swap.current"), PIDsPeak: g.number("pids.peak"), PIDsHits: g.key("pids.events", "max"),
	}
}

// kills is how many programs were killed for want of memory.
func (g *group) kills() int64 { return g.event("oom_kill") }

// event is how often something happened for want of memory.
func (g *group) event(name string) int64 {
	var b [256]byte
	n, err := unix.Pread(g.events, b[:], 0)
	if err != nil {
		return 0
	}
	return keyIn(b[:n], name)
}

func (g *group) number(file string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(string(readAt(g.dir, file))), 10, 64)
	return n
}

func (g *group) key(file, key string) int64 { return keyIn(readAt(g.dir, file), key) }

// keyIn is the number behind key in a file of one such pair a line; 0 without one.
func keyIn(text []byte, key string) int64 {
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

// readAt reads a small file of the kernel's, nil where it cannot.
func readAt(dir int, name string) []byte {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, os.Getpagesize())
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil
	}
	return b[:n]
}

func writeAt(dir int, name, text string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}
