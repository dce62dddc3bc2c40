package seccomp

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// Version is a kernel's version as far as rules ask for it. The zero value is
// older than every kernel.
type Version struct {
	Major, Minor uint64
}

// Kernel returns the running kernel's version.
func Kernel() (Version, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Version{}, fault.Internalf("read kernel version: %w", err)
	}
	return ParseVersion(unix.ByteSliceToString(name.Release[:]))
}

// ParseVersion reads a release such as "6.1.0-13-amd64". Kinds: Invalid.
func ParseVersion(release string) (v Version, err error) {
	if _, err := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor); err != nil {
		return Version{}, fault.Invalidf("%q is no kernel release: %w", release, err)
	}
	return v, nil
}

// Before tells whether v is older than the given version.
func (v Version) Before(major, minor uint64) bool {
	return v.Major < major || v.Major == major && v.Minor < minor
}

var kept struct {
	sync.Mutex
	filters map[string]Filter
}

// Default returns the default profile, compiled for a process with the given
// bounding set (names such as "CAP_SYS_ADMIN") on the given kernel, of this
// program's architecture. The filter is kept and shared: do not change it. It is
// safe for concurrent use. Kinds: Invalid for what is no capability's name,
// Unable for an architecture without tables.
func Default(capabilities []string, kernel Version) (Filter, error) {
	caps := slices.Clone(capabilities)
	for i, c := range caps {
		caps[i] = strings.ToUpper(c)
		if !strings.HasPrefix(caps[i], "CAP_") {
			return nil, fault.Invalidf("%q is no capability", c).At("capabilities").Help("write names such as CAP_NET_ADMIN")
		}
	}
	slices.Sort(caps)
	caps = slices.Compact(caps)
	key := fmt.Sprint(kernel, caps)
	kept.Lock()
	defer kept.Unlock()
	if f, ok := kept.filters[key]; ok {
		return f, nil
	}
	f, err := compile(moby.DefaultProfile(), target{arch: runtime.GOARCH, capabilities: caps, kernel: kernel})
	if err != nil {
		return nil, err
	}
	if kept.filters == nil || len(kept.filters) >= maxKept {
		kept.filters = map[string]Filter{}
	}
	kept.filters[key] = f
	return f, nil
}

// maxKept bounds the compiled filters that are kept, about 7 KiB each: sets of
// capabilities come from users.
const maxKept = 64
