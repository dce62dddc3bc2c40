package template

import (
	"context"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/registry"
)

// PushOptions say how a template is sent. The zero value sends over https, with
// the docker config of this process's user.
type PushOptions = PullOptions

// Push sends the template that ref names to target, a registry's name; "" is
// ref itself. What was pulled is sent with the digests that it came with.
// Kinds: Get's, Invalid for a malformed target, Denied, Busy.
func (s *Store) Push(ctx context.Context, ref, target string, opt PushOptions, r Report) error {
	if target == "" {
		target = ref
	}
	to, err := parseRef(target, opt.Insecure)
	if err != nil {
		return err
	}
	w, err := s.begin()
	if err != nil {
		return err
	}
	defer w.end()
	o, err := w.outgoing(ref)
	if err != nil {
		return err
	}
	img, err := partial.CompressedToImage(&stored{s, o})
	if err != nil {
		return err
	}
	updates := make(chan v1.Update, 64)
	told := make(chan struct{})
	go func() { // Write closes updates
		defer close(told)
		for u := range updates {
			r.tell("push", familiar(to), u.Complete, u.Total)
		}
	}()
	err = remote.Write(to, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(opt.keys()), remote.WithTransport(registry.Transport()), remote.WithProgress(updates), remote.WithJobs(pullAtOnce))
	<-told
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.Wrap(registry.Explain(err, familiar(to)), "push %s", refOf(o.template))
}

// stored is a template's image for go-containerregistry.
type stored struct {
	s *Store
	o *outgoing
}

func (i *stored) RawConfigFile() ([]byte, error) {
	return os.ReadFile(i.s.blobPath(i.o.template.ID))
}
func (i *stored) MediaType() (types.MediaType, error) { return i.o.media, nil }
func (i *stored) RawManifest() ([]byte, error)        { return i.o.manifest, nil }

func (i *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]v1.Descriptor{i.o.parsed.Config}, i.o.parsed.Layers...) {
		if d.Digest == h {
			return &storedBlob{i.s, d}, nil
		}
	}
	return nil, fault.Internalf("the image has no layer %s", h)
}

type storedBlob struct {
	s *Store
	d v1.Descriptor
}

func (b *storedBlob) Digest() (v1.Hash, error)            { return b.d.Digest, nil }
func (b *storedBlob) Size() (int64, error)                { return b.d.Size, nil }
func (b *storedBlob) MediaType() (types.MediaType, error) { return b.d.MediaType, nil }
func (b *storedBlob) Compressed() (io.ReadCloser, error) {
	return os.Open(b.s.blobPath(b.d.Digest.String()))
}
