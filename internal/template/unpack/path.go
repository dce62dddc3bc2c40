package unpack

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// split takes a name of the tar apart into its components.
// Kinds: Invalid for a name that no honest writer makes.
func split(name string) ([]string, error) {
	if len(name) > MaxPath {
		return nil, fault.Invalidf("a name of %d bytes is longer than the %d that are accepted", len(name), MaxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return nil, fault.Invalidf("the name %q has a zero byte", name)
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return nil, fault.Invalidf("the name %q leads outside", name).Help("a layer's names must not have a .. component")
		case len(part) > MaxName:
			return nil, fault.Invalidf("a component of the name %q is longer than %d bytes", name[:64]+"…", MaxName)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// resolve follows the symbolic links in a folder's components beneath the root
// and returns the path that has none. Components that do not exist stay as they are.
func (u *unpacker) resolve(parts []string) (string, error) {
	rest := append([]string(nil), parts...)
	var done []string
	links, missing := 0, false
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			// Below a missing folder nothing is a link, so going up by name is right.
			if len(done) > 0 {
				done = done[:len(done)-1]
			}
			missing = false
			continue
		}
		done = append(done, part)
		if missing {
			continue
		}
		here := path.Join(done...)
		if len(here) > MaxPath {
			return "", fault.Invalidf("the path %.64q… is longer than the %d bytes that are accepted", here, MaxPath)
		}
		target, err := u.readlink(here)
		switch {
		case errors.Is(err, unix.EINVAL): // no link
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR): // the opening will tell
			missing = true
		case err != nil:
			return "", fault.Wrap(err, "read link %q", here)
		default:
			if links++; links > maxLinks {
				return "", fault.Invalidf("the path %q leads through more than %d links", path.Join(parts...), maxLinks)
			}
			done = done[:len(done)-1]
			if strings.HasPrefix(target, "/") {
				done = done[:0]
			}
			rest = append(components(target), rest...)
			if n := len(rest); n > MaxPath/2 {
				return "", fault.Invalidf("the path %.64q… is longer than the %d bytes that are accepted", path.Join(parts...), MaxPath)
			}
		}
	}
	clean := path.Join(done...)
	if len(clean) > MaxPath {
		return "", fault.Invalidf("the path %.64q… is longer than the %d bytes that are accepted", clean, MaxPath)
	}
	if clean == "" {
		clean = "."
	}
	return clean, nil
}

// components splits a link's target; ".." stays.
func components(target string) []string {
	var parts []string
	for part := range strings.SplitSeq(target, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// readlink reads the link at a path whose folders were resolved already.
// EINVAL: it is there and no link.
func (u *unpacker) readlink(clean string) (string, error) {
	if err := u.step(1); err != nil {
		return "", err
	}
	dir, name := path.Split(clean)
	fd := u.root
	if dir != "" {
		var err error
		if fd, err = u.open(path.Clean(dir), unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return "", err
		}
		defer unix.Close(fd)
	}
	buf := make([]byte, MaxTarget+1)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// step counts what paths cost, so that a few deep ones cannot take hours.
func (u *unpacker) step(n int) error {
	if u.steps += int64(n); u.steps > u.limits.Steps {
		return fault.Invalidf("the layer's paths lead into folders more than %d times, which is not accepted", u.limits.Steps)
	}
	return nil
}

// open opens a resolved path. It cannot leave the root whatever the path says.
func (u *unpacker) open(clean string, flags uint64) (int, error) {
	if err := u.step(1 + strings.Count(clean, "/")); err != nil {
		return -1, err
	}
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(u.root, clean, &how)
		// EAGAIN: something was renamed meanwhile anywhere on the host.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// place is where an entry goes: a folder's descriptor, which the unpacker keeps,
// and the name in it.
type place struct {
	dir  int
	path string // of the folder, resolved
	name string
}

// full is the resolved path of the place itself.
func (p place) full() string { return path.Join(p.path, p.name) }

// parent returns the place of an entry, and makes the folders above it that are
// missing where create says so. Kinds: Invalid, Missing where it may not create.
func (u *unpacker) parent(parts []string, create bool) (place, error) {
	dir, name := parts[:len(parts)-1], parts[len(parts)-1]
	key := strings.Join(dir, "/")
	if u.last.fd >= 0 && u.last.key == key {
		return place{u.last.fd, u.last.path, name}, nil
	}
	clean := path.Join(".", key)
	fd, err := u.open(clean, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil { // a link on the way, or something is missing
		if clean, err = u.resolve(dir); err != nil {
			return place{}, err
		}
		fd, err = u.open(clean, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	// ENOTDIR may be a whiteout, which a folder takes the place of.
	if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && create {
		if err = u.imply(clean); err == nil {
			fd, err = u.open(clean, unix.O_RDONLY|unix.O_DIRECTORY)
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return place{}, fault.Missingf("there is no folder %q", key)
	case errors.Is(err, unix.ENOTDIR):
		return place{}, fault.Invalidf("its path leads through a file")
	case err != nil:
		return place{}, fault.Wrap(err, "open folder %q", key)
	}
	u.forget()
	u.last.fd, u.last.key, u.last.path = fd, key, clean
	return place{fd, clean, name}, nil
}

// forget drops the folder that was kept open: its name may mean another one now.
func (u *unpacker) forget() {
	if u.last.fd >= 0 {
		unix.Close(u.last.fd)
	}
	u.last.fd = -1
}

// impliedModes are the folders that are not 0755 on any system: a layer that has
// a file in one of them, but not the folder, must not close or open it.
var impliedModes = map[string]uint32{"tmp": 0o1777, "var/tmp": 0o1777, "dev/shm": 0o1777, "root": 0o700}

// imply makes the folders of a resolved path that are missing.
func (u *unpacker) imply(clean string) error {
	fd, err := u.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	at := ""
	for part := range strings.SplitSeq(clean, "/") {
		at = path.Join(at, part)
		err := u.mkdirat(fd, part, at)
		if err == nil {
			u.stats.Implied++
			if mode, ok := impliedModes[at]; ok {
				err = unix.Fchmodat(fd, part, mode, 0)
			}
			err = errors.Join(err, u.folderTime(at, 0, 0))
		} else if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		if err != nil {
			return err
		}
		next, err := u.open(at, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		unix.Close(fd)
		fd = next
	}
	return nil
}

// mkdirat makes a folder of root's with mode 0755, opaque where it takes the
// place of a whiteout. EEXIST: there is something else.
func (u *unpacker) mkdirat(dir int, name, clean string) error {
	err := unix.Mkdirat(dir, name, 0o755)
	opaque := false
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if serr := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); serr != nil {
			return serr
		}
		if !isWhiteout(&st) {
			return err
		}
		if err = unix.Unlinkat(dir, name, 0); err != nil {
			return err
		}
		opaque, err = true, unix.Mkdirat(dir, name, 0o755)
	}
	if err != nil {
		return err
	}
	if err := unix.Fchmodat(dir, name, 0o755, 0); err != nil { // the umask is the process's
		return err
	}
	if opaque {
		return u.opaque(clean)
	}
	return nil
}
