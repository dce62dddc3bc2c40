package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/template/unpack"
	"github.com/strata-project/strata/internal/tool"
	"github.com/strata-project/strata/internal/unit"
)

// session is one piece of work that adds to the store. What it counts on is
// pinned until its end; what no template holds then is swept.
type session struct {
	s    *Store
	dir  string // below workDir
	pins []string
}

func (s *Store) begin() (*session, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, workDir), "")
	if err != nil {
		return nil, diskFault(err)
	}
	return &session{s: s, dir: dir}, nil
}

// pin keeps files below the store's folder from being swept while the session
// counts on them. It is taken before looking whether a file is there.
func (w *session) pin(paths ...string) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, path := range paths {
		w.s.pins[path]++
		w.pins = append(w.pins, path)
	}
}

func (w *session) end() {
	if err := os.RemoveAll(w.dir); err != nil {
		w.s.log.Debug("template work stays until the next start", "path", w.dir, "err", err)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	for _, path := range w.pins {
		w.s.unpin(path)
	}
	w.pins = nil
	w.s.sweep()
}

// haveLayer returns the layer of a diff id where its file is there and whole in size.
func (w *session) haveLayer(diffID string) (Layer, bool) {
	w.pin(w.s.notePath(diffID))
	w.s.mu.Lock()
	l, ok := w.s.layers[diffID]
	w.s.mu.Unlock()
	if !ok {
		return Layer{}, false
	}
	w.pin(w.s.layerPath(l.Digest))
	info, err := os.Stat(w.s.layerPath(l.Digest))
	return l, err == nil && info.Size() == l.Size
}

// layerFromBlob makes the layer of a compressed tar, the blob of that digest, unless it
// is there already. Two that want the same layer at once wait for one another.
func (w *session) layerFromBlob(ctx context.Context, path, digest, diffID string, r Report) (Layer, error) {
	unlock, err := w.s.work.Lock(ctx, diffID)
	if err != nil {
		return Layer{}, err
	}
	defer unlock()
	if l, ok := w.haveLayer(diffID); ok {
		return l, nil
	}
	f, err := os.Open(path)
	if os.IsNotExist(err) { // another session's template was whole first
		f, err = os.Open(w.s.blobPath(digest))
	}
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Layer{}, err
	}
	counted := &counter{r: f, tell: func(n int64) { r.tell("unpack", short(diffID), n, info.Size()) }}
	tarStream, _, err := inflate.Reader(counted)
	if err != nil {
		return Layer{}, err
	}
	defer tarStream.Close()
	l, err := w.makeLayer(ctx, tarStream, diffID)
	if err == nil {
		r.tell("unpack", short(diffID), info.Size(), info.Size())
	}
	return l, err
}

// makeLayer unpacks a tar and makes its EROFS file. want is the diff id that the
// tar must have, "" where it is not known. Kinds: unpack.Layer's, Invalid where
// the tar is another one, Unable where mkfs.erofs is missing or fails.
func (w *session) makeLayer(ctx context.Context, tarStream io.Reader, want string) (Layer, error) {
	free, err := w.s.slot(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer free()
	dir, err := os.MkdirTemp(w.dir, "layer-")
	if err != nil {
		return Layer{}, diskFault(err)
	}
	defer os.RemoveAll(dir)
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "erofs")
	if err := os.Mkdir(root, 0o700); err != nil {
		return Layer{}, diskFault(err)
	}
	h := sha256.New()
	stats, err := unpack.Layer(ctx, io.TeeReader(tarStream, h), root, unpack.Defaults)
	if err != nil {
		return Layer{}, err
	}
	l := Layer{DiffID: "sha256:" + hex.EncodeToString(h.Sum(nil))}
	if want != "" && want != l.DiffID {
		return Layer{}, fault.Invalidf("layer %s is not what the image says: its content is %s", short(want), short(l.DiffID)).
			Help("the image is damaged, or it was tampered with")
	}
	w.s.log.Debug("layer unpacked", "diff_id", l.DiffID, "entries", stats.Entries, "bytes", stats.Bytes, "implied", stats.Implied, "dropped_xattrs", stats.Dropped)
	if err := (erofs{root: root, image: image, id: l.DiffID, size: stats.Bytes}).make(ctx, w.s.agent); err != nil {
		return Layer{}, err
	}
	if l.Digest, l.Size, err = digestFile(ctx, image); err != nil {
		return Layer{}, err
	}
	return l, w.keepLayer(l, image)
}

