package engine

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Id ranges: each environment has 65,536 user and group ids of the host for life.
//
// They come from 0x40000000 up to 0x7ffe0000, which is room for 16,382: above what
// useradd gives out for /etc/subuid (SUB_UID_MAX is 600,100,000), below 2^31,
// above which some file systems and programs take an id for negative, and below
// what systemd calls the foreign range (0x7ffe0000). What the host's /etc/subuid
// and /etc/subgid have in there is left out.
//
// Two roots on one host must not share a range while both have processes in it.
// Each begins at a place of its own (a hash of its tag) and claims a range for as
// long as it has it, as a file in a folder that all roots of the host share. Since
// owners on disk are never shifted, a range is nothing that a disk remembers: where
// a claim was lost to another root (the folder is in /run, so gone after a reboot),
// the environment simply gets another range.
const (
	rangeSize  = 1 << 16
	firstRange = 0x40000000
	lastRange  = 0x7ffd0000
	rangeCount = (lastRange-firstRange)/rangeSize + 1
)

// DefaultClaims is the folder of claims of a host.
const DefaultClaims = "/run/strata-ids"

// ranges gives out id ranges. Its lock is a leaf.
type ranges struct {
	dir   string // of claims
	owner string // what a claim of ours says: the state folder

	mu     sync.Mutex
	next   int
	rested []int        // given back; the last is taken first, as its user namespace is there still
	taken  map[int]bool // ours
	closed map[int]bool // never to be used: /etc/subuid has them
}

func newRanges(dir, owner, tag string, subid ...string) (*ranges, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of id ranges: %w", err)
	}
	r := &ranges{dir: dir, owner: owner, taken: map[int]bool{}, closed: map[int]bool{}}
	if tag != "" {
		h := fnv.New32a()
		h.Write([]byte(tag))
		r.next = int(h.Sum32() % rangeCount)
	}
	for _, path := range subid {
		if err := r.avoid(path); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// avoid leaves out what a file in the form of subuid(5) gives to others.
func (r *ranges) avoid(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the host's id ranges: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 {
			continue
		}
		from, errFrom := strconv.ParseUint(fields[1], 10, 32)
		count, errCount := strconv.ParseUint(fields[2], 10, 32)
		if errFrom != nil || errCount != nil || count == 0 {
			continue
		}
		first := max((int64(from)-firstRange)/rangeSize, 0)
		last := min((int64(from+count)-1-firstRange)/rangeSize, rangeCount-1)
		if int64(from+count) <= firstRange {
			continue
		}
		for i := first; i <= last; i++ {
			r.closed[int(i)] = true
		}
	}
	return lines.Err()
}

// take returns the first id of a range that nobody on this host has.
// Kinds: Busy where all are taken.
func (r *ranges) take() (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range rangeCount {
		i := r.pick()
		if r.taken[i] || r.closed[i] || !r.claim(i) {
			continue
		}
		r.taken[i] = true
		return base(i), nil
	}
	return 0, fault.Busyf("all %d id ranges of this host are taken", rangeCount).Help("remove environments")
}

func (r *ranges) pick() (i int) {
	if last := len(r.rested) - 1; last >= 0 {
		i, r.rested = r.rested[last], r.rested[:last]
		return i
	}
	i, r.next = r.next, (r.next+1)%rangeCount
	return i
}

// keep takes the range that a record has; false where another root has it now.
func (r *ranges) keep(from uint32) bool {
	i, ok := slot(from)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ok || r.taken[i] || r.closed[i] || !r.claim(i) {
		return false
	}
	r.taken[i] = true
	return true
}

// give gives a range back.
func (r *ranges) give(from uint32) {
	i, ok := slot(from)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok && r.taken[i] {
		delete(r.taken, i)
		r.rested = append(r.rested, i)
		_ = os.Remove(r.path(i)) // tolerated: a claim of ours that is left is taken over by ourselves
	}
}

// claim writes a claim, takes over one that is our own, or whose root is gone.
func (r *ranges) claim(i int) bool {
	for range 2 {
		f, err := os.OpenFile(r.path(i), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(r.owner)
			return errors.Join(err, f.Close()) == nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return false
		}
		owner, err := os.ReadFile(r.path(i))
		if err != nil {
			continue // it went meanwhile
		}
		if string(owner) == r.owner {
			return true
		}
		if !gone(string(owner)) || r.drop(r.path(i)) != nil {
			return false
		}
	}
	return false
}

// gone tells whether the root that a claim is for is no more. One that says
// nothing is being written.
func gone(owner string) bool {
	if owner == "" {
		return false
	}
	_, err := os.Stat(owner)
	return errors.Is(err, fs.ErrNotExist)
}

// drop removes the claim at path, if its root is gone. The folder is locked, so
// that of two roots that find it at once the second looks at what the first has
// made of it.
func (r *ranges) drop(path string) error {
	dir, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if owner, err := os.ReadFile(path); err != nil || !gone(string(owner)) {
		return nil
	}
	return os.Remove(path)
}

// sweep drops the claims of roots that are gone: a private root may be removed
// together with its environments.
func (r *ranges) sweep() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(r.dir, entry.Name())
		if owner, err := os.ReadFile(path); err == nil && gone(string(owner)) {
			if err := r.drop(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *ranges) path(i int) string { return filepath.Join(r.dir, strconv.Itoa(i)) }

func base(i int) uint32 { return uint32(firstRange + i*rangeSize) }

func slot(from uint32) (int, bool) {
	if from < firstRange || from > lastRange || from%rangeSize != 0 {
		return 0, false
	}
	return int(from-firstRange) / rangeSize, true
}
