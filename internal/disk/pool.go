package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/unit"
)

// Options are those of a pool. The zero value is usable: the default size,
// nothing made ahead, no log, no disk grown or mended.
type Options struct {
	Log     *slog.Logger
	Agent   string    // path of strata-agent, which confines what reads hostile disks
	Ready   int       // how many disks are made, attached and mounted ahead
	Size    unit.Size // of ready disks, and where Create is asked for 0; 0: DefaultSize
	Reserve unit.Size // what Create leaves free on the host; 0: 2 %, within 256 MiB and 8 GiB
}

// DefaultSize is a private disk's size where nobody says otherwise.
const DefaultSize unit.Size = 10 * unit.GiB

// Pool makes and mounts private disks. It is safe for concurrent use; two
// processes must not share its folder.
type Pool struct {
	dir string
	o   Options

	making sync.Mutex // held while the golden image is made

	mu     sync.Mutex
	ready  []*warm         // in dir, under their ready names; the oldest first
	given  map[inode]*warm // created but not yet mounted by Mount
	order  []inode         // of given, the oldest first
	closed bool

	wake chan struct{} // asks refill to look again; holds one
	stop context.CancelFunc
	done chan struct{} // closed when refill has ended
}

// warm is a disk that is attached and mounted.
type warm struct {
	path string
	at   inode
	tree *mount.Tree
}

type inode struct{ dev, ino uint64 }

func inodeOf(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}

// OpenPool opens the pool in the folder dir, makes it where it is missing, and
// takes over or removes what an earlier daemon left there. ctx bounds the
// opening only; Close ends the pool. Kinds: Invalid (size), Unable (tools).
func OpenPool(ctx context.Context, dir string, o Options) (*Pool, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Size = roundUp(o.Size)
	if err := checkSize(o.Size); err != nil {
		return nil, err
	}
	if _, err := e2fsprogs("mkfs.ext4").Path(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the disk pool: %w", err)
	}
	p := &Pool{dir: dir, o: o, given: make(map[inode]*warm), wake: make(chan struct{}, 1), done: make(chan struct{})}
	if err := p.adopt(ctx); err != nil {
		for _, w := range p.ready {
			w.tree.Close()
		}
		return nil, err
	}
	life, stop := context.WithCancel(context.Background()) // the pool's, not the opener's
	p.stop = stop
	go func() {
		defer close(p.done)
		p.refill(life)
	}()
	return p, nil
}

// adopt takes over ready disks of this size and form and removes all else.
func (p *Pool) adopt(ctx context.Context) error {
	names, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("read the disk pool: %w", err)
	}
	for _, entry := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(p.dir, entry.Name())
		keep := path == p.golden()
		if !keep && strings.HasPrefix(entry.Name(), p.readyName("")) && len(p.ready) < p.o.Ready {
			w, err := attachWarm(path)
			if err != nil {
				p.o.Log.Debug("ready disk not usable", "disk", path, "error", err)
			} else {
				p.ready, keep = append(p.ready, w), true
			}
		}
		if !keep && strings.HasSuffix(entry.Name(), suffix) {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove what is left in the disk pool: %w", err)
			}
		}
	}
	return nil
}

// Names of files in the pool's folder. All end in suffix.
const (
	suffix = ".ext4"
	form   = "3" // raised when the golden image changes, so that old files are not used
)

func (p *Pool) golden() string {
	return filepath.Join(p.dir, fmt.Sprintf("golden-%s-%d%s", form, p.o.Size, suffix))
}

func (p *Pool) readyName(random string) string {
	name := fmt.Sprintf("ready-%s-%d-", form, p.o.Size)
	if random == "" {
		return name
	}
	return name + random + suffix
}

