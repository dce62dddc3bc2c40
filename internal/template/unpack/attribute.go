package unpack

import (
	"archive/tar"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Attributes. Source: Documentation/filesystems/overlayfs.rst; PAX records of
// GNU tar and libarchive.
const (
	opaqueAttribute = "trusted.overlay.opaque"
	AttributeRecord = "SCHILY.xattr." // before an attribute's name
	aclAttribute    = "system.posix_acl_"
)

// attributes sets owner, mode, extended attributes and times, in the order in
// which none undoes another: chown clears setuid and capabilities.
func (u *unpacker) attributes(p place, h *tar.Header) error {
	if err := unix.Fchownat(p.dir, p.name, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeSymlink {
		// The node was made just now and is no link, so this follows none.
		if err := unix.Fchmodat(p.dir, p.name, uint32(h.Mode&0o7777), 0); err != nil {
			return err
		}
	}
	if err := u.extended(p, h); err != nil {
		return err
	}
	sec, nsec := h.ModTime.Unix(), int64(h.ModTime.Nanosecond())
	if sec < 0 || sec > maxTime {
		sec, nsec = min(max(sec, 0), maxTime), 0
	}
	if h.Typeflag == tar.TypeDir {
		return u.folderTime(p.full(), sec, nsec)
	}
	return setTime(p.dir, p.name, sec, nsec)
}

// setTime sets both times of name in dir, or of dir itself where name is empty.
func setTime(dir int, name string, sec, nsec int64) error {
	t := unix.Timespec{Sec: sec, Nsec: nsec}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		name = "."
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, flags)
}

// extended sets the extended attributes that are kept.
func (u *unpacker) extended(p place, h *tar.Header) error {
	count := 0
	for record, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(record, AttributeRecord)
		if !ok {
			continue
		}
		if count++; count > MaxAttributes || len(value) > MaxAttribute || len(attr) > MaxName {
			return fault.Invalidf("its extended attributes are more than what is accepted: %d of %s", MaxAttributes, unit.Size(MaxAttribute))
		}
		if !Keeps(attr, h.Typeflag) {
			u.stats.Dropped++
			continue
		}
		if err := u.setAttribute(p, attr, value); err != nil {
			return err
		}
	}
	return nil
}

// Keeps tells which attributes mean the same on another host and are no
// word to overlayfs. The kernel takes user.* on files and folders only.
func Keeps(attr string, typeflag byte) bool {
	switch {
	case typeflag != tar.TypeReg && typeflag != tar.TypeDir:
		return false
	case strings.HasPrefix(attr, "user.overlay."):
		return false
	case attr == "security.capability":
		return typeflag == tar.TypeReg
	case attr == aclAttribute+"access":
		return true
	case attr == aclAttribute+"default":
		return typeflag == tar.TypeDir
	}
	return strings.HasPrefix(attr, "user.") && len(attr) > len("user.")
}

func (u *unpacker) setAttribute(p place, attr, value string) error {
	// An unreadable file opens too: this is root.
	fd, err := unix.Openat(p.dir, p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Fsetxattr(fd, attr, []byte(value), 0)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && strings.HasPrefix(attr, aclAttribute): // mounted without ACLs
		u.stats.Dropped++
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return fault.Invalidf("its attribute %s has a value that the kernel refuses", shorten(attr))
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.E2BIG):
		return fault.Unablef("its extended attributes are more than the host's file system holds")
	}
	return err
}
