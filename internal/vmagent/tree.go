package vmagent

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Places in the file system that the system started with. Nobody inside sees them.
const (
	templatePlace = "/strata/template"
	diskPlace     = "/strata/disk"
	groupPlace    = "/strata/cgroup"
	partPlace     = "/strata/part"
)

// The folders of a private disk, and the options of every overlay, as package
// mount has them for zones: the same disk is used at every depth.
const (
	upperFolder = "upper"
	workFolder  = "work"
)

var overlayOptions = []string{"redirect_dir=on", "metacopy=off", "index=off", "xino=auto"}

// The options of the private disk's file system, as package disk has them, and none of
// the work in the background that ext4 begins with: tables of inodes are zeros already,
// and a large disk's bitmaps need not be read before they are needed.
const diskOptions = "errors=remount-ro,discard,noinit_itable,no_prefetch_block_bitmaps"

// tree mounts template and disk and puts the root together. It returns the root as
// a mount that is attached nowhere, and keeps a descriptor of the disk.
func (a *agent) tree(r *spec.Run) (int, error) {
	template, err := a.block(r.Template, templateSerial)
	if err != nil {
		return -1, err
	}
	disk, err := a.block(r.Disk, diskSerial)
	if err != nil {
		return -1, err
	}
	if err := unix.Mount("/dev/"+template, templatePlace, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return -1, a.blame(root.In(root.Wrap(err, "mount the template"), "template"))
	}
	if err := unix.Mount("/dev/"+disk, diskPlace, "ext4", unix.MS_NODEV, diskOptions); err != nil {
		return -1, a.blame(root.In(root.Wrap(err, "mount the private disk"), "disk"))
	}
	if a.disk, err = unix.Open(diskPlace, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, root.Wrap(err, "open the private disk")
	}
	if err := a.folders(); err != nil {
		return -1, root.In(err, "disk")
	}
	return a.overlay(r.System)
}

// folders makes sure that the disk, which may be hostile, has real folders where the
// overlay goes, and gives the upper one the template's owner and mode at its first use.
func (a *agent) folders() error {
	const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
	fds := [2]int{-1, -1}
	for i, name := range []string{upperFolder, workFolder} {
		// A disk that was made a moment ago has none yet.
		if err := unix.Mkdirat(a.disk, name, 0o755); err != nil && err != unix.EEXIST {
			return root.Fail(root.Unable, "", "the private disk takes no folder "+name+": "+root.Words(err))
		}
		fd, err := unix.Openat2(a.disk, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
		if err != nil {
			return root.Fail(root.Unable, "", "the private disk has no folder "+name+" that can be used: "+root.Words(err))
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	var st unix.Stat_t
	// The kernel makes a folder "work" in the work folder, and keeps it.
	if unix.Fstatat(fds[1], "work", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	return root.Wrap(alike(fds[0]), "give the disk the root folder's owner")
}

// alike gives a folder the template's owner and mode, which it has most often: a change that
// changes nothing is a transaction of the file system's all the same.
func alike(fd int) error {
	var want, have unix.Stat_t
	if err := errors.Join(unix.Stat(templatePlace, &want), unix.Fstat(fd, &have)); err != nil {
		return err
	}
	if have.Uid != want.Uid || have.Gid != want.Gid {
		if err := unix.Fchown(fd, int(want.Uid), int(want.Gid)); err != nil {
			return err
		}
	} else if have.Mode == want.Mode {
		return nil
	}
	return unix.Fchmod(fd, want.Mode&0o7777)
}

func (a *agent) overlay(system bool) (int, error) {
	attr := unix.MOUNT_ATTR_NODEV
	if system {
		attr = 0 // it may make device nodes: the kernel below is its own
	}
	options := append([]string{"lowerdir=" + templatePlace, "upperdir=" + diskPlace + "/" + upperFolder, "workdir=" + diskPlace + "/" + workFolder}, overlayOptions...)
	fd, err := root.TreeOf("overlay", "strata", attr, options...)
	if err != nil {
		return -1, a.blame(root.Wrap(err, "mount the overlay"))
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return -1, err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return -1, root.Fail(root.Unable, "disk", "the kernel made the overlay read-only: the private disk is damaged or full")
	}
	return fd, nil
}

// volume returns the mount of a volume, attached nowhere, and whether it is a folder.
func (a *agent) volume(v spec.Volume) (fd int, dir bool, err error) {
	attr := unix.MOUNT_ATTR_NODEV
	if v.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID
	}
	fd, err = root.TreeOf("virtiofs", v.Tag, attr)
	if err != nil {
		return -1, false, a.blame(root.In(root.Wrap(err, "mount the volume for "+v.Target), "volumes"))
	}
	if v.File != "" {
		whole := fd
		fd, err = part(whole, v.File)
		unix.Close(whole)
		if err != nil {
			return -1, false, root.In(root.Wrap(err, "show "+v.File+" of a volume"), "volumes")
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, false, root.In(root.Wrap(err, "look at the volume for "+v.Target), "volumes")
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// part returns a mount of one file of a mount that is attached nowhere. Kernels
// before 6.15 clone only what is attached, so it is for a moment.
func part(whole int, name string) (int, error) {
	const place = "/strata/part"
	for _, dir := range []string{"/strata", place} {
		if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	if err := unix.MoveMount(whole, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, place+"/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	_ = unix.Unmount(place, unix.MNT_DETACH) // what cannot be taken away is nobody's to see
	return fd, err
}
