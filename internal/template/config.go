package template

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of an image's own documents.
const (
	// MaxManifest is the largest manifest or index. Unit: bytes. Source: OCI
	// distribution-spec 1.1, "Pushing Manifests": registries should take 4 MiB.
	MaxManifest = 4 * unit.MiB
	// MaxConfig is the largest image configuration. Unit: bytes.
	MaxConfig = 8 * unit.MiB
	// MaxLayers is how many layers an image may have. overlayfs takes 500 lower
	// layers (fs/overlayfs/params.h, OVL_MAX_STACK); docker makes 127 at most.
	MaxLayers = 256
)

// parseConfig reads an image configuration into all of a Template but its layers.
// Kinds: Invalid, Unable for a system that cannot run on a Linux kernel.
func parseConfig(raw []byte) (Template, []string, error) {
	bad := func(format string, args ...any) (Template, []string, error) {
		return Template{}, nil, fault.Invalidf("the image's configuration "+format, args...)
	}
	if len(raw) > MaxConfig {
		return bad("has more than %s", unit.Size(MaxConfig))
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return bad("cannot be read: %w", err)
	}
	if c.OS != "" && c.OS != "linux" {
		return Template{}, nil, fault.Unablef("the image is for %s; images for linux are accepted", printable(c.OS))
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) == 0 || len(c.RootFS.DiffIDs) > MaxLayers {
		return bad("names %d layers; 1 to %d are accepted", len(c.RootFS.DiffIDs), MaxLayers)
	}
	var diffIDs []string
	for _, id := range c.RootFS.DiffIDs {
		if !isDigest(id.String()) {
			return bad("names a layer by %q; sha256 is accepted", printable(id.String()))
		}
		diffIDs = append(diffIDs, id.String())
	}
	for _, e := range c.Config.Env {
		if strings.IndexByte(e, 0) >= 0 || strings.HasPrefix(e, "=") {
			return bad("has a malformed variable %q", printable(e))
		}
	}
	t := Template{
		ID: digestOf(raw), Created: c.Created.Time, OS: "linux", Arch: c.Architecture, Variant: c.Variant,
		Config: Config{
			Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env,
			WorkingDir: c.Config.WorkingDir, User: c.Config.User, StopSignal: c.Config.StopSignal,
			ExposedPorts: slices.Sorted(maps.Keys(c.Config.ExposedPorts)), Volumes: slices.Sorted(maps.Keys(c.Config.Volumes)),
			Labels: c.Config.Labels, System: isSystem(c.Config),
		},
	}
	if h := c.Config.Healthcheck; h != nil {
		t.Config.Health = &Health{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
	return t, diffIDs, nil
}

// printable bounds what an image may put into our own words.
func printable(text string) string {
	if len(text) > 100 {
		text = text[:100] + "…"
	}
	return fault.Printable(text)
}

// parseManifest reads the manifest of one image.
func parseManifest(raw []byte) (*v1.Manifest, error) {
	if len(raw) > MaxManifest {
		return nil, fault.Invalidf("the image's manifest has more than %s", unit.Size(MaxManifest))
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fault.Invalidf("the image's manifest cannot be read: %w", err)
	}
	if m.SchemaVersion != 2 || (m.MediaType != "" && !m.MediaType.IsImage()) {
		return nil, fault.Invalidf("the image's manifest is of type %q; OCI image manifests and docker's schema 2 are accepted", printable(string(m.MediaType)))
	}
	if n := len(m.Layers); n == 0 || n > MaxLayers {
		return nil, fault.Invalidf("the image's manifest names %d layers; 1 to %d are accepted", n, MaxLayers)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if !isDigest(d.Digest.String()) || d.Size < 0 {
			return nil, fault.Invalidf("the image's manifest names %q with %d bytes; sha256 digests are accepted", printable(d.Digest.String()), d.Size)
		}
	}
	if m.Config.Size > MaxConfig {
		return nil, fault.Invalidf("the image's configuration has more than %s", unit.Size(MaxConfig))
	}
	return m, nil
}

// localLayer is a layer whose blob strata compressed itself.
type localLayer struct {
	blob   string // digest of the compressed tar
	size   int64
	diffID string
	media  types.MediaType
}

// compose makes configuration and manifest of an image that strata made itself.
func compose(c v1.ConfigFile, layers []localLayer) (config, manifest []byte, err error) {
	c.RootFS = v1.RootFS{Type: "layers"}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, l := range layers {
		diff, err := v1.NewHash(l.diffID)
		if err != nil {
			return nil, nil, err
		}
		blob, err := v1.NewHash(l.blob)
		if err != nil {
			return nil, nil, err
		}
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diff)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l.media, Size: l.size, Digest: blob})
	}
	if config, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	hash, err := v1.NewHash(digestOf(config))
	if err != nil {
		return nil, nil, err
	}
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: hash}
	manifest, err = json.Marshal(m)
	return config, manifest, err
}
