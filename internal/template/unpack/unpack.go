package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Stats say what a layer holds.
type Stats struct {
	Entries int   // headers in the tar
	Bytes   int64 // of its files
	Implied int   // folders that no entry named
	Dropped int   // extended attributes that were not kept
}

// Layer unpacks the tar in r, which is not compressed, into the existing, empty
// folder dir, and reads r to its end. ctx ends it between two pieces of a file.
// Kinds: Invalid for a tar that is broken, escapes or passes a limit, Busy where
// the disk is full, Unable where the host refuses a step.
func Layer(ctx context.Context, r io.Reader, dir string, limits Limits) (Stats, error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Stats{}, fault.Wrap(&os.PathError{Op: "open", Path: dir, Err: err}, "unpack")
	}
	defer unix.Close(root)
	stream := &bounded{ctx: ctx, r: r, left: 2*limits.Bytes + int64(limits.Entries)*headerBlocks*tarBlock + tarTail}
	u := &unpacker{ctx: ctx, root: root, limits: limits, tar: tar.NewReader(stream)}
	u.last.fd = -1
	defer u.forget()
	err = u.run()
	if err == nil {
		// What follows the tar's end counts for the stream's digest.
		_, err = io.Copy(io.Discard, stream)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return u.stats, explain(err)
}

// What a tar needs besides its files. Source: POSIX ustar and pax.
const (
	tarBlock     = 512
	headerBlocks = 8 // of one entry, long names and attributes included, on average
	tarTail      = 1 * unit.MiB
)

// explain gives an error of the host its kind.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.Busy, "unpack layer: the disk is full: %w", err).Help("free some space, for example with `strata template prune`")
	case errors.Is(err, unix.EMLINK):
		return fault.New(fault.Unable, "unpack layer: %w", err).Help("the host's file system holds no more hard links to one file; ext4 has 65000, XFS and btrfs have more")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
		return fault.New(fault.Unable, "unpack layer: %w", err).Help("unpacking needs root and a file system with extended attributes")
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath):
		return fault.New(fault.Invalid, "unpack layer: the tar is broken: %w", err)
	}
	return fault.Wrap(err, "unpack layer")
}

// bounded ends a stream with a fault where it is longer than left, or ctx is over.
type bounded struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fault.Invalidf("the layer's stream is longer than what is accepted")
	}
	return n, err
}

type unpacker struct {
	ctx     context.Context
	root    int
	limits  Limits
	tar     *tar.Reader
	stats   Stats
	written int64 // since the free space was looked at
	names   int64 // total length in folders
	steps   int64 // so far
	folders []folderTime
	last    struct { // the folder of the entry before, kept open
		fd        int
		key, path string
	}
	buf []byte
}

// folderTime is applied at the end: making entries in a folder changes its time.
type folderTime struct {
	path      string
	sec, nsec int64
}

func (u *unpacker) run() error {
	u.buf = make([]byte, 256*unit.KiB)
	if err := u.folderTime(".", 0, 0); err != nil {
		return err
	}
	if err := unix.Fchmod(u.root, 0o755); err != nil {
		return err
	}
	for {
		h, err := u.tar.Next()
		if err == io.EOF {
			return u.finish()
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) { // split decides
			return err
		}
		if u.stats.Entries++; u.stats.Entries > u.limits.Entries {
			return fault.Invalidf("the layer has more than the %d entries that are accepted", u.limits.Entries)
		}
		if err := u.entry(h); err != nil {
			return fault.Wrap(err, "entry %s", shorten(h.Name))
		}
	}
}

func shorten(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name), "?")
}

// finish sets the times of the folders, the later of two for the same one last.
func (u *unpacker) finish() error {
	u.forget()
	for _, f := range u.folders {
		fd, err := u.open(f.path, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // replaced by a later entry
		}
		if err != nil {
			return err
		}
		err = setTime(fd, "", f.sec, f.nsec)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) folderTime(clean string, sec, nsec int64) error {
	if u.names += int64(len(clean)) + 32; u.names > u.limits.Folders {
		return fault.Invalidf("the layer has more folders than are accepted")
	}
	u.folders = append(u.folders, folderTime{clean, sec, nsec})
	return nil
}

// remove takes away what an earlier entry of the same layer made.
func (u *unpacker) remove(p place, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := unix.Unlinkat(p.dir, p.name, 0)
		u.forget()
		return err
	}
	u.forget()
	return u.removeFolder(p.full())
}

// removeFolder removes a resolved folder with all that is in it. The tree may be
// as deep as MaxPath allows, so it goes by a list, not by recursion.
func (u *unpacker) removeFolder(clean string) error {
	list := []string{clean}
	for i := 0; i < len(list); i++ {
		fd, err := u.open(list[i], unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		dir := os.NewFile(uintptr(fd), list[i])
		entries, err := dir.ReadDir(-1)
		for _, e := range entries {
			if err == nil && e.IsDir() {
				list = append(list, path.Join(list[i], e.Name()))
			} else if err == nil {
				err = unix.Unlinkat(fd, e.Name(), 0)
			}
		}
		dir.Close()
		if err != nil {
			return err
		}
	}
	for _, p := range slices.Backward(list) {
		dir, name := path.Split(p)
		fd, err := u.open(path.Clean("./"+dir), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
