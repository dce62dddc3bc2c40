package zone

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/mount"
)

// viewed are the files that lxcfs shows as they are for the control group of who reads
// them: memory and processors as limited, load and uptime as the zone's own. The first is
// asked for to tell whether it runs. Source: lxcfs(1); slabinfo is left out, which is the
// kernel's alone.
var viewed = []string{"/proc/meminfo", "/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/stat", "/proc/swaps", "/proc/uptime", "/sys/devices/system/cpu/online"}

// viewPatience is how long lxcfs has to answer: a start does not wait for one that hangs.
const viewPatience = time.Second

// view is one of them, to be shown over the kernel's own.
type view struct {
	tree   *mount.Tree
	target string
}

// views are what an lxcfs shows, where one runs.
type views struct {
	place string
	asked chan struct{} // a place is taken by each that asks it, also where nobody waits any more
}

// viewers is how many may ask lxcfs at once. One that hangs holds no more threads than that.
const viewers = 16

func viewsOf(place string) views { return views{place, make(chan struct{}, viewers)} }

// open returns a tree for each file, nothing where lxcfs does not run or does not answer.
func (v *views) open(ctx context.Context) []view {
	ctx, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	select {
	case v.asked <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	found := make(chan []view)
	go func() {
		defer func() { <-v.asked }()
		all := v.find()
		select {
		case found <- all:
		case <-ctx.Done():
			discard(all)
		}
	}()
	select {
	case all := <-found:
		return all
	case <-ctx.Done():
		return nil
	}
}

// find asks the file system itself, which takes as long as it likes.
func (v *views) find() (all []view) {
	for i, target := range viewed {
		path := filepath.Join(v.place, target)
		if i == 0 {
			var st unix.Statfs_t
			if err := unix.Statfs(path, &st); err != nil || st.Type != unix.FUSE_SUPER_MAGIC {
				return nil
			}
			if _, err := os.ReadFile(path); err != nil {
				return nil
			}
		}
		// lxcfs knows who reads by the ids of the host, and files that nobody may
		// write need no lock.
		tree, err := mount.Bind(context.Background(), path, nil, true)
		if err != nil {
			continue // an older one shows less
		}
		all = append(all, view{tree, target})
	}
	return all
}

func discard(all []view) {
	for _, one := range all {
		one.tree.Close()
	}
}
