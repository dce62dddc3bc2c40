package process

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is read of users.
const (
	maxPasswd = 64 << 10 // bytes
	maxName   = 64       // bytes
	maxLines  = 8        // of a map of ids
)

// Users are the names of user ids.
type Users map[uint32]string

// Name returns a user's name, or the number where there is none.
func (u Users) Name(uid uint32) string {
	if name := u[uid]; name != "" {
		return name
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// UsersOf reads /etc/passwd below the folder root. The file is the environment's own,
// and may be anything: only a small regular file of the root's own file system is
// read, since what else is mounted there might never answer. What cannot be read has
// no names.
func UsersOf(root string) Users {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, "etc/passwd", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	b := make([]byte, maxPasswd)
	n, _ := unix.Read(fd, b)
	return parseUsers(b[:max(n, 0)])
}

func parseUsers(b []byte) Users {
	names := Users{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(line, ":", 4)
		if len(f) < 4 || len(f[0]) > maxName {
			continue
		}
		uid, err := strconv.ParseUint(f[2], 10, 32)
		if name := printable([]byte(f[0])); err == nil && names[uint32(uid)] == "" {
			names[uint32(uid)] = name
		}
	}
	return names
}

// IDs is a map of user ids, as user_namespaces(7) has it.
type IDs []idRange

type idRange struct{ inside, outside, count uint64 }

// IDsOf reads the map of the namespace that a process is in.
func IDsOf(pid int) IDs {
	r := NewReader()
	return parseIDs(r.file(r.proc + "/" + strconv.Itoa(pid) + "/uid_map"))
}

func parseIDs(b []byte) (m IDs) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || len(m) == maxLines {
			continue
		}
		var n [3]uint64
		for i := range f {
			n[i], _ = strconv.ParseUint(f[i], 10, 32)
		}
		m = append(m, idRange{n[0], n[1], n[2]})
	}
	return m
}

// Nobody is who users are that a map does not have. Source: user_namespaces(7).
const Nobody = 65534

// Inside returns what a user of the host is inside.
func (m IDs) Inside(uid uint32) uint32 {
	for _, r := range m {
		if n := uint64(uid); n >= r.outside && n-r.outside < r.count {
			return uint32(n - r.outside + r.inside)
		}
	}
	return Nobody
}
