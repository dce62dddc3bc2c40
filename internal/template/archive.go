package template

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/template/unpack"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of an image archive.
const (
	maxArchiveFiles = 4096
	maxArchiveBytes = 2 * 64 * unit.GiB
)

// archive is an image archive spread out: a file below the session's folder for
// each entry, named by number, since an entry's name is hostile.
type archive struct {
	w     *session
	files map[string]spread // by clean name in the archive
	links map[string]string
}

type spread struct {
	path   string
	digest string
	size   int64
}

func (w *session) importArchive(ctx context.Context, r io.Reader, names []string, opt ImportOptions, rep Report) (Template, error) {
	a := &archive{w: w, files: map[string]spread{}, links: map[string]string{}}
	if err := a.spreadOut(ctx, r); err != nil {
		return Template{}, err
	}
	var f found
	var err error
	if _, ok := a.files["index.json"]; ok {
		f, err = a.layout(names, opt)
	} else {
		f, err = a.docker(ctx, names, opt)
	}
	if err != nil {
		return Template{}, err
	}
	f.source = opt.Source
	return w.commit(ctx, f, rep)
}

func (a *archive) spreadOut(ctx context.Context, r io.Reader) error {
	t := tar.NewReader(r)
	left := int64(maxArchiveBytes)
	for count := 0; ; count++ {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return fault.Invalidf("the archive is broken: %w", err)
		}
		name := path.Clean(h.Name)
		if count >= maxArchiveFiles {
			return fault.Invalidf("the archive has more than %d entries", maxArchiveFiles)
		}
		switch h.Typeflag {
		case tar.TypeSymlink, tar.TypeLink: // old archives share layers so
			target := path.Join(path.Dir(name), h.Linkname)
			if h.Typeflag == tar.TypeLink {
				target = path.Clean(h.Linkname)
			}
			a.links[name] = target
		case tar.TypeReg, tar.TypeGNUSparse:
			if left -= h.Size; left < 0 {
				return fault.Invalidf("the archive is larger than %s", unit.Size(maxArchiveBytes))
			}
			to := filepath.Join(a.w.dir, fmt.Sprintf("entry-%d", count))
			s, err := writeBlob(&stoppable{ctx, t}, to)
			if err != nil {
				return err
			}
			a.files[name] = s
		}
	}
	_, err := io.Copy(io.Discard, io.LimitReader(r, maxArchiveBytes))
	return err
}

