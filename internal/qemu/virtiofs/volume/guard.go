package volume

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// guard refuses what no machine's kernel asks for, before go-fuse relies on it: names that are
// paths, locks and requests of a file system's own, which were not offered.
type guard struct{ fuse.RawFileSystem }

// name tells whether all are names of something in a folder.
func name(all ...string) fuse.Status {
	for _, s := range all {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
			return fuse.EINVAL
		}
	}
	return fuse.OK
}

func (g guard) Lookup(cancel <-chan struct{}, h *fuse.InHeader, n string, out *fuse.EntryOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Lookup(cancel, h, n, out)
}

func (g guard) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, n string, out *fuse.EntryOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Mknod(cancel, in, n, out)
}

func (g guard) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, n string, out *fuse.EntryOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Mkdir(cancel, in, n, out)
}

func (g guard) Unlink(cancel <-chan struct{}, h *fuse.InHeader, n string) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Unlink(cancel, h, n)
}

func (g guard) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, n string) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Rmdir(cancel, h, n)
}

func (g guard) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if s := name(from, to); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Rename(cancel, in, from, to)
}

func (g guard) Link(cancel <-chan struct{}, in *fuse.LinkIn, n string, out *fuse.EntryOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Link(cancel, in, n, out)
}

func (g guard) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, n string, out *fuse.EntryOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Symlink(cancel, h, target, n, out)
}

func (g guard) Create(cancel <-chan struct{}, in *fuse.CreateIn, n string, out *fuse.CreateOut) fuse.Status {
	if s := name(n); s != fuse.OK {
		return s
	}
	return g.RawFileSystem.Create(cancel, in, n, out)
}

func (guard) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }
func (guard) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status              { return fuse.ENOSYS }
func (guard) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status             { return fuse.ENOSYS }

// Ioctl says of every request that it is not there.
func (guard) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(25) // ENOTTY
}
