package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Bind returns a tree of a host folder or file for use as a volume: owners are
// the same numbers inside as on the host, users being the user namespace of the
// environment's range. Ids above the range show as nobody and own nothing. With
// users nil every id is the host's own: for a server of files that is root there.
// What is mounted below source comes along. Links in source are followed, as
// the caller names a place of the host; links of /proc are not.
//
// Root inside writes as root of the host there: that is what a volume with the
// same owners means. Devices are never honoured.
//
// Kinds: Invalid (no absolute path, a link that is not followed), Missing, Unable (a file system below
// source cannot be idmapped; it is named).
func Bind(ctx context.Context, source string, users *os.File, readOnly bool) (*Tree, error) {
	if !filepath.IsAbs(source) || strings.ContainsRune(source, 0) {
		return nil, fault.Invalidf("%q is not an absolute path", source).At("volume").Help("write the host folder with a leading slash")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, fault.Missingf("there is no %s on the host: %w", source, err).At("volume").Help("make the folder first")
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, fault.Invalidf("%s leads through a link of /proc or in a circle: %w", source, err).At("volume").Help("name the folder itself")
	}
	if err != nil {
		return nil, fmt.Errorf("open the volume's source %s: %w", source, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("look at the volume's source %s: %w", source, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFBLK || kind == unix.S_IFCHR {
		return nil, fault.Unablef("%s is a device, which a volume cannot be", source).At("volume").Help("name a folder, a file or a socket")
	}
	tree, err := cloneOf(fd, source, true)
	if err != nil {
		return nil, err
	}
	attr := uint64(unix.MOUNT_ATTR_NODEV)
	if readOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if users == nil {
		if err := tree.setattr(unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE}, true); err != nil {
			tree.Close()
			return nil, fmt.Errorf("protect the volume's source %s: %w", source, err)
		}
		return tree, nil // nobody in a user namespace of his own gets it, so there is nothing to lock
	}
	if err := idmap(tree, users, attr, true); err != nil {
		tree.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			return nil, fault.Unablef("%s cannot be a volume: %s: %w", source, unmappable(source), err).At("volume").
				Help("put the data on ext4, xfs, btrfs or (from kernel 6.3 on) tmpfs, or name a folder without foreign mounts below it")
		}
		return nil, fmt.Errorf("idmap the volume's source %s: %w", source, err)
	}
	if err := seal(tree); err != nil {
		tree.Close()
		return nil, fault.Wrap(err, "protect the volume's source %s", source)
	}
	return tree, nil
}

// unmappable names what is likely at fault: the file systems at and below source.
func unmappable(source string) string {
	const words = "a file system in it does not take idmapped mounts"
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return words
	}
	all, err := readMounts()
	if err != nil {
		return words
	}
	at, below := "", []string(nil)
	longest := -1
	for _, m := range all {
		switch {
		case within(real, m.point) && len(m.point) >= longest:
			at, longest = m.fstype, len(m.point)
		case within(m.point, real) && len(below) < 8:
			below = append(below, m.fstype+" at "+m.point)
		}
	}
	if len(below) == 0 {
		return fmt.Sprintf("its file system (%s) does not take idmapped mounts", at)
	}
	return fmt.Sprintf("%s (%s, with %s below it)", words, at, strings.Join(below, ", "))
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}
