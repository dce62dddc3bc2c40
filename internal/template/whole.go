package template

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
)

// Whole returns the template that ref names as one EROFS file: what an overlay
// of its layers shows, with the same owners, modes, attributes, devices and hard
// links. A template of one layer has that layer's own file; for others the file
// is made at first use, while callers that want the same wait, and stays as long
// as a template with these layers does. It is root's alone. digest names the
// content: it is of the file where there is one layer, else of the list of layers.
// r is told of the step "merge", in bytes of the file under way; its total is what
// the layers hold unpacked; and of the step "wait" where another makes it. Kinds: Get's, Busy (the disk is full, the template is being removed),
// Unable (mkfs.erofs is missing or fails, or the kernel mounts no layers).
func (s *Store) Whole(ctx context.Context, ref string, r Report) (digest, path string, err error) {
	err = s.Use(ref, func(t Template) error {
		layers := distinct(t.Layers)
		if len(layers) == 1 {
			digest, path = layers[0].Digest, s.layerPath(layers[0].Digest)
			return nil
		}
		digest = wholeDigest(layers)
		path = s.wholePath(digest)
		return fault.Wrap(s.makeWhole(ctx, layers, digest, r), "merge the layers of template %s", refOf(t))
	})
	return digest, path, err
}

func (s *Store) wholePath(digest string) string {
	return filepath.Join(s.dir, wholeDir, strings.TrimPrefix(digest, "sha256:")+".erofs")
}

// distinct leaves out layers that are there again further up: all that the lower
// one holds is in the upper one.
func distinct(layers []Layer) []Layer {
	seen := map[string]bool{}
	var kept []Layer
	for _, l := range slices.Backward(layers) {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			kept = append(kept, l)
		}
	}
	slices.Reverse(kept)
	return kept
}

// wholeDigest names what the layers are together. Its first line changes with
// the way that they are merged, so that a file of an earlier way is not taken.
func wholeDigest(layers []Layer) string {
	h := sha256.New()
	h.Write([]byte("strata whole 1\n"))
	for _, l := range layers {
		h.Write([]byte(l.Digest + "\n"))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// makeWhole makes the file unless it is there.
func (s *Store) makeWhole(ctx context.Context, layers []Layer, digest string, r Report) error {
	path := s.wholePath(digest)
	if isWhole(path) {
		return nil
	}
	if s.work.Busy(digest) {
		r.tell("wait", short(digest), 0, 0)
	}
	unlock, err := s.work.Lock(ctx, digest)
	if err != nil {
		return err
	}
	defer unlock()
	if isWhole(path) { // who had the lock has made it
		return nil
	}
	free, err := s.slot(ctx)
	if err != nil {
		return err
	}
	defer free()
	w, err := s.begin()
	if err != nil {
		return err
	}
	defer w.end()
	w.pin(path)
	began := time.Now()
	image, err := w.merge(ctx, layers, digest, r)
	if err != nil {
		return err
	}
	if err := settle(image, path); err != nil {
		return err
	}
	s.log.Debug("layers merged", "digest", digest, "layers", len(layers), "took", time.Since(began))
	return nil
}

// merge makes the file in the session's folder.
func (w *session) merge(ctx context.Context, layers []Layer, digest string, r Report) (string, error) {
	image, place := filepath.Join(w.dir, "erofs"), filepath.Join(w.dir, "layers")
	if err := os.Mkdir(place, 0o700); err != nil {
		return "", diskFault(err)
	}
	err := mount.Merged(ctx, w.s.layerPaths(layers), place, func(root string) error {
		found, err := survey(ctx, root)
		if err != nil {
			return err
		}
		defer follow(image, func(n int64) { r.tell("merge", short(digest), n, found.bytes) })()
		return erofs{root: root, image: image, id: digest, size: found.bytes, without: found.ghosts}.make(ctx, w.s.agent)
	})
	if err != nil {
		return "", err
	}
	if !isWhole(image) {
		return "", fault.Internalf("mkfs.erofs made a file that is no EROFS image")
	}
	info, err := os.Stat(image)
	if err == nil {
		r.tell("merge", short(digest), info.Size(), info.Size())
	}
	return image, err
}

// seen is what a merged tree holds.
type seen struct {
	bytes  int64
	ghosts []string // names that are listed and cannot be looked up
}

// maxGhosts bounds what is left out by name; it goes into a command line.
const maxGhosts = 1000

// survey walks a merged tree. Where a folder is in one layer only, the kernel
// lists a whiteout in it, though there is nothing that it hides and no file of
// the name: mkfs.erofs would stumble over it.
func survey(ctx context.Context, root string) (seen, error) {
	var s seen
	linked := map[[2]uint64]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			s.ghosts = append(s.ghosts, strings.TrimPrefix(path, root+"/"))
			if len(s.ghosts) > maxGhosts {
				return fault.Unablef("the layers have more than %d whiteouts that hide nothing", maxGhosts)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := [2]uint64{uint64(st.Dev), st.Ino}
			if linked[key] {
				return nil
			}
			linked[key] = true
		}
		s.bytes += info.Size()
		return nil
	})
	return s, err
}

// followEvery is how often a file under way is looked at.
const followEvery = 500 * time.Millisecond

// follow tells how far a file has grown until the function that it returns is called.
func follow(path string, tell func(int64)) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	tell(0)
	go func() {
		defer close(stopped)
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if info, err := os.Stat(path); err == nil {
					tell(info.Size())
				}
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

// Of the superblock of EROFS. Source: fs/erofs/erofs_fs.h, struct erofs_super_block.
const (
	erofsSuper     = 1024
	erofsMagic     = 0xe0f5e1e2
	erofsBlockBits = 12 // offsets in it
	erofsBlocks    = 36
)

// isWhole tells whether path is an EROFS image with as many blocks as it says.
func isWhole(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	b := make([]byte, 128)
	if _, err := f.ReadAt(b, erofsSuper); err != nil || binary.LittleEndian.Uint32(b) != erofsMagic || b[erofsBlockBits] > 16 {
		return false
	}
	return int64(binary.LittleEndian.Uint32(b[erofsBlocks:]))<<b[erofsBlockBits] <= info.Size()
}
