package template

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/template/unpack"
)

// CommitOptions say what a commit makes.
type CommitOptions struct {
	Name    string   // name[:tag]; "": none
	Config  Config   // what environments get by default
	Without []string // paths that stay as the base has them, with what is below
}

// Root writes a root file system as a plain tar.
type Root func(ctx context.Context, w io.Writer) error

// Commit makes a template of one that is there, its base, and of a root file system that came of
// it: the base's layers and one of what differs. Where nothing does, there is no such layer.
// Kinds: Get's, Invalid, Busy where the disk is full, root's own.
func (s *Store) Commit(ctx context.Context, base string, root Root, o CommitOptions, r Report) (t Template, err error) {
	names, err := asked(o.Name)
	if err != nil {
		return Template{}, err
	}
	err = s.Use(base, func(b Template) error {
		w, err := s.begin()
		if err != nil {
			return err
		}
		defer w.end()
		t, err = w.commitOver(ctx, b, root, names, o, r)
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return t, fault.Wrap(err, "commit")
}

func (w *session) commitOver(ctx context.Context, base Template, root Root, names []string, o CommitOptions, r Report) (Template, error) {
	if len(base.Layers) >= MaxLayers {
		return Template{}, fault.Unablef("the template has %d layers already, as many as a template may have", len(base.Layers)).Help("export its files and import them as one: strata cp NAME:/ - | strata template import -")
	}
	config, below, err := w.s.parts(base)
	if err != nil {
		return Template{}, err
	}
	layer, err := os.OpenFile(filepath.Join(w.dir, "difference.tar"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return Template{}, diskFault(err)
	}
	defer layer.Close()
	entries, err := w.differ(ctx, base, root, o, layer, r)
	if err != nil {
		return Template{}, diskFault(err)
	}
	o.Config.into(&config.Config)
	config.Created = v1.Time{Time: time.Now().UTC()}
	config.History = append(config.History, v1.History{Created: config.Created, CreatedBy: "strata commit", EmptyLayer: entries == 0})
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return Template{}, err
	}
	if entries == 0 {
		return w.compose(ctx, config, below, w.s.blobPath(below[len(below)-1].blob), names, "commit")
	}
	return w.fromTar(ctx, layer, config, below, names, "commit")
}

// differ unpacks root and writes what differs from base.
func (w *session) differ(ctx context.Context, base Template, root Root, o CommitOptions, out *os.File, r Report) (entries int, err error) {
	free, err := w.s.slot(ctx)
	if err != nil {
		return 0, err
	}
	defer free()
	dir, place := filepath.Join(w.dir, "root"), filepath.Join(w.dir, "base")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(place, 0o700)); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := unpackRoot(ctx, root, dir, func(n int64) { r.tell("commit", o.Name, n, 0) }); err != nil {
		return 0, err
	}
	err = mount.Merged(ctx, w.s.layerPaths(base.Layers), place, func(merged string) error {
		entries, err = writeDifference(ctx, merged, dir, o.Without, &sparing{file: out})
		return err
	})
	return entries, err
}

// unpackRoot unpacks what root writes. Where that fails, nothing else is of interest.
func unpackRoot(ctx context.Context, root Root, dir string, tell func(int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, in := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := root(ctx, in)
		written <- err
		in.CloseWithError(err)
	}()
	limits := unpack.Defaults
	limits.Whole = true
	_, err := unpack.Layer(ctx, &counter{r: out, tell: tell}, dir, limits) // which reads to the end
	select {
	case failed := <-written:
		if failed != nil {
			err = failed
		}
	default: // it is not what failed, and has nobody any more who reads
		cancel()
		out.CloseWithError(context.Canceled)
		<-written
	}
	return err
}

// parts are a template's configuration and its layers as they came.
func (s *Store) parts(t Template) (c v1.ConfigFile, layers []localLayer, err error) {
	s.mu.Lock()
	rec := s.records[t.ID]
	s.mu.Unlock()
	if rec == nil {
		return c, nil, fault.Missingf("the template was removed meanwhile")
	}
	text, err := os.ReadFile(s.blobPath(t.ID))
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return c, nil, fault.Internalf("read the configuration of template %s: %w", short(t.ID), err)
	}
	if text, err = os.ReadFile(s.blobPath(rec.Manifest)); err != nil {
		return c, nil, fault.Internalf("read the manifest of template %s: %w", short(t.ID), err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return c, nil, err
	}
	for i, l := range m.Layers {
		layers = append(layers, localLayer{l.Digest.String(), l.Size, t.Layers[i].DiffID, ociLayer(l.MediaType)})
	}
	return c, layers, nil
}

// ociLayer is OCI's word for a type of layers: a manifest has one's or the other's.
func ociLayer(t types.MediaType) types.MediaType {
	switch t {
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	case types.DockerForeignLayer:
		return types.OCIRestrictedLayer
	}
	return t
}

// into puts c into the image's own words. Ports and volumes stay as they are there.
func (c Config) into(i *v1.Config) {
	i.Entrypoint, i.Cmd, i.Env, i.WorkingDir, i.User, i.StopSignal = c.Entrypoint, c.Cmd, c.Env, c.WorkingDir, c.User, c.StopSignal
	i.Labels = map[string]string{}
	maps.Copy(i.Labels, c.Labels)
	delete(i.Labels, busyboxLabel) // by which the built-in one is known
	i.Labels[KindLabel] = KindApp
	if c.System {
		i.Labels[KindLabel] = KindSystem
	}
	i.Healthcheck = nil
	if h := c.Health; h != nil {
		i.Healthcheck = &v1.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
}
