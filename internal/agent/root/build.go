package root

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// Attributes of mounts that hold no programs of the template.
const (
	plain  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	locked = plain | unix.MOUNT_ATTR_RDONLY
)

// house is the root under construction. Its descriptors are of places in the
// new root and stay good whatever links the template holds.
type house struct {
	*spec.Init
	proc, sys, dev int
	source         int // a tmpfs with strata's own files, covered by another; -1: there are none
	empty          int // a tmpfs that nothing can be written to, once it is in use
}

// Build puts the whole root of a zone together and moves into it. The process's
// own mount namespace is the zone's, and all other descriptors from
// wire.PayloadSyncFD+1 on are closed.
func Build(s *spec.Init) error { return build(s, (*house).pivot) }

// Cover does the same over the root of a system that has no other mount namespace:
// what was there stays, out of reach of every process whose root is the new one. The
// new root is that of the whole calling process. s.Root and the descriptors of
// volumes are closed, all others stay.
func Cover(s *spec.Init) error { return build(s, (*house).change) }

func build(s *spec.Init, enter func(*house) error) error {
	h := newHouse(s)
	if err := h.attach(); err != nil {
		return err
	}
	if slices.ContainsFunc(s.Files, func(f spec.File) bool { return f.Bind }) {
		if err := h.sources(); err != nil {
			return err
		}
	}
	if err := h.own(); err != nil {
		return err
	}
	return h.rest(enter)
}

// own is what an inside has of strata's own.
func (h *house) own() error {
	return steps([]step{
		{"make /dev", h.devices}, {"make /proc", h.kernel}, {"show cgroups", h.cgroups}, {"hide parts of /proc", h.masks},
	})
}

// rest is what it has of the environment's.
func (h *house) rest(enter func(*house) error) error {
	return steps([]step{
		{"mount tmpfs", h.memory}, {"attach volumes", h.volumes}, {"show files", h.show}, {"write files", h.write},
		{"enter the root", func() error { return enter(h) }},
	})
}

// Part is what an inside has of strata's own, built before anybody knows its root.
type Part struct{ h *house }

// Prepare builds the part of s that depends on no environment: devices, proc, sys
// with its cgroups, and masks. It stays below the folder place until it is used.
func Prepare(s *spec.Init, place string) (*Part, error) {
	h := newHouse(s)
	var err error
	if h.Root, err = unix.Open(place, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, Wrap(err, "open "+place)
	}
	defer unix.Close(h.Root)
	if err := h.sources(); err != nil {
		return nil, err
	}
	return &Part{h}, h.own()
}

// Cover is as the function of that name, and moves the part into the new root. Of s it takes all
// that Prepare did not need.
func (p *Part) Cover(s *spec.Init) error {
	h := p.h
	h.Init = s
	if err := h.attach(); err != nil {
		return err
	}
	for _, m := range []struct {
		path  string
		mount int
	}{{"/dev", h.dev}, {"/proc", h.proc}, {"/sys", h.sys}} {
		if err := AttachIn(m.mount, h.Root, m.path, true); err != nil {
			return err
		}
	}
	return h.rest((*house).change)
}

func newHouse(s *spec.Init) *house {
	return &house{Init: s, proc: -1, sys: -1, dev: -1, source: -1, empty: -1}
}

// attach puts the new root over the old one, which every host has; all goes by
// descriptors from here.
func (h *house) attach() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return Wrap(err, "make mounts private")
	}
	return Wrap(unix.MoveMount(h.Root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH), "attach the root")
}

type step struct {
	doing string
	do    func() error
}

func steps(all []step) error {
	for _, s := range all {
		if err := s.do(); err != nil {
			return Wrap(err, s.doing)
		}
	}
	return nil
}

// system makes a mount of a kind that strata owns and returns its descriptor.
func (h *house) system(path, kind string, attr int, options ...string) (int, error) {
	fd, err := Tree(kind, attr, options...)
	if err != nil {
		return -1, err
	}
	return fd, AttachIn(fd, h.Root, path, true)
}

