package mount

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// IDs is how many user and group ids an environment has: 0 to 65,535, what
// every distribution's ids and `nobody` fit in.
const IDs = 65536

// IDMap is a user range: the ids 0..IDs-1 inside are Base..Base+IDs-1 on the
// host, for users and groups alike. The zero value maps every id to itself and
// is refused by Get: an environment's root must not be the host's.
type IDMap struct{ Base uint32 }

// Mappings returns the range as a process start wants it.
func (m IDMap) Mappings() []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(m.Base), Size: IDs}}
}

// check refuses ranges that hold a host user or pass the end of ids.
func (m IDMap) check() error {
	if m.Base < IDs || m.Base > 1<<32-1-IDs {
		return fault.Invalidf("the user range from %d is not usable", m.Base).Help("start it at %d or above, and at most %d", IDs, uint32(1<<32-1-IDs))
	}
	return nil
}

// keptMaps is how many user namespaces IDMaps keeps. A kept one costs about
// 1 KiB of kernel memory; what is not kept is made again in less than 1 ms.
const keptMaps = 128

// IDMaps keeps user namespaces, one for each range, for idmapped mounts. The
// zero value is empty and ready. It is safe for concurrent use.
type IDMaps struct {
	mu    sync.Mutex
	kept  map[IDMap]*list.Element
	order list.List // of keptMap, the most recently used first
}

type keptMap struct {
	m    IDMap
	file *os.File
}

// Get returns the descriptor of a user namespace with the given range; the
// caller closes it. Kinds: Invalid, Unable (the kernel has or allows no user namespaces).
func (c *IDMaps) Get(ctx context.Context, m IDMap) (*os.File, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f, err := c.find(m); f != nil || err != nil {
		return f, err
	}
	made, err := newUserNamespace(m)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.kept[m]; have != nil { // somebody else was quicker
		made.Close()
		return dup(have.Value.(keptMap).file)
	}
	if c.kept == nil {
		c.kept = make(map[IDMap]*list.Element)
	}
	c.kept[m] = c.order.PushFront(keptMap{m, made})
	if c.order.Len() > keptMaps {
		old := c.order.Remove(c.order.Back()).(keptMap)
		delete(c.kept, old.m)
		old.file.Close()
	}
	return dup(made)
}

func (c *IDMaps) find(m IDMap) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.kept[m]
	if have == nil {
		return nil, nil
	}
	c.order.MoveToFront(have)
	return dup(have.Value.(keptMap).file)
}

// Close drops every kept namespace. Descriptors given out stay good.
func (c *IDMaps) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for e := c.order.Front(); e != nil; e = e.Next() {
		errs = append(errs, e.Value.(keptMap).file.Close())
	}
	c.order.Init()
	c.kept = nil
	return errors.Join(errs...)
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// newUserNamespace makes a user namespace that no process stays in.
func newUserNamespace(m IDMap) (_ *os.File, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := forkPaused(os.Getpid(), unix.CLONE_NEWUSER)
	if err != nil {
		return nil, namespaceFault(err)
	}
	defer func() {
		if reaped := reap(pid); err == nil {
			err = reaped
		}
	}()
	proc := "/proc/" + strconv.Itoa(pid)
	line := []byte(fmt.Sprintf("0 %d %d\n", m.Base, IDs))
	for _, name := range []string{"/uid_map", "/gid_map"} {
		if err := os.WriteFile(proc+name, line, 0); err != nil {
			return nil, fmt.Errorf("map the user range from %d: %w", m.Base, err)
		}
	}
	file, err := os.Open(proc + "/ns/user")
	if err != nil {
		return nil, fmt.Errorf("open the user namespace of range %d: %w", m.Base, err)
	}
	return file, nil
}
