package resource

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// patience bounds each wait of this package, besides the context.
const patience = 10 * time.Second

// tick is how often v1 is asked again, where the kernel tells of no event.
const tick = 2 * time.Millisecond

// maxGroups bounds a walk through groups that an environment made.
const maxGroups = 2 * maxDescendants

// Freeze stops every process of the group and returns when all stand still.
// Kinds: Busy where they do not in time; the group is thawed again then.
func (g *Group) Freeze(ctx context.Context) error {
	err := g.freeze(ctx, true)
	if err != nil {
		_ = g.freeze(context.WithoutCancel(ctx), false)
	}
	return fault.Wrap(err, "freeze %s", g.id)
}

// Thaw lets the processes go on. Kinds: Busy.
func (g *Group) Thaw(ctx context.Context) error {
	return fault.Wrap(g.freeze(ctx, false), "thaw %s", g.id)
}

func (g *Group) freeze(ctx context.Context, on bool) error {
	if dir := g.dir("freezer"); dir != "" {
		return g.freezeV1(ctx, dir, on)
	}
	value := "0"
	if on {
		value = "1"
	}
	dir := g.unified()
	if err := put(dir, "cgroup.freeze", value); err != nil {
		return explain(err, "write")
	}
	return await(ctx, dir, "frozen "+value)
}

func (g *Group) freezeV1(ctx context.Context, dir string, on bool) error {
	want := "THAWED"
	if on {
		want = "FROZEN"
	}
	return poll(ctx, func() (bool, error) {
		// Writing again picks up processes born meanwhile.
		if err := put(dir, "freezer.state", want); err != nil {
			return false, explain(err, "write")
		}
		state, err := get(dir, "freezer.state")
		return state == want, err
	})
}

// Frozen tells whether the group is frozen or on its way there.
func (g *Group) Frozen() (bool, error) {
	dir, file, not := g.dir("freezer"), "freezer.state", "THAWED"
	if dir == "" {
		dir, file, not = g.unified(), "cgroup.freeze", "0"
	}
	state, err := get(dir, file)
	return err == nil && state != not, explain(err, "read the state of %s", g.id)
}

// Kill sends SIGKILL to every process of the group and of those below. They may
// take a moment to be gone: Remove waits for that. A group that is gone is no error.
// Kinds: Busy where new processes come faster than they are killed.
func (g *Group) Kill(ctx context.Context) error {
	if dir := g.unified(); dir != "" {
		err := put(dir, "cgroup.kill", "1")
		switch {
		case err == nil, !exists(dir):
			return nil
		case !errors.Is(err, unix.ENOENT):
			return explain(err, "kill the processes of %s", g.id)
		}
	}
	return g.killEach(ctx)
}

// killEach freezes so that nobody forks away and no number is taken by another
// process between reading and killing, kills all, and thaws so that they die.
func (g *Group) killEach(ctx context.Context) error {
	for range 20 {
		_ = g.freeze(ctx, true)
		pids, err := g.Processes()
		for _, pid := range pids {
			if e := unix.Kill(pid, unix.SIGKILL); e != nil && !errors.Is(e, unix.ESRCH) {
				err = errors.Join(err, e)
			}
		}
		_ = g.freeze(context.WithoutCancel(ctx), false)
		if err != nil {
			return explain(err, "kill the processes of %s", g.id)
		}
		if len(pids) == 0 {
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		gone := poll(short, func() (bool, error) {
			left, err := g.Processes()
			return len(left) == 0, err
		})
		cancel()
		if gone == nil {
			return nil
		}
	}
	return fault.Busyf("the processes of %s do not die", g.id)
}

// Processes returns the host's process ids of the group and of those below,
// sorted. A group that is gone has none.
func (g *Group) Processes() ([]int, error) {
	top := g.unified()
	if top == "" {
		top = g.dir("pids")
	}
	found := map[int]bool{}
	err := walk(top, func(dir string) error {
		text, err := get(dir, "cgroup.procs")
		if err != nil && !noProcesses(err) {
			return err
		}
		for _, word := range strings.Fields(text) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				found[pid] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, explain(err, "list the processes of %s", g.id)
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// noProcesses tells whether err means that a group lists none: it is gone, or threaded,
// so that the group above lists its processes.
func noProcesses(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV)
}

// walk visits dir and every group below it, parents first.
func walk(dir string, visit func(string) error) error {
	queue := []string{dir}
	for n := 0; n < len(queue); n++ {
		if n > maxGroups {
			return fault.Busyf("there are more than %d groups below %s", maxGroups, dir)
		}
		if err := visit(queue[n]); err != nil {
			return err
		}
		below, err := children(queue[n])
		if err != nil {
			return err
		}
		queue = append(queue, below...)
	}
	return nil
}

// children returns the groups right below dir, none where dir is gone. A group
// without any, which is the common case, is told by its link count and not read.
func children(dir string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); errors.Is(err, unix.ENOENT) || err == nil && st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, dir+"/"+e.Name())
		}
	}
	return out, nil
}

