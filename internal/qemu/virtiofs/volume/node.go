package volume

import (
	"context"
	"path"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or folder of the volume. What is made in it is its maker's from the
// beginning, as in a zone.
type node struct {
	fs.LoopbackNode
	files *files

	mu   sync.Mutex
	open []fs.FileHandle // of this node; held while one is used that its request does not name
}

var (
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeMknoder   = (*node)(nil)
	_ fs.NodeSymlinker = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeTmpfiler  = (*node)(nil)
	_ fs.NodeReleaser  = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
)

// files are all that are open, so that they can be closed when the machine begins anew.
type files struct {
	mu  sync.Mutex
	all map[fs.FileHandle]bool
}

func (f *files) note(h fs.FileHandle, open bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if open {
		f.all[h] = true
	} else {
		delete(f.all, h)
	}
}

// close closes them.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for h := range f.all {
		if r, ok := h.(fs.FileReleaser); ok {
			_ = r.Release(context.Background())
		}
	}
	clear(f.all)
}

// asMaker has what do makes belong to who asks for it. The machine's kernel has decided that he
// may: rights are not looked at again, for which his further groups would be missing. A file
// gets the bit of a group that he is not in from nobody.
func asMaker(ctx context.Context, do func() error) syscall.Errno {
	who, ok := fuse.FromContext(ctx)
	if !ok {
		return syscall.EINVAL
	}
	runtime.LockOSThread() // stays locked where it cannot be put back: the thread ends then
	_ = unix.Setfsgid(int(who.Gid))
	_ = unix.Setfsuid(int(who.Uid))
	errno := syscall.EPERM
	if threads.set(unix.RawSyscall, making) == nil {
		errno = fs.ToErrno(do())
	}
	_ = unix.Setfsuid(0)
	_ = unix.Setfsgid(0)
	if threads.set(unix.RawSyscall, kept) == nil {
		runtime.UnlockOSThread()
	}
	return errno
}

// made makes something in n, and looks it up.
func (n *node) made(ctx context.Context, name string, out *fuse.EntryOut, do func(path string) error) (*fs.Inode, syscall.Errno) {
	at := path.Join("/", n.Path(n.Root()), name)
	if errno := asMaker(ctx, func() error { return do(at) }); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Lookup(ctx, name, out)
}

// opened are the flags that a file is opened with where the machine asks for flags: never waiting,
// as for a pipe, which a machine's kernel does not open here, but one that is hostile could; and by way
// of the host's memory, since a machine's transfers are not aligned as a disk wants it.
func opened(flags uint32) int {
	return int(flags)&^(unix.O_DIRECT|fuse.FMODE_EXEC) | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	fd := -1
	child, errno := n.made(ctx, name, out, func(path string) (err error) {
		fd, err = unix.Open(path, opened(flags)|unix.O_CREAT|unix.O_EXCL, mode&^unix.S_IFMT)
		return err
	})
	if errno == syscall.EEXIST && flags&unix.O_EXCL == 0 {
		errno = syscall.ESTALE // another was faster: the machine's kernel looks again, and whether this one may open it
	}
	if errno != 0 {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, nil, 0, errno
	}
	f := fs.NewLoopbackFile(fd)
	if made, ok := child.Operations().(*node); ok {
		made.keep(f)
	}
	return child, f, 0, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, func(path string) error { return unix.Mkdir(path, mode&^unix.S_IFMT) })
}

func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, func(path string) error { return unix.Mknod(path, mode, int(dev)) })
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.made(ctx, name, out, func(path string) error { return unix.Symlink(target, path) })
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path.Join("/", n.Path(n.Root())), &unix.OpenHow{Flags: uint64(opened(flags)), Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, 0, fs.ToErrno(err)
	}
	f := fs.NewLoopbackFile(fd)
	n.keep(f)
	return f, 0, 0
}

// keep notes an open file.
func (n *node) keep(f fs.FileHandle) {
	n.files.note(f, true)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, f)
}

// Release closes an open file.
func (n *node) Release(ctx context.Context, f fs.FileHandle) syscall.Errno {
	n.files.note(f, false)
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.Index(n.open, f); i >= 0 {
		n.open = slices.Delete(n.open, i, i+1)
	}
	if r, ok := f.(fs.FileReleaser); ok {
		return r.Release(ctx)
	}
	return 0
}

// Setattr goes by an open file where there is one, which the machine's kernel seldom says: its
// name may be gone by now, or another's. A length is set by what may write.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	_, length := in.GetSize()
	_, parent := n.Parent()
	if f == nil && (!length || parent == nil && !n.IsRoot()) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.open) > 0 {
			f = n.open[0]
		}
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// Tmpfile is refused, as by virtiofsd: programs make a file with a name instead.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP
}
