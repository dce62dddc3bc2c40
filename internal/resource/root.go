package resource

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// Root is strata's parent group. Make one with Open.
type Root struct {
	name     string
	layout   Layout
	homes    map[string]string // controller -> folder of the root in its hierarchy
	dirs     []string          // the folders in homes, each once; the unified one first
	unified  string            // the root's folder in the unified hierarchy, "" for none
	nested   bool              // the unified hierarchy serves limits
	cpuset   string            // the root's folder of cpuset's v1 hierarchy, there or not; "" for none
	programs deviceGate        // nil: devices through v1
	tree     tree
	mark     string    // behind the names of its groups' folders
	still    bool      // move no process
	without  *sync.Map // accounting controllers that could not be enabled
}

// tree makes and removes groups; a test brings one without a kernel behind it.
type tree struct {
	mkdir func(path string) error
	rmdir func(path string) error
}

var kernelTree = tree{
	mkdir: func(path string) error { return unix.Mkdir(path, 0o755) },
	rmdir: unix.Rmdir,
}

// The groups below an environment's, and others.
const (
	keeperLeaf  = "keeper"
	payloadLeaf = "payload" // what the keeper starts, within the limits
	initLeaf    = "init"    // on v2 below the payload's, where its init makes groups
	execLeaf    = "exec"    // and beside that
	lateGroup   = "late.keepers"
	daemonLeaf  = "-daemon" // behind the root's name
)

