package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/unit"
)

// none is the progress of what is done at once.
func none(int64, int64) {}

// Overlay makes a qcow2 image at path, which must not be there, that lies over c and
// holds nothing yet. The disk has size bytes, 0 for as many as c. The image names c's
// file for people; machines are given both. Kinds: Invalid, Conflict, Unable.
func (t Tool) Overlay(ctx context.Context, c *Chain, path string, size unit.Size) error {
	if size == 0 {
		size = c.Size
	}
	if size < c.Size || size%sector != 0 || size > maxSize {
		return fault.Invalidf("a disk of %d bytes cannot lie over one of %d", size, c.Size).At("disk").Help("at least %s", c.Size)
	}
	if len(c.Layers[0].Parts) != 1 {
		_, err := c.Images(nil)
		return err
	}
	options := map[string]any{
		"driver": "qcow2", "file": "file", "size": int64(size),
		"backing-file": c.Path, "backing-fmt": string(c.Layers[0].Parts[0].Format),
	}
	return t.fill(ctx, path, nil, nil, func(s *session) error {
		return s.run(ctx, "blockdev-create", map[string]any{"options": options}, none)
	})
}

// Import makes a copy of c's disk at path, which must not be there, in format Raw or
// QCOW2. Stretches of zeros become holes. progress is told how far it is, in bytes of
// the disk. Kinds: Invalid, Conflict, Unable.
func (t Tool) Import(ctx context.Context, c *Chain, path string, format Format, progress func(done, total int64)) error {
	if format != Raw && format != QCOW2 {
		return fault.Invalidf("images are not imported as %.16q", format).At("format").Help("one of raw, qcow2")
	}
	if parts := len(c.Layers[len(c.Layers)-1].Parts); parts != 1 && len(c.Layers) > 1 {
		return fault.Unablef("an image that lies over one in %d files cannot be imported", parts).At("image").Help("bring them into one image first: qemu-img convert")
	}
	var files []*os.File
	hand := func(f *os.File) int {
		files = append(files, f)
		return firstFD + 1 + len(files) // the target is before them
	}
	var args argv.Args
	if len(c.Layers[0].Parts) > 1 {
		for i, p := range c.Layers[0].Parts {
			image, err := c.image(p, hand)
			if err != nil {
				return err
			}
			args.Chain("source"+strconv.Itoa(i), []argv.Image{image}, true, t.QEMU.Ring)
		}
	} else {
		images, err := c.Images(hand)
		if err != nil {
			return err
		}
		args.Chain("source0", images, true, t.QEMU.Ring)
	}
	return t.fill(ctx, path, args, files, func(s *session) error { return t.copy(ctx, s, c, format, progress) })
}

// copy has QEMU copy the sources to where they are on the disk.
func (t Tool) copy(ctx context.Context, s *session, c *Chain, format Format, progress func(done, total int64)) error {
	if format == QCOW2 {
		options := map[string]any{"driver": "qcow2", "file": "file", "size": int64(c.Size)}
		if err := s.run(ctx, "blockdev-create", map[string]any{"options": options}, none); err != nil {
			return err
		}
	} else if err := s.qmp.Execute(ctx, "block_resize", map[string]any{"node-name": "file", "size": int64(c.Size)}, nil); err != nil {
		return err
	}
	err := s.qmp.Execute(ctx, "blockdev-add", map[string]any{
		"driver": string(format), "node-name": "target", "file": "file", "discard": "unmap", "detect-zeroes": "unmap",
	}, nil)
	if err != nil {
		return err
	}
	var before int64
	for i, p := range c.Layers[0].Parts {
		number, to := strconv.Itoa(i), "target"
		if len(c.Layers[0].Parts) > 1 {
			to = "stretch" + number
			stretch := map[string]any{"driver": "raw", "node-name": to, "file": "target", "offset": before, "size": int64(p.Size)}
			if err := s.qmp.Execute(ctx, "blockdev-add", stretch, nil); err != nil {
				return err
			}
		}
		step := func(done, _ int64) { progress(before+min(done, int64(p.Size)), int64(c.Size)) }
		backup := map[string]any{"device": "source" + number, "target": to, "sync": "full", "auto-dismiss": false}
		if err := s.run(ctx, "blockdev-backup", backup, step); err != nil {
			return err
		}
		if to != "target" {
			if err := s.qmp.Execute(ctx, "blockdev-del", map[string]any{"node-name": to}, nil); err != nil {
				return err
			}
		}
		before += int64(p.Size)
	}
	progress(int64(c.Size), int64(c.Size))
	return s.qmp.Execute(ctx, "blockdev-del", map[string]any{"node-name": "target"}, nil) // it is whole from here on
}

// fill makes a file under another name, has QEMU fill it, and gives it its name.
func (t Tool) fill(ctx context.Context, path string, args argv.Args, files []*os.File, do func(*session) error) (err error) {
	var random [8]byte
	rand.Read(random[:]) // never fails: see its documentation
	made := filepath.Join(filepath.Dir(path), ".making-"+hex.EncodeToString(random[:]))
	f, err := os.OpenFile(made, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Internalf("make an image: %w", err)
	}
	defer f.Close()
	defer func() {
		if err != nil {
			os.Remove(made)
		}
	}()
	var first argv.Args
	first.Node(map[string]any{"driver": "file", "node-name": "file", "filename": first.FD(firstFD + 1), "discard": "unmap", "aio": argv.AIO(t.QEMU.Ring)})
	s, err := t.start(ctx, append(first, args...), append([]*os.File{f}, files...))
	if err != nil {
		return err
	}
	err = do(s)
	s.close()
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fault.Internalf("write an image: %w", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fault.Conflictf("there is an image at %s", path).At("image")
		}
		return fault.Internalf("name an image: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fault.Internalf("write an image: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}