// keepLayer puts a finished EROFS file and its note where they stay.
func (w *session) keepLayer(l Layer, image string) error {
	w.pin(w.s.layerPath(l.Digest), w.s.notePath(l.DiffID))
	note, err := json.Marshal(layerNote{recordVersion, l})
	if err != nil {
		return err
	}
	if err := settle(image, w.s.layerPath(l.Digest)); err != nil {
		return err
	}
	if err := writeFile(w.s.notePath(l.DiffID), note); err != nil {
		return err
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.layers[l.DiffID] = l
	return nil
}

// erofsEpoch is the time that mkfs.erofs takes for its own, and the latest that
// a file keeps: the last second that an ext4 inode holds. With SOURCE_DATE_EPOCH
// mkfs.erofs 1.5 clamps to it; with -T it would set every file to it.
const erofsEpoch = "17179869183"

// erofsCompression is what guests' kernels know too. Measured on a Debian with
// systemd and nginx: 124 MB where 200 MB are left plain; reading it all once from
// a cold cache takes 1.5 s either way, one large file 0.14 s where 0.13 s plain
// from a fast disk and half the time from a slow one; once in the page cache
// there is no difference.
const erofsCompression = "lz4"

// mkfs makes EROFS files.
var mkfs = tool.Tool{Name: "mkfs.erofs", Package: "erofs-utils"}

// erofs is an image to be made of a folder: the same bytes for the same content.
type erofs struct {
	root, image string   // absolute paths
	id          string   // "sha256:…", which its UUID is the start of
	size        int64    // of what the folder holds, bytes
	without     []string // paths below root that are left out
}

// make makes it by mkfs.erofs, which agent confines: names, attributes and the sizes of
// files are a stranger's.
func (e erofs) make(ctx context.Context, agent string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(e.image), &fs); err == nil && int64(fs.Bavail)*fs.Bsize < e.size { // holes are written out
		return fault.Busyf("the disk is full: an image of %s has no room", unit.Size(e.size)).Help("free some space, for example with `strata template prune`")
	}
	u := strings.TrimPrefix(e.id, "sha256:")
	uuid := fmt.Sprintf("%s-%s-%s-%s-%s", u[0:8], u[8:12], u[12:16], u[16:20], u[20:32])
	args := []string{"--quiet", "-z" + erofsCompression, "-U", uuid}
	if len(e.without) > 0 {
		// Its search for attributes to be shared heeds no exclusions; this says that none is to be.
		args = append(args, "-x"+strconv.Itoa(math.MaxInt32))
	}
	for _, path := range e.without {
		args = append(args, "--exclude-path="+path)
	}
	f, err := os.OpenFile(e.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return diskFault(err)
	}
	defer f.Close()
	status, err := mkfs.Confined(ctx, tool.Job{
		Agent: agent, Image: f, Folder: e.root, Args: append(args, e.image, e.root), Env: []string{"SOURCE_DATE_EPOCH=" + erofsEpoch},
	})
	switch {
	case status <= 0:
		return err
	case strings.Contains(err.Error(), "No space left"):
		return fault.Busyf("the disk is full: %w", err).Help("free some space, for example with `strata template prune`")
	}
	return fault.Unablef("%w", err)
}

// counter tells how much was read, each time a good deal more was.
type counter struct {
	r    io.Reader
	tell func(int64)
	n    int64
	next int64
}

// tellEvery is after how many bytes progress is told again.
const tellEvery = 1 * unit.MiB

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n >= c.next {
		c.next = c.n + tellEvery
		c.tell(c.n)
	}
	return n, err
}
