package resource

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/undo"
	"golang.org/x/sys/unix"
)

// Bounds of the groups that an environment may make in its own. A systemd with a
// few hundred units has some hundreds, four deep; nested engines are deeper.
const (
	maxDescendants = 4096
	maxDepth       = 64
)

// Group is one environment's control group, with all that strata runs for it. Its limits
// are those of what the keeper starts; its share (Root.Share) and Whole are of all. Make
// one with Root.Create or Root.Find; it holds nothing open.
type Group struct {
	root *Root
	id   string
}

func (r *Root) group(id string) *Group { return &Group{r, id} }

// ID returns the id that the group was made with.
func (g *Group) ID() string { return g.id }

// folder is the name of the group's folders.
func (g *Group) folder() string { return g.id + g.root.mark }

// Create makes the group of an environment. Only the given devices can be used in
// it. owner is the host's user id that may make groups below it, for an
// environment with an init of its own; 0 for nobody. If Create fails, nothing it
// made is left. Kinds: Invalid, Conflict where the id is taken, Busy where the kernel
// has no room, Denied.
func (r *Root) Create(ctx context.Context, id string, l Limits, devices []Device, owner uint32) (_ *Group, err error) {
	if !idPattern.MatchString(id) {
		return nil, fault.Invalidf("%q is no id for a control group", id)
	}
	if err := fault.Join(l.Check(), checkDevices(devices)); err != nil {
		return nil, err
	}
	var back undo.Stack
	defer back.Unless(ctx, &err)
	g := r.group(id)
	for _, dir := range r.dirs {
		path := dir + "/" + g.folder()
		err := r.tree.mkdir(path)
		if errors.Is(err, unix.ENOENT) { // the whole root was removed meanwhile
			if err = r.make(); err == nil {
				err = r.tree.mkdir(path)
			}
		}
		if errors.Is(err, unix.EEXIST) {
			return nil, fault.Conflictf("the control group %s is there already", path)
		}
		if err != nil {
			return nil, explain(err, "make control group %s", path)
		}
		back.Push("remove control group", func(ctx context.Context) error { return r.removeTree(ctx, path) })
		if err := r.part(path, keeperLeaf, payloadLeaf); err != nil {
			return nil, err
		}
	}
	if r.cpuset != "" && l.CPUSet != "" {
		back.Push("remove control group", func(ctx context.Context) error { return r.removeTree(ctx, r.cpuset+"/"+g.folder()) })
	}
	if err := (&change{Group: g, fresh: true}).apply(l); err != nil {
		return nil, err
	}
	if err := g.allow(devices); err != nil {
		return nil, err
	}
	if owner != 0 {
		if err := g.delegate(owner); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Find returns the group with the given id, half-made or not. Kinds: Missing.
func (r *Root) Find(id string) (*Group, error) {
	if idPattern.MatchString(id) {
		g := r.group(id)
		for _, dir := range r.dirs {
			if exists(dir + "/" + g.folder()) {
				return g, nil
			}
		}
	}
	return nil, fault.Missingf("there is no control group %q", id)
}

// part makes the groups below dir, a folder of the root's or below it, and hands them
// the controllers.
func (r *Root) part(dir string, leaves ...string) error {
	if r.nested && strings.HasPrefix(dir, r.unified+"/") {
		if err := r.enable(dir); err != nil {
			return err
		}
	}
	for _, leaf := range leaves {
		if err := r.tree.mkdir(dir + "/" + leaf); err != nil {
			return explain(err, "make control group %s/%s", dir, leaf)
		}
	}
	return nil
}

// whole returns the group's folder in the hierarchy of a controller, "" for none.
func (g *Group) whole(controller string) string {
	if home := g.root.homes[controller]; home != "" {
		return home + "/" + g.folder()
	}
	return ""
}

// dir returns the payload's folder in the hierarchy of a controller, "" for none.
func (g *Group) dir(controller string) string {
	if dir := g.whole(controller); dir != "" {
		return dir + "/" + payloadLeaf
	}
	return ""
}

// wholeUnified returns the group's folder in the v2 hierarchy, "" for none.
func (g *Group) wholeUnified() string {
	if g.root.unified == "" {
		return ""
	}
	return g.root.unified + "/" + g.folder()
}

// unified returns the payload's folder in the v2 hierarchy, "" for none.
func (g *Group) unified() string {
	if dir := g.wholeUnified(); dir != "" {
		return dir + "/" + payloadLeaf
	}
	return ""
}

// leaf returns the folder in the v2 hierarchy that processes of the payload go to.
func (g *Group) leaf(name string) string {
	dir := g.unified()
	if g.root.nested && exists(dir+"/"+name) {
		return dir + "/" + name
	}
	return dir
}

// delegate makes what the environment's own init writes to. Where v2 limits, that
// is a group below, so that the limits stay out of reach.
func (g *Group) delegate(owner uint32) error {
	if dir := g.dir("name=systemd"); dir != "" {
		// Plain v1: systemd keeps its groups in its named hierarchy.
		if err := own(dir, owner, "cgroup.procs", "tasks"); err != nil {
			return err
		}
	}
	dir := g.unified()
	if dir == "" {
		return nil
	}
	// Not there before 4.14; a bound that cannot be set is no reason to fail.
	_ = put(dir, "cgroup.max.descendants", strconv.Itoa(maxDescendants))
	_ = put(dir, "cgroup.max.depth", strconv.Itoa(maxDepth))
	if g.root.nested {
		if err := g.root.part(dir, execLeaf, initLeaf); err != nil {
			return err
		}
		dir += "/" + initLeaf
	}
	return own(dir, owner, "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
}

// own hands a group to a user as the kernel's rules of delegation have it: the
// folder and the files that place processes, none of those that limit.
// Source: Documentation/admin-guide/cgroup-v2.rst, "Model of Delegation".
func own(dir string, owner uint32, files ...string) error {
	for _, path := range append([]string{""}, files...) {
		if err := unix.Chown(filepath.Join(dir, path), int(owner), int(owner)); err != nil {
			return explain(err, "hand over control group %s", filepath.Join(dir, path))
		}
	}
	return nil
}

// ExecFiles returns the files that a process with a single thread writes "0" to in
// order to enter the group after its main program. In a process with several threads
// the v2 file among them would move all of it: use ThreadFiles and OpenExec there.
func (g *Group) ExecFiles() []string {
	files := g.ThreadFiles()
	if g.unified() != "" {
		files = append(files, g.leaf(execLeaf)+"/cgroup.procs")
	}
	return files
}

// ThreadFiles returns the v1 files that a single thread of any process writes
// "0" to; what it starts then is in the group as far as v1 goes. The thread must be
// thrown away. On v2 there are none.
func (g *Group) ThreadFiles() []string { return g.tasks(payloadLeaf) }

func (g *Group) tasks(leaf string) []string {
	var files []string
	for _, dir := range g.root.dirs {
		if dir != g.root.unified {
			files = append(files, dir+"/"+g.folder()+"/"+leaf+"/tasks")
		}
	}
	if dir := g.pinned(); dir != "" {
		files = append(files, dir+"/tasks")
	}
	return files
}

// OpenUnified opens the group's folder of the v2 hierarchy, where main programs
// go, for clone3's CLONE_INTO_CGROUP (SysProcAttr.CgroupFD). Kinds: Unable where
// there is no v2 hierarchy, Missing.
func (g *Group) OpenUnified() (*os.File, error) { return g.open(g.leaf(initLeaf)) }

// OpenKeeper is OpenUnified for the keeper.
func (g *Group) OpenKeeper() (*os.File, error) { return g.open(g.wholeUnified() + "/" + keeperLeaf) }

func (g *Group) open(dir string) (*os.File, error) {
	if g.root.unified == "" {
		return nil, fault.Unablef("this host has no cgroup v2 hierarchy")
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fault.Missingf("the control group %s is gone", dir)
	}
	if err != nil {
		return nil, explain(err, "open control group %s", dir)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Set changes the limits while processes run; what is not in l is unlimited
// from then on. If Set fails, the limits are what they were. Kinds: Invalid, Unable,
// Busy where the group holds more than the new limit and cannot give it back.
func (g *Group) Set(l Limits) error {
	if err := l.Check(); err != nil {
		return err
	}
	c := &change{Group: g}
	if err := c.apply(l); err != nil {
		return fault.Join(err, c.undo())
	}
	return nil
}

// change is the setting of a group's limits, under way.
type change struct {
	*Group
	fresh bool      // the group is new: it has no limits, and is removed if it cannot have them
	over  []written // in the order that it was
}

// written is what a control file held before it was written.
type written struct {
	dir, file, before string
}

// put writes a value that stands for all that the file holds.
func (c *change) put(dir, file, value string) error {
	if c.fresh {
		return put(dir, file, value)
	}
	before, err := get(dir, file)
	if err != nil {
		return err
	}
	return c.putOver(dir, file, value, before)
}

// putOver is put where before, written again, is what takes value back.
func (c *change) putOver(dir, file, value, before string) error {
	if err := put(dir, file, value); err != nil {
		return err
	}
	c.over = append(c.over, written{dir, file, before})
	return nil
}

func (c *change) write(dir string, all []setting) error {
	for _, s := range all {
		if err := c.put(dir, s.file, s.value); err != nil {
			return err
		}
	}
	return nil
}

// undo takes back what was written, the last first.
func (c *change) undo() error {
	var failed []error
	for _, w := range slices.Backward(c.over) {
		failed = append(failed, explain(put(w.dir, w.file, w.before), "set %s back to %s", w.file, w.before))
	}
	return fault.Join(failed...)
}

func (c *change) apply(l Limits) error {
	v2 := c.root.homes["cpu"] == c.root.unified
	if l.Swap != nil && !c.root.layout.Swap {
		return fault.Unablef("this host does not count swap space, so that it cannot be limited").At("resources.swap").Help("boot with swapaccount=1")
	}
	if !c.fresh || l.Memory > 0 {
		if err := c.setMemory(l); err != nil {
			return err
		}
	}
	all := append(l.cpuSettings(v2, c.fresh), l.pidsSettings(c.fresh)...)
	for _, s := range all {
		if err := c.put(c.dir(s.controller), s.file, s.value); err != nil {
			return refused(err, s.controller, "set %s to %s", s.file, s.value)
		}
	}
	if err := c.setCPUSet(l); err != nil {
		return err
	}
	return c.setIO(l.IO)
}

// refused explains a limit that the kernel does not take.
func refused(err error, field, format string, args ...any) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		err = fault.Invalidf("the kernel does not take it: %w", err).At(field)
		return fault.Wrap(err, format, args...)
	}
	return explain(err, format, args...)
}

func (c *change) setMemory(l Limits) error {
	dir := c.dir("memory")
	if c.root.homes["memory"] == c.root.unified {
		return c.setMemoryV2(dir, l)
	}
	limit, both := count(int64(l.Memory), "-1"), "-1"
	if swap := l.swap(); swap != Unlimited {
		both = strconv.FormatInt(int64(l.Memory)+swap, 10)
	}
	steps := []setting{{"memory", "memory.limit_in_bytes", limit}}
	if c.root.layout.Swap {
		steps = append(steps, setting{"memory", "memory.memsw.limit_in_bytes", both})
	}
	err := c.write(dir, steps)
	if errors.Is(err, unix.EINVAL) && len(steps) == 2 {
		// The kernel keeps memory below memory and swap: growing goes the other way.
		err = c.write(dir, []setting{steps[1], steps[0]})
	}
	if errors.Is(err, unix.EBUSY) {
		return c.tooMuch(l, "memory.usage_in_bytes")
	}
	if err != nil {
		return refused(err, "memory", "limit memory")
	}
	return nil
}

// setMemoryV2 first lets the kernel reclaim down to the new limit: memory.max
// alone would kill what does not fit.
func (c *change) setMemoryV2(dir string, l Limits) error {
	limit := count(int64(l.Memory), "max")
	if !c.fresh && l.Memory > 0 {
		if used, err := number(dir, "memory.current"); err == nil && used > int64(l.Memory) {
			err := put(dir, "memory.high", limit)
			used, _ = number(dir, "memory.current")
			_ = put(dir, "memory.high", "max")
			if err == nil && used > int64(l.Memory) {
				return c.tooMuch(l, "memory.current")
			}
		}
	}
	steps := []setting{{"memory", "memory.max", limit}}
	if c.root.layout.Swap {
		swap := "max"
		if n := l.swap(); n != Unlimited {
			swap = strconv.FormatInt(n, 10)
		}
		steps = append(steps, setting{"memory", "memory.swap.max", swap})
	}
	if l.Memory > 0 && c.fresh {
		// One process's death is the environment's only for PID 1: no oom.group.
		_ = put(dir, "memory.oom.group", "0")
	}
	if err := c.write(dir, steps); err != nil {
		return refused(err, "memory", "limit memory")
	}
	return nil
}

func (g *Group) tooMuch(l Limits, file string) error {
	used, _ := number(g.dir("memory"), file)
	return fault.Busyf("%s of memory are in use, more than the limit of %s", sizeText(used), sizeText(int64(l.Memory))).
		At("memory").Help("choose a limit above what is in use, or stop programs first")
}