// refill keeps the pool at its level until ctx ends.
func (p *Pool) refill(ctx context.Context) {
	const pause = 10 * time.Second // after a failure: the host is full, say
	for ctx.Err() == nil {
		for p.short() && ctx.Err() == nil {
			if p.stocked() {
				// Whoever took one is about to start: that goes first.
				select {
				case <-ctx.Done():
				case <-time.After(breath):
				}
			}
			if err := p.makeReady(ctx); err != nil {
				p.o.Log.Debug("no ready disk made", "error", err)
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		}
	}
}

func (p *Pool) short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.ready) < p.o.Ready
}

// breath is how long refill stands back while there are disks. A start takes
// about 25 ms, and to make a disk 5 ms of processor time.
const breath = 50 * time.Millisecond

// stocked tells whether the pool is at least half full.
func (p *Pool) stocked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) >= (p.o.Ready+1)/2
}

func (p *Pool) makeReady(ctx context.Context) error {
	if err := p.checkRoom(p.dir, "another disk"); err != nil {
		return err
	}
	path := filepath.Join(p.dir, p.readyName(randomName()))
	if err := p.makeImage(ctx, path, p.o.Size); err != nil {
		return err
	}
	w, err := attachWarm(path)
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, w)
	return nil
}

// attachWarm attaches and mounts the image at path.
func attachWarm(path string) (*warm, error) {
	image, err := Hold(path)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	at, err := inodeOf(image)
	if err != nil {
		return nil, err
	}
	tree, err := mountImage(image)
	if err != nil {
		return nil, err
	}
	return &warm{path: path, at: at, tree: tree}, nil
}

// takeReady moves a ready disk to path; ok is false where there is none, or it
// cannot be moved there (path is on another file system).
func (p *Pool) takeReady(path string) (ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return false, nil
	}
	w := p.ready[0]
	err = unix.Renameat2(unix.AT_FDCWD, w.path, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL): // EINVAL: a file system without NOREPLACE
		return false, nil
	case err != nil:
		return false, nameFault(path, err)
	}
	p.ready = p.ready[1:]
	w.path = path
	p.given[w.at] = w
	p.order = append(p.order, w.at)
	p.trimGiven()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true, nil
}

// trimGiven lets go of created disks that nobody has mounted, the oldest first,
// so that a host full of stopped environments has not one mount for each.
func (p *Pool) trimGiven() {
	for len(p.order) > max(p.o.Ready, 1) {
		if w := p.given[p.order[0]]; w != nil {
			delete(p.given, w.at)
			w.tree.Close()
		}
		p.order = p.order[1:]
	}
}

// takeGiven returns the mounted tree of the image at path, nil where the pool has none.
func (p *Pool) takeGiven(path string) (*mount.Tree, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, nameFault(path, err)
	}
	at := inode{uint64(st.Dev), st.Ino}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.given[at]
	if w == nil {
		return nil, nil
	}
	delete(p.given, at)
	for i, one := range p.order {
		if one == at {
			p.order = append(p.order[:i:i], p.order[i+1:]...)
			break
		}
	}
	return w.tree, nil
}

// release unmounts the image at path if it is the pool that has it mounted.
func (p *Pool) release(path string) error {
	tree, err := p.takeGiven(path)
	if err != nil {
		return err
	}
	return tree.Close()
}

// Close ends the making of disks and lets go of those that are mounted ahead;
// their images stay for the next pool. Disks that Mount gave away are not touched.
func (p *Pool) Close() error {
	p.stop()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, w := range p.ready {
		errs = append(errs, w.tree.Close())
	}
	for _, w := range p.given {
		errs = append(errs, w.tree.Close())
	}
	p.ready, p.given, p.order = nil, make(map[inode]*warm), nil
	return errors.Join(errs...)
}

// nameFault gives a kind to what is wrong with the path of an image.
func nameFault(path string, err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fault.Conflictf("there is a disk at %s already: %w", path, err)
	case errors.Is(err, unix.ENOENT):
		return fault.Missingf("there is no disk at %s: %w", path, err)
	}
	return fmt.Errorf("disk %s: %w", path, err)
}
