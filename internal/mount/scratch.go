package mount

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayByName attaches the trees for the moment in a mount namespace of the
// calling thread's own, which dies with the thread: kernels before 6.13 take
// overlay layers by name only, and only from the caller's namespace.
func overlayByName(s OverlaySpec) (*Tree, error) {
	if err := setFileID(s.Map.Base); err != nil { // as overlayAsRoot says
		return nil, fmt.Errorf("act as the root of range %d: %w", s.Map.Base, err)
	}
	scratch, err := enterScratch()
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	place := func(tree *Tree, name string) error {
		if err := unix.Mkdir(name, 0o755); err != nil {
			return err
		}
		return tree.Attach(name)
	}
	lowers := make([]string, len(s.Lowers))
	for i, lower := range s.Lowers {
		name := strconv.Itoa(i)
		if err := place(lower, name); err != nil {
			return nil, fmt.Errorf("place layer %d: %w", i, err)
		}
		lowers[len(lowers)-1-i] = name
	}
	// One page of options is all that mount(2) takes, and fsconfig(2) takes 256
	// bytes a value on these kernels; MaxLowers names of 3 digits fit the page.
	data := "lowerdir=" + strings.Join(lowers, ":")
	if s.Disk != nil {
		if err := place(s.Disk, "disk"); err != nil {
			return nil, fmt.Errorf("place the private disk: %w", err)
		}
		upper, work, err := s.openDisk() // real folders, not links
		if err != nil {
			return nil, err
		}
		upper.Close()
		work.Close()
		data += ",upperdir=disk/" + Upper + ",workdir=disk/" + Work
	}
	for _, o := range s.options() {
		data += "," + o.Key + "=" + o.Value
	}
	return s.mountByName(data)
}

// mountByName mounts the overlay over the working folder's "root" and takes it off again.
func (s OverlaySpec) mountByName(data string) (*Tree, error) {
	if err := unix.Mkdir("root", 0o755); err != nil {
		return nil, err
	}
	flags := uintptr(unix.MS_NODEV)
	if s.ReadOnly || s.Disk == nil {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("strata", "root", "overlay", flags, data); err != nil {
		return nil, fmt.Errorf("mount overlay of %d layers: %w", len(s.Lowers), os.NewSyscallError("mount", err))
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, "root", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clone the overlay: %w", err)
	}
	return checkWritable(s, NewTree(fd, "root"), nil)
}