// kernel mounts proc and sys while the host's own can still be seen, which the
// kernel asks for, and writes the settings before they are protected.
func (h *house) kernel() (err error) {
	if h.proc, err = h.system("/proc", "proc", plain); err != nil {
		return err
	}
	for _, s := range h.Sysctls {
		fd, err := OpenIn(h.proc, "sys/"+s.Path, unix.O_WRONLY, NoLinks)
		if err == unix.ENOENT || err == unix.EACCES {
			continue // this kernel has no such setting, or not for a zone
		}
		if err == nil {
			_, err = unix.Write(fd, []byte(s.Value))
			unix.Close(fd)
		}
		if err != nil {
			return Wrap(err, "set "+s.Path)
		}
	}
	attr := locked
	if h.Whole {
		attr = plain
	}
	h.sys, err = h.system("/sys", "sysfs", attr)
	return err
}

// devices makes /dev: the host's few harmless nodes, and what is the zone's own.
func (h *house) devices() error {
	nodes := make([]int, len(h.Devices))
	for i, name := range h.Devices { // from the host's tree: the working folder is still there
		fd, err := Clone(unix.AT_FDCWD, "/dev/"+name, false)
		if err != nil {
			return Wrap(err, "find the host's /dev/"+name)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			return Fail(Internal, "", "the host's /dev/"+name+" is not a character device")
		}
		nodes[i] = fd
	}
	var err error
	kind, options := "tmpfs", []string{"mode=755", "size=65536k", "nr_inodes=4096"}
	if h.Whole {
		kind, options = "devtmpfs", nil
	}
	if h.dev, err = h.system("/dev", kind, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...); err != nil {
		return err
	}
	for i, name := range h.Devices {
		if err := AttachIn(nodes[i], h.dev, name, false); err != nil {
			return err
		}
		unix.Close(nodes[i])
	}
	if h.source >= 0 {
		if err := AttachIn(h.source, h.dev, "shm", true); err != nil {
			return err
		}
	}
	for _, m := range []struct {
		path, kind string
		attr       int
		options    []string
	}{
		{"pts", "devpts", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, []string{"newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{"shm", "tmpfs", plain, []string{"mode=1777", "size=65536k"}},
		{"mqueue", "mqueue", plain, nil},
	} {
		fd, err := Tree(m.kind, m.attr, m.options...)
		if err != nil {
			return err
		}
		if err := AttachIn(fd, h.dev, m.path, true); err != nil {
			return err
		}
		unix.Close(fd)
	}
	for _, link := range h.Links {
		if err := unix.Symlinkat(link[1], h.dev, link[0]); err != nil && !(h.Whole && err == unix.EEXIST) {
			return Wrap(err, "link /dev/"+link[0])
		}
	}
	return nil
}

// cgroups shows the zone's own groups, which its cgroup namespace makes the roots.
func (h *house) cgroups() error {
	const place = "fs/cgroup"
	base, single := h.sys, len(h.Cgroups) == 1 && h.Cgroups[0].Name == ""
	if !single && len(h.Cgroups) > 0 {
		fd, err := Tree("tmpfs", plain, "mode=755", "size=64k")
		if err != nil {
			return err
		}
		if err := AttachIn(fd, h.sys, place, true); err != nil {
			return err
		}
		base = fd
	}
	for _, c := range h.Cgroups {
		kind, options := "cgroup", strings.Split(c.Options, ",")
		if c.V2 {
			kind, options = "cgroup2", nil
		}
		attr := locked
		if c.Writable {
			attr = plain
		}
		fd, err := Tree(kind, attr, options...)
		if err != nil {
			return err
		}
		path := c.Name
		if single {
			path = place
		}
		if err := AttachIn(fd, base, path, true); err != nil {
			return err
		}
		unix.Close(fd)
	}
	if base != h.sys {
		defer unix.Close(base)
		return Protect(base)
	}
	return nil
}

// below returns the mounted file system that path is in, and the rest of path.
func (h *house) below(path string) (int, string) {
	if rest, ok := strings.CutPrefix(path, "/proc/"); ok {
		return h.proc, rest
	}
	rest, _ := strings.CutPrefix(path, "/sys/")
	return h.sys, rest
}

// masks hides what the kernel does not know to be the host's, and protects the
// rest. What does not exist needs neither.
func (h *house) masks() error {
	for _, path := range h.Mask {
		base, rest := h.below(path)
		place, err := OpenIn(base, rest, unix.O_PATH, NoLinks)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = h.hide(place)
			unix.Close(place)
		}
		if err != nil {
			return Wrap(err, path)
		}
	}
	for i, path := range append(h.Protect[:len(h.Protect):len(h.Protect)], h.Open...) {
		base, rest := h.below(path)
		place, err := OpenIn(base, rest, unix.O_PATH, NoLinks)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = h.Again(place, i < len(h.Protect))
			unix.Close(place)
		}
		if err != nil {
			return Wrap(err, path)
		}
	}
	return nil
}

