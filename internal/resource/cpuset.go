package resource

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Processors that a group is bound to, with its keeper. Where nobody asks for it, no group
// of strata's has the controller: on v1 its hierarchy has folders only for those that do,
// one for each.

const cpuset = "cpuset"

// onlineFile lists the host's processors.
const onlineFile = "/sys/devices/system/cpu/online"

// pinned is the group's folder of cpuset's v1 hierarchy, "" where it has none.
func (g *Group) pinned() string {
	if g.root.cpuset == "" {
		return ""
	}
	if dir := g.root.cpuset + "/" + g.folder(); exists(dir) {
		return dir
	}
	return ""
}

// setCPUSet binds the group to processors, or to all.
func (c *change) setCPUSet(l Limits) error {
	switch {
	case l.CPUSet == "" && c.fresh:
		return nil
	case c.root.cpuset != "":
		return c.setCPUSetV1(l.CPUSet)
	case c.root.nested:
		return c.setCPUSetV2(l.CPUSet)
	case l.CPUSet == "":
		return nil
	}
	return errNoCPUSet
}

var errNoCPUSet = fault.Unablef("this host has no controller that binds a group to processors").
	At("resources.cpuset_cpus").Help("mount cgroup v1's cpuset, or boot with cgroup v2")

func (c *change) setCPUSetV1(list string) error {
	dir := c.root.cpuset + "/" + c.folder()
	if list == "" && !exists(dir) {
		return nil
	}
	for _, d := range []string{c.root.cpuset, dir} {
		if err := c.root.tree.mkdir(d); err != nil && !errors.Is(err, unix.EEXIST) {
			return explain(err, "make control group %s", d)
		}
		if have, err := get(d, "cpuset.mems"); err != nil || have != "" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a new one has nothing, and takes no process
			all, err := get(filepath.Dir(d), file)
			if err == nil {
				err = put(d, file, all)
			}
			if err != nil {
				return explain(err, "set up control group %s", d)
			}
		}
	}
	if list == "" {
		var err error
		if list, err = get(c.root.cpuset, "cpuset.cpus"); err != nil {
			return explain(err, "read the processors of %s", c.root.cpuset)
		}
	}
	if err := c.put(dir, "cpuset.cpus", list); err != nil {
		return c.refusedCPUs(err, list)
	}
	return c.gather(dir)
}

// gather moves what runs in the group into its folder of cpuset, until none is left that
// was started meanwhile. A thread of this process that only enters to start something
// (Run) is not what runs in it.
func (g *Group) gather(dir string) error {
	home := g.wholeUnified()
	if home == "" {
		home = g.whole("memory")
	}
	own := strconv.Itoa(os.Getpid())
	tried := map[string]bool{own: true} // one that is ending cannot be moved
	for range 10 {
		inside, err := get(dir, "cgroup.procs")
		if err != nil {
			return explain(err, "read the processes of %s", dir)
		}
		have, found := strings.Fields(inside), false
		err = walk(home, func(from string) error {
			all, err := get(from, "cgroup.procs")
			if err != nil && !noProcesses(err) {
				return err
			}
			for _, pid := range strings.Fields(all) {
				if tried[pid] || slices.Contains(have, pid) {
					continue
				}
				tried[pid], found = true, true
				if err := put(dir, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
					return err
				}
			}
			return nil
		})
		if err != nil || !found {
			return explain(err, "bind processes to processors")
		}
	}
	return fault.Busyf("programs are started faster than they are bound to processors").Help("try again when it is quieter, or while it is stopped")
}

// setCPUSetV2 hands the controller down on the way to the group, where it is not yet.
func (c *change) setCPUSetV2(list string) error {
	dir := c.wholeUnified()
	if list == "" && !exists(dir+"/cpuset.cpus") {
		return nil
	}
	for _, d := range []string{filepath.Dir(c.root.unified), c.root.unified} {
		have, err := get(d, "cgroup.subtree_control")
		if err == nil && !slices.Contains(strings.Fields(have), cpuset) {
			err = put(d, "cgroup.subtree_control", "+"+cpuset)
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
			return errNoCPUSet
		}
		if err != nil {
			return explain(err, "hand cpuset down in %s", d)
		}
	}
	before, err := get(dir, "cpuset.cpus")
	if err == nil && (list == "" || before == "") { // which the kernel refuses for a group with processes
		var all string
		all, err = get(c.root.unified, "cpuset.cpus.effective")
		list, before = cmp.Or(list, all), cmp.Or(before, all)
	}
	if err != nil {
		return explain(err, "read the processors of %s", c.root.unified)
	}
	if err := c.putOver(dir, "cpuset.cpus", list, before); err != nil {
		return c.refusedCPUs(err, list)
	}
	return nil
}

// refusedCPUs explains a list that the kernel does not take: EACCES and ENOSPC are v1's
// words for what the group above has not.
func (g *Group) refusedCPUs(err error, list string) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EOVERFLOW) {
		online, _ := get(filepath.Dir(onlineFile), filepath.Base(onlineFile))
		return fault.Invalidf("processors %s cannot be had", list).At("resources.cpuset_cpus").Help("this host has %s", online)
	}
	return explain(err, "bind the group to processors %s", list)
}

// checkCPUSet refuses processors that the host has not: v2 takes any, and binds to all
// where none of them is there. Kinds: Invalid.
func checkCPUSet(list string) error {
	if list == "" {
		return nil
	}
	want, err := unit.ParseList(list)
	if err != nil {
		return err
	}
	online, err := get(filepath.Dir(onlineFile), filepath.Base(onlineFile))
	if err != nil {
		return nil // the kernel decides
	}
	have, err := unit.ParseList(online)
	if err != nil {
		return nil
	}
	for _, n := range want {
		if !slices.Contains(have, n) {
			return fault.Invalidf("processor %d is not there", n).At("resources.cpuset_cpus").Help("this host has %s", online)
		}
	}
	return nil
}