// Remove removes the group and those below it, as soon as the payload's processes are
// gone: it waits for that, at most 10 seconds. It kills nothing. A keeper that has output
// to hand over still goes on in a group for such. A group that is gone is no error.
// Kinds: Busy where a process stays.
func (g *Group) Remove(ctx context.Context) error {
	for _, dir := range g.root.dirs {
		if err := g.root.removeTree(ctx, dir+"/"+g.folder()+"/"+payloadLeaf); err != nil {
			return fault.Wrap(err, "remove control group %s", g.id)
		}
	}
	if err := g.partKeeper(ctx); err != nil {
		return fault.Wrap(err, "remove control group %s", g.id)
	}
	all := make([]string, 0, 2*len(g.root.dirs)+1)
	for _, dir := range g.root.dirs {
		dir += "/" + g.folder()
		all = append(all, dir+"/"+keeperLeaf, dir)
	}
	if dir := g.pinned(); dir != "" {
		all = append(all, dir)
	}
	for _, dir := range all {
		if err := g.root.removeTree(ctx, dir); err != nil {
			return fault.Wrap(err, "remove control group %s", g.id)
		}
	}
	return nil
}

// keeperEnds is how long a keeper has to end after its payload before it is told from
// one that stays.
const keeperEnds = 20 * time.Millisecond

// partKeeper moves a keeper that stays to the group of those whose environment is over.
func (g *Group) partKeeper(ctx context.Context) error {
	dir := g.wholeUnified()
	if dir == "" {
		dir = g.whole("pids")
	}
	dir += "/" + keeperLeaf
	var stay []string
	own := strconv.Itoa(os.Getpid()) // on v1, by a thread that has started something (Run) and ends
	short, cancel := context.WithTimeout(ctx, keeperEnds)
	defer cancel()
	err := pollEvents(short, dir, func() (bool, error) {
		text, err := get(dir, "cgroup.procs")
		if err != nil && !noProcesses(err) {
			return false, explain(err, "list the processes of %s", dir)
		}
		stay = slices.DeleteFunc(strings.Fields(text), func(pid string) bool { return pid == own })
		return len(stay) == 0, nil
	})
	if err == nil || !fault.Is(err, fault.Busy) {
		return err
	}
	to := slices.Clone(g.root.dirs)
	for i, home := range to {
		to[i] = home + "/" + lateGroup
		if err := g.root.tree.mkdir(to[i]); err != nil && !errors.Is(err, unix.EEXIST) {
			return explain(err, "make control group %s", to[i])
		}
	}
	if g.pinned() != "" {
		to = append(to, g.root.cpuset)
	}
	for _, pid := range stay {
		for _, dir := range to {
			if err := put(dir, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return explain(err, "move keeper %s to %s", pid, dir)
			}
		}
	}
	return nil
}

// removeTree removes a folder and the groups below it.
func (r *Root) removeTree(ctx context.Context, top string) error {
	err := pollEvents(ctx, top, func() (bool, error) {
		err := r.tree.rmdir(top)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return true, nil
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
			return false, explain(err, "remove %s", top)
		}
		var all []string
		if err := walk(top, func(dir string) error { all = append(all, dir); return nil }); err != nil {
			return false, err
		}
		for _, dir := range slices.Backward(all) {
			err = r.tree.rmdir(dir)
		}
		return err == nil || errors.Is(err, unix.ENOENT), nil
	})
	if fault.Is(err, fault.Busy) {
		return fault.Wrap(err, "processes are still in %s", top)
	}
	return err
}
