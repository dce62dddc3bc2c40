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

func allThreads(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err unix.Errno) {
	return syscall.AllThreadsSyscall(trap, a1, a2, a3)
}

// node is a file or folder of the volume. What is made in it is its maker's from the
// beginning, as in a zone.
type node struct {
	fs.LoopbackNode

	mu   sync.Mutex
	open []fs.FileHandle
}

func newNode(tree *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
	return &node{LoopbackNode: fs.LoopbackNode{RootData: tree}}
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

// asMaker has what make makes belong to who asks for it. The machine's kernel has decided that he
// may: rights are not looked at again, for which his further groups would be missing.
func asMaker(ctx context.Context, make func(context.Context) syscall.Errno) syscall.Errno {
	who, ok := fuse.FromContext(ctx)
	if !ok {
		return syscall.EINVAL
	}
	runtime.LockOSThread() // stays locked where it cannot be put back: the thread ends then
	_ = unix.Setfsgid(int(who.Gid))
	_ = unix.Setfsuid(int(who.Uid))
	errno := syscall.EPERM
	if threads.set(unix.RawSyscall) == nil {
		errno = make(context.Background()) // go-fuse would give it an owner itself, and a folder's group away
	}
	_ = unix.Setfsuid(0)
	_ = unix.Setfsgid(0)
	if threads.set(unix.RawSyscall) == nil {
		runtime.UnlockOSThread()
	}
	return errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (child *fs.Inode, f fs.FileHandle, how uint32, errno syscall.Errno) {
	errno = asMaker(ctx, func(ctx context.Context) (errno syscall.Errno) {
		child, f, how, errno = n.LoopbackNode.Create(ctx, name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW, mode, out)
		return errno
	})
	if errno == 0 {
		n.complete(name, mode, out)
		if made, ok := child.Operations().(*node); ok {
			made.keep(f)
		}
	}
	return child, f, how, errno
}

// complete gives what was made the bits beside permissions, which os.OpenFile and os.Mkdir
// leave out.
func (n *node) complete(name string, mode uint32, out *fuse.EntryOut) {
	const bits = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX
	if lost := mode & bits &^ out.Mode; lost != 0 && unix.Chmod(path.Join("/", n.Path(n.Root()), name), (out.Mode|lost)&0o7777) == nil {
		out.Mode |= lost
	}
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = asMaker(ctx, func(ctx context.Context) (errno syscall.Errno) {
		child, errno = n.LoopbackNode.Mkdir(ctx, name, mode, out)
		return errno
	})
	if errno == 0 {
		n.complete(name, mode, out)
	}
	return child, errno
}

func (n *node) Mknod(ctx context.Context, name string, mode, dev uint32, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = asMaker(ctx, func(ctx context.Context) (errno syscall.Errno) {
		child, errno = n.LoopbackNode.Mknod(ctx, name, mode, dev, out)
		return errno
	})
	return child, errno
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (child *fs.Inode, errno syscall.Errno) {
	errno = asMaker(ctx, func(ctx context.Context) (errno syscall.Errno) {
		child, errno = n.LoopbackNode.Symlink(ctx, target, name, out)
		return errno
	})
	return child, errno
}

// Open opens without waiting: a machine's kernel opens no pipe here, but one that is hostile
// could ask for it.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, how, errno := n.LoopbackNode.Open(ctx, flags|unix.O_NONBLOCK)
	if errno == 0 {
		n.keep(f)
	}
	return f, how, errno
}

// keep notes an open file.
func (n *node) keep(f fs.FileHandle) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, f)
}

// Release closes an open file.
func (n *node) Release(ctx context.Context, f fs.FileHandle) syscall.Errno {
	n.mu.Lock()
	if i := slices.Index(n.open, f); i >= 0 {
		n.open = slices.Delete(n.open, i, i+1)
	}
	n.mu.Unlock()
	if r, ok := f.(fs.FileReleaser); ok {
		return r.Release(ctx)
	}
	return 0
}

// Setattr goes by an open file where no name is left, which the machine's kernel does not say.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, parent := n.Parent(); f == nil && parent == nil && !n.IsRoot() {
		n.mu.Lock()
		if len(n.open) > 0 {
			f = n.open[0]
		}
		n.mu.Unlock()
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

// Tmpfile is refused, as by virtiofsd: programs make a file with a name instead.
func (n *node) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP
}
