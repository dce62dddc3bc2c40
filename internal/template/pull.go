package template

import (
	"context"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/registry"
)

// PullOptions say how a template is fetched. The zero value fetches for this
// host, over https, with the docker config of this process's user.
type PullOptions struct {
	Platform string         // os/arch[/variant]
	Insecure bool           // plain http is allowed
	Keychain authn.Keychain // nil: the docker config
}

func (o PullOptions) keys() authn.Keychain {
	if o.Keychain == nil {
		return authn.DefaultKeychain
	}
	return o.Keychain
}

// Login is a keychain of one login, for the registry of the pull or push that it
// is given to. Fields that are not needed are empty; without any it is anonymous.
type Login struct {
	Username, Password string
	IdentityToken      string // to be exchanged for a bearer token
	RegistryToken      string // a bearer token
}

// Resolve returns the login, whatever the registry.
func (l Login) Resolve(authn.Resource) (authn.Authenticator, error) {
	if l == (Login{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken}), nil
}

// pullAtOnce is how many layers of one image are fetched in parallel.
const pullAtOnce = 3

// Pull fetches an image from its registry and names it ref. Layers that are here
// are not fetched again; a download that was broken off goes on where it stopped.
// Kinds: Invalid for a malformed ref or an image that is broken or refused,
// Missing, Denied, Busy where the registry or the disk cannot now, Unable for an
// image that no zone, guest or machine can use.
func (s *Store) Pull(ctx context.Context, ref string, opt PullOptions, r Report) (Template, error) {
	want, err := parsePlatform(opt.Platform)
	if err != nil {
		return Template{}, err
	}
	parsed, err := parseRef(ref, opt.Insecure)
	if err != nil {
		return Template{}, err
	}
	t, err := s.pull(ctx, parsed, want, opt, r)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return t, fault.Wrap(err, "pull %s", familiar(parsed))
}

func (s *Store) pull(ctx context.Context, ref name.Reference, want v1.Platform, opt PullOptions, r Report) (Template, error) {
	client, err := registry.Dial(ctx, ref.Context(), opt.keys())
	if err != nil {
		return Template{}, err
	}
	f := found{names: []string{familiar(ref)}, source: familiar(ref)}
	if f.manifest, err = imageManifest(ctx, client, ref.Identifier(), want); err != nil {
		return Template{}, err
	}
	m, err := parseManifest(f.manifest)
	if err != nil {
		return Template{}, err
	}
	if f.config, err = client.Document(ctx, m.Config.Digest.String(), m.Config.Size); err != nil {
		return Template{}, err
	}
	t, diffIDs, err := parseConfig(f.config)
	if err != nil {
		return Template{}, err
	}
	if t.Arch != want.Architecture {
		return Template{}, fault.Missingf("there is no image for %s", want.String()).At("platform").
			Help("the image is for %s/%s: to have it all the same, say so with --platform", t.OS, printable(t.Arch))
	}
	if len(diffIDs) != len(m.Layers) {
		return Template{}, fault.Invalidf("the image's manifest and configuration do not fit together")
	}
	w, err := s.begin()
	if err != nil {
		return Template{}, err
	}
	defer w.end()
	f.blobs = make([]string, len(m.Layers))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(pullAtOnce)
	for i, d := range m.Layers {
		group.Go(func() (err error) {
			if f.blobs[i], err = w.fetch(gctx, client, d, r); err != nil {
				return err
			}
			_, err = w.layerFromBlob(gctx, f.blobs[i], d.Digest.String(), diffIDs[i], r)
			return fault.Wrap(err, "layer %d of %d", i+1, len(m.Layers))
		})
	}
	if err := group.Wait(); err != nil {
		return Template{}, err
	}
	return w.commit(ctx, f, r)
}

// imageManifest returns the manifest of the image for a platform.
func imageManifest(ctx context.Context, client *registry.Client, ref string, want v1.Platform) ([]byte, error) {
	raw, media, err := client.Manifest(ctx, ref, MaxManifest)
	if err != nil {
		return nil, err
	}
	if !media.IsIndex() && !(media == "" && isIndex(raw)) {
		return raw, nil
	}
	fit, err := pick(raw, want, func(d v1.Descriptor) ([]byte, error) {
		inner, _, err := client.Manifest(ctx, d.Digest.String(), MaxManifest)
		return inner, err
	})
	if err != nil {
		return nil, err
	}
	raw, _, err = client.Manifest(ctx, fit[0].Digest.String(), MaxManifest)
	return raw, err
}

// isIndex looks at the document itself, for a registry that does not say.
func isIndex(raw []byte) bool {
	idx, err := v1.ParseIndexManifest(strings.NewReader(string(raw)))
	return err == nil && (idx.MediaType == types.OCIImageIndex || idx.MediaType == types.DockerManifestList)
}

// fetch makes a blob available and returns where it is: where it stays, or in
// the download folder until its template is whole. Two that want the same blob
// at once wait for one another.
func (w *session) fetch(ctx context.Context, client *registry.Client, d v1.Descriptor, r Report) (string, error) {
	digest := d.Digest.String()
	stays := w.s.blobPath(digest)
	coming := w.s.downloadPath(d)
	w.pin(stays, coming)
	unlock, err := w.s.work.Lock(ctx, "blob "+digest)
	if err != nil {
		return "", err
	}
	defer unlock()
	if hasSize(stays, d.Size) {
		r.tell("download", short(digest), d.Size, d.Size)
		return stays, nil
	}
	var next int64
	err = client.Download(ctx, registry.Blob{Digest: digest, Size: d.Size, To: coming, Tell: func(done int64) {
		if done >= next || done == d.Size {
			next = done + tellEvery
			r.tell("download", short(digest), done, d.Size)
		}
	}})
	return coming, diskFault(err)
}