// writeBlob writes a stream to a new file and hashes it. Kinds: Busy where the disk is full.
func writeBlob(r io.Reader, to string) (spread, error) {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return spread{}, diskFault(err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(&sparing{file: f}, h), r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return spread{to, "sha256:" + hex.EncodeToString(h.Sum(nil)), n}, diskFault(err)
}

// file returns an entry, through at most one link.
func (a *archive) file(name string) (spread, error) {
	name = path.Clean(name)
	if s, ok := a.files[name]; ok {
		return s, nil
	}
	if target, ok := a.links[name]; ok {
		if s, ok := a.files[target]; ok {
			return s, nil
		}
	}
	return spread{}, fault.Invalidf("the archive has no %q", printable(name))
}

func (a *archive) read(name string, limit int64) ([]byte, error) {
	s, err := a.file(name)
	if err != nil {
		return nil, err
	}
	if s.size > limit {
		return nil, fault.Invalidf("%q of the archive has more than %s", printable(name), unit.Size(limit))
	}
	return os.ReadFile(s.path)
}

// blob returns a blob of an OCI layout, whose content is what its name says.
func (a *archive) blob(d v1.Descriptor) (spread, error) {
	digest := d.Digest.String()
	if !isDigest(digest) {
		return spread{}, fault.Invalidf("the archive names a blob by %q; sha256 is accepted", printable(digest))
	}
	s, err := a.file("blobs/sha256/" + d.Digest.Hex)
	if err != nil {
		return spread{}, err
	}
	if s.digest != digest || s.size != d.Size {
		return spread{}, fault.Invalidf("blob %s of the archive is damaged: its content is %s with %d bytes", short(digest), short(s.digest), s.size)
	}
	return s, nil
}

func (a *archive) document(d v1.Descriptor, limit int64) ([]byte, error) {
	s, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	if s.size > limit {
		return nil, fault.Invalidf("document %s of the archive has more than %s", short(s.digest), unit.Size(limit))
	}
	return os.ReadFile(s.path)
}

// Annotations with an image's name. Source: OCI image-spec 1.1, annotations.md;
// containerd's images/annotations.go.
const (
	refAnnotation        = "org.opencontainers.image.ref.name"
	containerdAnnotation = "io.containerd.image.name"
)

// nameOf is what an index calls an image; "" where it does not.
func nameOf(d v1.Descriptor) string {
	return cmp.Or(d.Annotations[containerdAnnotation], d.Annotations[refAnnotation])
}

// layout reads an OCI layout.
func (a *archive) layout(names []string, opt ImportOptions) (found, error) {
	raw, err := a.read("index.json", MaxManifest)
	if err != nil {
		return found{}, err
	}
	fit, err := pick(raw, Host(), func(d v1.Descriptor) ([]byte, error) { return a.document(d, MaxManifest) })
	if err != nil {
		return found{}, err
	}
	d := fit[0]
	for _, other := range fit[1:] {
		if one, two := nameOf(d), nameOf(other); other.Digest != d.Digest && one != two {
			return found{}, fault.Invalidf("the archive holds several images, such as %q and %q", printable(one), printable(two)).Help("save one image in an archive of its own")
		}
	}
	said := []string{d.Annotations[containerdAnnotation], d.Annotations[refAnnotation]}
	if idx, err := v1.ParseIndexManifest(bytes.NewReader(raw)); err == nil {
		for _, other := range idx.Manifests { // one entry for each name of the same image
			if other.Digest == d.Digest {
				said = append(said, other.Annotations[containerdAnnotation], other.Annotations[refAnnotation])
			}
		}
	}
	f := found{names: archiveNames(names, said...)}
	if f.manifest, err = a.document(d, MaxManifest); err != nil {
		return found{}, err
	}
	m, err := parseManifest(f.manifest)
	if err != nil {
		return found{}, err
	}
	original, err := a.document(m.Config, MaxConfig)
	if err != nil {
		return found{}, err
	}
	for _, l := range m.Layers {
		s, err := a.blob(l)
		if err != nil {
			return found{}, err
		}
		f.blobs = append(f.blobs, s.path)
	}
	if f.config, err = relabel(original, opt); err != nil || string(f.config) == string(original) {
		return f, err
	}
	m.Config.Size = int64(len(f.config))
	if m.Config.Digest, err = v1.NewHash(digestOf(f.config)); err != nil {
		return found{}, err
	}
	f.manifest, err = json.Marshal(m)
	return f, err
}

// dockerEntry is one image of manifest.json of `docker save`.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker reads an archive of `docker save` without OCI layout: its manifest is
// made here, its configuration kept.
func (a *archive) docker(ctx context.Context, names []string, opt ImportOptions) (found, error) {
	raw, err := a.read("manifest.json", MaxManifest)
	if err != nil {
		return found{}, err
	}
	var entries []dockerEntry
	if err := json.Unmarshal(raw, &entries); err != nil {
		return found{}, fault.Invalidf("manifest.json of the archive cannot be read: %w", err)
	}
	if len(entries) != 1 {
		return found{}, fault.Invalidf("the archive holds %d images", len(entries)).Help("save one image in an archive of its own")
	}
	e := entries[0]
	if len(e.Layers) == 0 || len(e.Layers) > MaxLayers {
		return found{}, fault.Invalidf("the image has %d layers; 1 to %d are accepted", len(e.Layers), MaxLayers)
	}
	f := found{names: archiveNames(names, e.RepoTags...)}
	config, err := a.read(e.Config, MaxConfig)
	if err != nil {
		return found{}, err
	}
	if f.config, err = relabel(config, opt); err != nil {
		return found{}, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2}
	m.Config = v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(f.config))}
	if m.Config.Digest, err = v1.NewHash(digestOf(f.config)); err != nil {
		return found{}, err
	}
	for i, name := range e.Layers {
		s, err := a.file(name)
		if err != nil {
			return found{}, err
		}
		s, err = a.compressed(ctx, s, i)
		if err != nil {
			return found{}, err
		}
		h, err := v1.NewHash(s.digest)
		if err != nil {
			return found{}, err
		}
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.DockerLayer, Size: s.size, Digest: h})
		f.blobs = append(f.blobs, s.path)
	}
	f.manifest, err = json.Marshal(m)
	return f, err
}

// compressed returns a layer as gzip, as docker's manifests want it.
func (a *archive) compressed(ctx context.Context, s spread, i int) (spread, error) {
	in, err := os.Open(s.path)
	if err != nil {
		return spread{}, err
	}
	defer in.Close()
	plain, format, err := inflate.Reader(&stoppable{ctx, in})
	if err != nil {
		return spread{}, err
	}
	defer plain.Close()
	if format == inflate.Gzip {
		return s, nil
	}
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(compress(pw, io.LimitReader(plain, 2*unpack.Defaults.Bytes))) }()
	defer pr.Close()
	return writeBlob(pr, filepath.Join(a.w.dir, fmt.Sprintf("gzip-%d", i)))
}