var (
	namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)
	idPattern   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`) // a dot begins a mark
)

// Open finds out this host's layout and makes the root with the given name, such
// as "strata", in each hierarchy in use; one that is there is taken over.
// Kinds: Invalid, Unable where a controller or a hierarchy is missing, Denied.
func Open(name string) (*Root, error) { return openHere(name, false) }

// Probe makes a root and a group with limits and removes both again; it moves
// no process, so that on v2 it may fail where Open makes room for itself.
// It returns the layout, as far as it is known where it fails.
func Probe(ctx context.Context, name string) (_ Layout, err error) {
	r, err := openHere(name, true)
	if err != nil {
		l, _ := Detect()
		return l, err
	}
	defer func() { err = fault.Join(err, r.Remove(context.WithoutCancel(ctx))) }()
	_, err = r.Create(ctx, "probe", Limits{Memory: 64 << 20, CPUs: 1000, PIDs: 100}, DefaultDevices(), 0)
	return r.Layout(), err
}

func openHere(name string, still bool) (*Root, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fault.Unablef("read mounts: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fault.Unablef("read own control group: %w", err)
	}
	return open(name, facts{string(mounts), string(own), loadDevicePrograms, kernelTree, still})
}

// facts are what Open finds on the host.
type facts struct {
	mounts   string // /proc/self/mountinfo
	own      string // /proc/self/cgroup
	programs func() (deviceGate, error)
	tree     tree
	still    bool // move no process
}

func open(name string, f facts) (*Root, error) {
	if !namePattern.MatchString(name) {
		return nil, fault.Invalidf("%q is no name for a control group", name)
	}
	h := parseMounts(f.mounts)
	l, err := h.layout()
	if err != nil {
		return nil, err
	}
	if len(l.Missing) > 0 {
		return nil, fault.Unablef("the kernel offers no controller for %s", strings.Join(l.Missing, ", ")).
			Help("boot without cgroup_disable=, and on v2 let the group strata runs in have the controllers")
	}
	r := &Root{name: name, layout: l, homes: map[string]string{}, tree: f.tree, still: f.still, without: new(sync.Map)}
	if h.unified != "" {
		if r.programs, err = f.programs(); err != nil && h.v1["devices"] == "" {
			return nil, fault.Wrap(err, "load a device program")
		}
		base := r.base(h.unified, f.own)
		r.unified = filepath.Join(base, name)
		for c, dir := range l.Controllers {
			if dir == h.unified {
				r.homes[c] = r.unified
				r.nested = true
			}
		}
	}
	for _, c := range r.v1Controllers(h) {
		r.homes[c] = filepath.Join(h.v1[c], name)
		r.layout.Controllers[c] = h.v1[c]
	}
	if top := h.v1[cpuset]; top != "" {
		r.cpuset = filepath.Join(top, name)
	}
	if r.unified != "" {
		r.dirs = []string{r.unified}
	}
	for _, c := range slices.Sorted(maps.Keys(r.homes)) {
		if !slices.Contains(r.dirs, r.homes[c]) {
			r.dirs = append(r.dirs, r.homes[c])
		}
	}
	return r, r.make()
}

// v1Controllers are those that live on v1 here: limits, and whatever the unified
// hierarchy does not do instead.
func (r *Root) v1Controllers(h hierarchies) []string {
	want := append(slices.Clone(limiting), "blkio")
	if r.programs == nil {
		want = append(want, "devices")
	}
	if h.unified == "" {
		want = append(want, "freezer", "cpuacct", "name=systemd")
	} else if r.layout.Version != V2 && !unifiedKills() {
		want = append(want, "freezer")
	}
	return slices.DeleteFunc(want, func(c string) bool { return h.v1[c] == "" })
}

// unifiedKills tells whether the kernel has cgroup.kill (5.14) and cgroup.freeze
// (5.2), which every group but the top one shows.
func unifiedKills() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return a > 5 || a == 5 && b >= 14
}

// make makes the root's folders and hands the controllers down to it.
func (r *Root) make() error {
	if r.nested {
		if err := r.enable(filepath.Dir(r.unified)); err != nil {
			return err
		}
	}
	for _, dir := range r.dirs {
		if err := r.tree.mkdir(dir); err != nil && !errors.Is(err, unix.EEXIST) {
			return explain(err, "make control group %s", dir)
		}
	}
	if r.nested {
		if err := r.enable(r.unified); err != nil {
			return err
		}
	}
	memory := r.homes["memory"]
	if memory == r.unified {
		// The files of a controller are seen in the groups below it.
		r.layout.Swap = exists(memory + "/memory.swap.max")
		return nil
	}
	r.layout.Swap = exists(memory + "/memory.memsw.limit_in_bytes")
	// Kernels before 5.11 count a child's memory apart unless told otherwise; where
	// it is the only way there is, the file cannot be written or says 1 already.
	if v, err := number(memory, "memory.use_hierarchy"); err == nil && v == 0 {
		return explain(put(memory, "memory.use_hierarchy", "1"), "count memory below %s", memory)
	}
	return nil
}

// enable hands the v2 controllers in use down to the children of dir.
func (r *Root) enable(dir string) error {
	have, err := get(dir, "cgroup.subtree_control")
	if err != nil {
		return explain(err, "read the controllers of %s", dir)
	}
	offered, err := get(dir, "cgroup.controllers")
	if err != nil {
		return explain(err, "read the controllers of %s", dir)
	}
	var missing []string
	for c, home := range r.homes {
		switch {
		case home != r.unified || slices.Contains(strings.Fields(have), c):
		case slices.Contains(strings.Fields(offered), c):
			missing = append(missing, "+"+c)
		case slices.Contains(accounting, c):
			r.without.Store(c, true) // its figures will be missing, no more
		default:
			return fault.Unablef("%s has no controller %s to hand down", dir, c).
				Help("give the service Delegate=yes, or run `echo +%s >%s/cgroup.subtree_control` above it", c, filepath.Dir(dir))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// All at once: beside processes the kernel hands down cpu or pids alone, but to
	// threads then, and memory not at all any more.
	slices.Sort(missing)
	all := strings.Join(missing, " ")
	err = put(dir, "cgroup.subtree_control", all)
	if crowded(err) && !r.still {
		// The group has processes: it may not have both. Ours we can move.
		if err = r.moveSelf(dir); err == nil {
			err = put(dir, "cgroup.subtree_control", all)
		}
	}
	if crowded(err) {
		return fault.Unablef("enable the controllers %s for %s: processes that are not strata's live in that group: %w", all, dir, err).
			Help("start stratad as a service with Delegate=yes, or move those processes to a group of their own")
	}
	return explain(err, "enable the controllers %s for %s", all, dir)
}

// crowded tells whether controllers were refused because of processes in the
// group itself: EOPNOTSUPP, where others have made it a domain of threads.
// Source: kernel/cgroup/cgroup.c, cgroup_vet_subtree_control_enable.
func crowded(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EOPNOTSUPP)
}

// moveSelf moves this process to a leaf beside the root.
func (r *Root) moveSelf(dir string) error {
	leaf := filepath.Join(dir, r.name+daemonLeaf)
	if err := r.tree.mkdir(leaf); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return put(leaf, "cgroup.procs", "0")
}

// base returns the group of the unified hierarchy to put the root into: where
// the root is already, else our service's own group where we are in a leaf of
// what was delegated to it (DelegateSubgroup=), else the top. A service that is in
// the delegated group itself cannot share it out: the controllers that the root
// needs would keep the service from being started again beside environments that
// run, as a process may not be put into a group that hands down controllers.
func (r *Root) base(top, own string) string {
	leaf := filepath.Join(top, ownGroup(own))
	service := filepath.Dir(leaf)
	if leaf == top || service == top {
		return top
	}
	for _, dir := range []string{top, service} {
		if list, err := os.ReadDir(filepath.Join(dir, r.name)); err == nil && slices.ContainsFunc(list, os.DirEntry.IsDir) {
			return dir
		}
	}
	if r.layout.Version == V2 && delegated(service) && !delegated(leaf) {
		return service
	}
	return top
}

// delegated tells whether systemd says that the group is ours to divide.
// Source: systemd's CGROUP_DELEGATION.md, "user.delegate" and "trusted.delegate".
func delegated(dir string) bool {
	for _, attr := range []string{"trusted.delegate", "user.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, attr, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// Layout returns what Open found.
func (r *Root) Layout() Layout {
	l := r.layout
	l.Controllers = maps.Clone(l.Controllers)
	r.without.Range(func(c, _ any) bool { delete(l.Controllers, c.(string)); return true })
	return l
}

// Marked returns the same root for groups that are apart from its own and from those of
// other marks: it lists, finds and removes those alone, and two with the same id do not
// meet. To the kernel they all lie side by side. A mark is letters and digits.
func (r *Root) Marked(mark string) *Root {
	other := *r
	other.mark = "." + mark
	return &other
}

// List returns the ids of all groups, half-made ones included, sorted.
func (r *Root) List() ([]string, error) {
	found := map[string]bool{}
	for _, dir := range r.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fault.Wrap(err, "list control groups")
		}
		for _, e := range entries {
			if id, mark, _ := strings.Cut(e.Name(), "."); e.IsDir() && mark == strings.TrimPrefix(r.mark, ".") {
				found[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Remove removes every group in the root, once their processes are gone, and then the
// root, unless groups of another mark are left in it. It kills keepers that outlive
// their environments.
// Kinds: Busy where some are not. Doing it again is no error.
func (r *Root) Remove(ctx context.Context) error {
	ids, err := r.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.group(id).Remove(ctx); err != nil {
			return err
		}
	}
	if err := r.endLate(ctx); err != nil {
		return err
	}
	all := r.dirs
	if r.cpuset != "" {
		all = append(slices.Clone(all), r.cpuset)
	}
	for _, dir := range all {
		if below, err := children(dir); err != nil || len(below) > 0 {
			return fault.Wrap(err, "look what is left in %s", dir)
		}
		if err := r.removeTree(ctx, dir); err != nil {
			return err
		}
	}
	if r.programs != nil {
		r.programs.close()
	}
	return nil
}

// endLate kills the keepers that partKeeper has moved, and removes their group.
func (r *Root) endLate(ctx context.Context) error {
	for _, home := range r.dirs {
		dir := home + "/" + lateGroup
		if !exists(dir) {
			continue
		}
		text, _ := get(dir, "cgroup.procs")
		for _, word := range strings.Fields(text) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := r.removeTree(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

// explain gives an error of a control file its kind and the words to it.
func explain(err error, format string, args ...any) error {
	kind := fault.Internal
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		kind = fault.Denied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY):
		kind = fault.Busy
	}
	return fault.Wrap(fault.New(kind, "%w", err), format, args...)
}
