package program

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// Bounds on what a hostile image may have in its /etc/passwd and /etc/group.
const (
	maxDatabase = 8 << 20 // bytes read of either
	maxGroups   = 65536   // linux/limits.h, NGROUPS_MAX
	maxID       = 65535   // ids above are not mapped
)

// account is who a program runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// lookUp reads user[:group] with the environment's own /etc/passwd and /etc/group.
func lookUp(name string) (account, error) {
	if name == "" || name == "0:0" {
		name = "0"
	}
	passwd, err := readDatabase("/etc/passwd")
	group, errGroup := readDatabase("/etc/group")
	if err == nil {
		err = errGroup
	}
	// What an environment has spoilt must not keep its owner from looking into it.
	if err != nil && !needsNone(name) {
		return account{}, err
	}
	return findAccount(name, passwd, group)
}

// needsNone tells whether name can do without any database: 0, or two numbers.
func needsNone(name string) bool {
	user, group, withGroup := strings.Cut(name, ":")
	_, okUser := number(user)
	_, okGroup := number(group)
	return name == "0" || withGroup && okUser && okGroup
}

// readDatabase reads a file that may be missing, and may be hostile: it must be
// a regular file, and no link of /proc leads to it.
func readDatabase(path string) (string, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return "", nil
	}
	if err != nil {
		return "", root.Fail(root.Unable, "user", "open "+path+": "+root.Words(err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return "", root.Fail(root.Unable, "user", path+" is not a regular file")
	}
	b, err := ReadAll(fd, maxDatabase)
	if err != nil {
		return "", root.Fail(root.Unable, "user", "read "+path+": "+root.Words(err))
	}
	return string(b), nil
}

func findAccount(name, passwd, group string) (account, error) {
	user, groupName, withGroup := strings.Cut(name, ":")
	if user == "" {
		user = "0"
	}
	who := account{}
	entry := findEntry(passwd, user, 7)
	if entry != nil {
		uid, ok1 := number(entry[2])
		gid, ok2 := number(entry[3])
		if !ok1 || !ok2 {
			return account{}, root.Fail(root.Unable, "user", "the entry of "+user+" in /etc/passwd is malformed")
		}
		who.uid, who.gid, who.home = uid, gid, entry[5]
	} else if uid, ok := number(user); ok {
		who.uid = uid
	} else {
		return account{}, root.Fail(root.Missing, "user", "unable to find user "+user+": no matching entries in passwd file")
	}
	if !withGroup || groupName == "" {
		if entry != nil {
			who.groups = memberships(group, entry[0])
		}
		return who, checkIDs(&who)
	}
	if e := findEntry(group, groupName, 4); e != nil {
		gid, ok := number(e[2])
		if !ok {
			return account{}, root.Fail(root.Unable, "user", "the entry of "+groupName+" in /etc/group is malformed")
		}
		who.gid = gid
	} else if gid, ok := number(groupName); ok {
		who.gid = gid
	} else {
		return account{}, root.Fail(root.Missing, "user", "unable to find group "+groupName+": no matching entries in group file")
	}
	return who, checkIDs(&who)
}

func checkIDs(who *account) error {
	if who.uid > maxID || who.gid > maxID {
		return root.Fail(root.Invalid, "user", "user and group ids are at most "+strconv.Itoa(maxID))
	}
	return nil
}

// findEntry returns the fields of the line whose name or number (third field) is
// key, a name being preferred; nil if there is none.
func findEntry(database, key string, fields int) (found []string) {
	_, numeric := number(key)
	for line := range strings.SplitSeq(database, "\n") {
		// Cheap first: a line that does not hold the key cannot be the one.
		if !strings.Contains(line, key) {
			continue
		}
		f := strings.SplitN(strings.TrimSpace(line), ":", fields)
		if len(f) < min(fields, 4) {
			continue
		}
		for len(f) < fields {
			f = append(f, "")
		}
		if f[0] == key {
			return f
		}
		if numeric && found == nil && f[2] == key {
			found = f
		}
	}
	return found
}

// memberships returns the groups that list user as a member.
func memberships(database, user string) (groups []uint32) {
	for line := range strings.SplitSeq(database, "\n") {
		if !strings.Contains(line, user) {
			continue
		}
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) < 4 {
			continue
		}
		gid, ok := number(f[2])
		if !ok || gid > maxID {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == user && len(groups) < maxGroups {
				groups = append(groups, gid)
				break
			}
		}
	}
	return groups
}

func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}
