package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/strata-project/strata/internal/fault"
)

// found is an image whose blobs are all here.
type found struct {
	config, manifest []byte
	blobs            []string // paths, lowest layer first; where they stay is blobPath
	names            []string // in full
	source           string
}

// commit makes the layers of an image and writes its record, after which the
// template exists. Kinds: Invalid where the image does not fit together,
// makeLayer's.
func (w *session) commit(ctx context.Context, f found, r Report) (Template, error) {
	t, diffIDs, err := parseConfig(f.config)
	if err != nil {
		return Template{}, err
	}
	m, err := parseManifest(f.manifest)
	if err != nil {
		return Template{}, err
	}
	if m.Config.Digest.String() != t.ID || len(m.Layers) != len(diffIDs) || len(f.blobs) != len(diffIDs) {
		return Template{}, fault.Invalidf("the image's manifest and configuration do not fit together")
	}
	for i, diffID := range diffIDs {
		l, err := w.layerFromBlob(ctx, f.blobs[i], m.Layers[i].Digest.String(), diffID, r)
		if err != nil {
			return Template{}, fault.Wrap(err, "layer %d of %d", i+1, len(diffIDs))
		}
		t.Layers = append(t.Layers, l)
		t.Size += l.Size
	}
	rec := &record{Version: recordVersion, Template: t, Manifest: digestOf(f.manifest), Added: time.Now().UTC()}
	rec.Template.Source = f.source
	if rec.Template.Created.IsZero() {
		rec.Template.Created = rec.Added
	}
	for i, path := range f.blobs {
		rec.Blobs = append(rec.Blobs, m.Layers[i].Digest.String())
		if err := w.keepBlob(path, m.Layers[i]); err != nil {
			return Template{}, err
		}
	}
	for _, data := range [][]byte{f.config, f.manifest} {
		to := w.s.blobPath(digestOf(data))
		w.pin(to)
		if err := writeFile(to, data); err != nil {
			return Template{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Template{}, err
	}
	return w.s.add(rec, f.names)
}

// keepBlob moves a blob that was checked to where it stays. What is there already stays
// if it has the size that the manifest says: else it is damaged, and replaced.
func (w *session) keepBlob(path string, d v1.Descriptor) error {
	to := w.s.blobPath(d.Digest.String())
	w.pin(to)
	if path == to || hasSize(to, d.Size) {
		return nil
	}
	err := settle(path, to)
	if os.IsNotExist(err) && hasSize(to, d.Size) { // the same layer twice in one image, or another session was quicker
		return nil
	}
	return err
}

// add writes a record, unless the same template is there and whole, and its names.
func (s *Store) add(rec *record, names []string) (Template, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := rec.Template.ID
	old := s.records[id]
	if old != nil {
		if _, err := s.whole(old); err != nil {
			old = nil
		}
	}
	if old == nil {
		data, err := json.MarshalIndent(rec, "", "\t")
		if err != nil {
			return Template{}, err
		}
		if err := writeFile(s.recordPath(id), data); err != nil {
			return Template{}, fault.Wrap(err, "write template record")
		}
		s.records[id] = rec
	}
	for _, name := range names {
		if err := s.setName(name, id); err != nil {
			return Template{}, err
		}
	}
	return s.whole(s.records[id])
}

// fromTar makes a template of one plain tar, a root folder, or what differs from the layers
// below it. Its blob is the tar compressed by gzip, which every registry and reader takes.
func (w *session) fromTar(ctx context.Context, tarStream io.Reader, c v1.ConfigFile, below []localLayer, names []string, source string) (Template, error) {
	blob, err := os.CreateTemp(w.dir, "blob-")
	if err != nil {
		return Template{}, diskFault(err)
	}
	defer blob.Close()
	pr, pw := io.Pipe()
	sum := make(chan error, 1)
	h := sha256.New()
	go func() {
		z := gzip.NewWriter(io.MultiWriter(&sparing{file: blob}, h))
		_, err := io.Copy(z, pr)
		if cerr := z.Close(); err == nil {
			err = cerr
		}
		pr.CloseWithError(err)
		sum <- err
	}()
	l, err := w.makeLayer(ctx, io.TeeReader(tarStream, pw), "")
	pw.CloseWithError(err)
	if zerr := <-sum; err == nil {
		err = diskFault(zerr)
	}
	if err != nil {
		return Template{}, err
	}
	info, err := blob.Stat()
	if err != nil {
		return Template{}, err
	}
	top := localLayer{"sha256:" + hex.EncodeToString(h.Sum(nil)), info.Size(), l.DiffID, types.OCILayer}
	return w.compose(ctx, c, append(slices.Clip(below), top), blob.Name(), names, source)
}

// compose makes a template of layers that are made, of which the blob of the last is at path.
func (w *session) compose(ctx context.Context, c v1.ConfigFile, layers []localLayer, path string, names []string, source string) (Template, error) {
	config, manifest, err := compose(c, layers)
	if err != nil {
		return Template{}, err
	}
	blobs := make([]string, len(layers))
	for i, l := range layers {
		blobs[i] = w.s.blobPath(l.blob)
	}
	blobs[len(blobs)-1] = path
	return w.commit(ctx, found{config: config, manifest: manifest, blobs: blobs, names: names, source: source}, nil)
}
