package template

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
)

// outgoing is a template's image with its blobs held in the store.
type outgoing struct {
	template Template
	manifest []byte
	media    types.MediaType
	parsed   *v1.Manifest
}

// outgoing reads the image of a template and pins its blobs for the session.
func (w *session) outgoing(ref string) (*outgoing, error) {
	w.s.mu.Lock()
	r, _, err := w.s.find(ref)
	if err != nil {
		w.s.mu.Unlock()
		return nil, err
	}
	o := &outgoing{template: w.s.view(r)}
	digests := append([]string{r.Manifest, o.template.ID}, r.Blobs...)
	for _, d := range digests { // w.pin would lock again
		w.s.pins[w.s.blobPath(d)]++
		w.pins = append(w.pins, w.s.blobPath(d))
	}
	w.s.mu.Unlock()
	for _, d := range digests[:2] {
		if _, err := os.Stat(w.s.blobPath(d)); err != nil {
			return nil, fault.Unablef("template %s is damaged: its blob %s is missing", refOf(o.template), short(d)).Help("fetch it again: it came from %s", o.template.Source)
		}
	}
	if o.manifest, err = os.ReadFile(w.s.blobPath(digests[0])); err != nil {
		return nil, err
	}
	if digestOf(o.manifest) != digests[0] {
		return nil, fault.Unablef("template %s is damaged: its manifest was changed", refOf(o.template)).Help("fetch it again: it came from %s", o.template.Source)
	}
	if o.parsed, err = parseManifest(o.manifest); err != nil {
		return nil, err
	}
	for _, d := range o.parsed.Layers {
		if !hasSize(w.s.blobPath(d.Digest.String()), d.Size) {
			return nil, fault.Unablef("template %s is damaged: its blob %s is missing or truncated", refOf(o.template), short(d.Digest.String())).Help("fetch it again: it came from %s", o.template.Source)
		}
	}
	if o.media = o.parsed.MediaType; o.media == "" {
		o.media = types.OCIManifestSchema1
	}
	return o, nil
}

// Export writes the template that ref names as an OCI layout in a tar, the same
// bytes each time. `docker load` takes it too. Kinds: Get's, and w's own errors.
func (s *Store) Export(ctx context.Context, ref string, out io.Writer, r Report) error {
	w, err := s.begin()
	if err != nil {
		return err
	}
	defer w.end()
	o, err := w.outgoing(ref)
	if err != nil {
		return err
	}
	documents, err := o.documents()
	if err != nil {
		return err
	}
	t := tar.NewWriter(out)
	for _, d := range documents {
		if err := putHeader(t, d.name, int64(len(d.data))); err != nil {
			return fault.Wrap(err, "export template")
		}
		if _, err := t.Write(d.data); err != nil {
			return fault.Wrap(err, "export template")
		}
	}
	var total, done int64
	blobs := o.blobs()
	for _, d := range blobs {
		total += d.Size
	}
	for _, d := range blobs {
		if err := s.exportBlob(ctx, t, d); err != nil {
			return fault.Wrap(err, "export template")
		}
		done += d.Size
		r.tell("export", refOf(o.template), done, total)
	}
	return fault.Wrap(t.Close(), "export template")
}

// blobs lists what the layout holds, each once, in the order of their digests.
func (o *outgoing) blobs() []v1.Descriptor {
	self, _ := v1.NewHash(digestOf(o.manifest))
	all := append([]v1.Descriptor{{Digest: self, Size: int64(len(o.manifest))}, o.parsed.Config}, o.parsed.Layers...)
	slices.SortFunc(all, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.Hex, b.Digest.Hex) })
	return slices.CompactFunc(all, func(a, b v1.Descriptor) bool { return a.Digest == b.Digest })
}

type document struct {
	name string
	data []byte
}

// documents are the files of the layout that are no blobs. manifest.json is for
// docker before 25, which knows no OCI layouts.
func (o *outgoing) documents() ([]document, error) {
	self, err := v1.NewHash(digestOf(o.manifest))
	if err != nil {
		return nil, err
	}
	d := v1.Descriptor{
		MediaType: o.media, Size: int64(len(o.manifest)), Digest: self,
		Platform: &v1.Platform{OS: o.template.OS, Architecture: o.template.Arch, Variant: o.template.Variant},
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	e := dockerEntry{Config: "blobs/sha256/" + o.parsed.Config.Digest.Hex}
	for _, l := range o.parsed.Layers {
		e.Layers = append(e.Layers, "blobs/sha256/"+l.Digest.Hex)
	}
	for _, n := range o.template.Names {
		if strings.Contains(n, "@") {
			continue
		}
		e.RepoTags = append(e.RepoTags, n)
		one := d
		one.Annotations = map[string]string{containerdAnnotation: n, refAnnotation: n[strings.LastIndex(n, ":")+1:]}
		index.Manifests = append(index.Manifests, one)
	}
	if len(index.Manifests) == 0 {
		index.Manifests = []v1.Descriptor{d}
	}
	indexJSON, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	docker, err := json.Marshal([]dockerEntry{e})
	return []document{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", indexJSON}, {"manifest.json", docker}}, err
}

func putHeader(t *tar.Writer, name string, size int64) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

func (s *Store) exportBlob(ctx context.Context, t *tar.Writer, d v1.Descriptor) error {
	f, err := os.Open(s.blobPath(d.Digest.String()))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := putHeader(t, "blobs/sha256/"+d.Digest.Hex, d.Size); err != nil {
		return err
	}
	_, err = io.Copy(t, &stoppable{ctx, f})
	return err
}