// hide covers a place with nothing: a folder with an empty one, a file with /dev/null.
func (h *house) hide(place int) error {
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		null, err := Clone(h.dev, "null", false)
		if err != nil {
			return err
		}
		defer unix.Close(null)
		return Attach(null, place)
	}
	if h.empty < 0 {
		var err error
		if h.empty, err = Tree("tmpfs", locked, "mode=555", "size=4k", "nr_inodes=2"); err != nil {
			return err
		}
		return Attach(h.empty, place)
	}
	fd, err := Clone(h.empty, "", false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return Attach(fd, place)
}

// again mounts a place over itself, so that it is writable or not on its own.
func (h *house) Again(place int, readOnly bool) error {
	fd, err := Clone(place, "", true)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if !readOnly {
		attr = unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return err
	}
	return Attach(fd, place)
}

func (h *house) memory() error {
	for _, t := range h.Tmpfs {
		attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
		if t.NoExec {
			attr |= unix.MOUNT_ATTR_NOEXEC
		}
		fd, err := Tree("tmpfs", attr, "mode="+strconv.FormatUint(uint64(t.Mode), 8), "size="+strconv.FormatInt(t.Size, 10))
		if err != nil {
			return Wrap(err, t.Target)
		}
		err = h.named("tmpfs", fd, t.Target, true)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *house) volumes() error {
	for _, v := range h.Volumes {
		err := h.named("volumes", v.FD, v.Target, v.Dir)
		unix.Close(v.FD)
		if err != nil {
			return err
		}
	}
	return nil
}

// named puts the mount at a path that the user names in field. What the template has
// there may not fit, which is the user's to mend.
func (h *house) named(field string, mount int, path string, dir bool) error {
	place, err := Target(h.Root, path, dir, InRoot)
	switch err {
	case nil:
	case unix.ENOTDIR, unix.ELOOP, unix.EEXIST, unix.EROFS, unix.ENAMETOOLONG:
		return Fail(Invalid, field, path+" cannot be made inside: "+Words(err))
	default:
		return In(Wrap(err, "make "+path), field)
	}
	defer unix.Close(place)
	switch is := folder(place); {
	case is && !dir:
		return Fail(Invalid, field, path+" is a folder inside, and what is to be mounted there is a file")
	case !is && dir:
		return Fail(Invalid, field, path+" is a file inside, and what is to be mounted there is a folder")
	}
	return In(Wrap(Attach(mount, place), "mount at "+path), field)
}

// pivot leaves the host's tree for good.
func (h *house) pivot() error {
	if err := h.finish(); err != nil {
		return err
	}
	// New and old root in one place: the old one ends up on top, and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return Wrap(err, "change the root")
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return Wrap(err, "leave the host's tree")
	}
	// Whatever else was handed over, or opened on the way, is of no use any more.
	if err := unix.CloseRange(wire.PayloadSyncFD+1, 1<<31-1, 0); err != nil {
		return Wrap(err, "close files")
	}
	return unix.Chdir("/")
}

// change makes the new root, which covers the old one, that of the process: what
// a kernel starts with can neither be moved nor unmounted.
func (h *house) change() error {
	if err := h.finish(); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return Wrap(err, "change the root")
	}
	for _, fd := range []int{h.Root, h.proc, h.sys, h.dev, h.source, h.empty} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return unix.Chdir("/")
}

// finish makes the root what it stays, and enters it.
func (h *house) finish() error {
	if h.ReadOnly {
		if err := Protect(h.Root); err != nil {
			return Wrap(err, "make the root read-only")
		}
	}
	return unix.Fchdir(h.Root)
}
