package template

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"

	"github.com/strata-project/strata/internal/fault"
)

// Host is the platform of this host.
func Host() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// parsePlatform reads os/arch[/variant]; "" is the host's.
func parsePlatform(text string) (v1.Platform, error) {
	if text == "" {
		return Host(), nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return v1.Platform{}, fault.Invalidf("%q is not a platform", printable(text)).At("platform").Help("write os/arch or os/arch/variant, such as linux/arm64")
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	if p.OS != "linux" {
		return v1.Platform{}, fault.Unablef("templates for %s cannot be used", printable(p.OS)).At("platform").Help("write a platform that starts with linux/")
	}
	return p, nil
}

// Bounds of an image index.
const (
	maxIndexDepth   = 3    // an index in an index in an index
	maxIndexEntries = 1024 // of one index
)

// pick finds the manifests for a platform in an index, at least one, the best first.
// Kinds: Invalid, Missing where no image is for the platform.
func pick(index []byte, want v1.Platform, load func(v1.Descriptor) ([]byte, error)) ([]v1.Descriptor, error) {
	seen := &picking{want: want, load: load}
	if err := seen.look(index, 1); err != nil {
		return nil, err
	}
	switch {
	case len(seen.fit) > 0:
		return seen.fit, nil
	case len(seen.plain) == 1:
		return seen.plain, nil
	case len(seen.plain) > 1:
		return nil, fault.Invalidf("it holds %d images and does not say for which platforms", len(seen.plain)).Help("give one image alone")
	}
	e := fault.Missingf("there is no image for %s", want.String()).At("platform")
	if len(seen.others) > 0 {
		slices.Sort(seen.others)
		return nil, e.Help("there are images for %s", strings.Join(slices.Compact(seen.others), ", "))
	}
	return nil, e
}

type picking struct {
	want   v1.Platform
	load   func(v1.Descriptor) ([]byte, error)
	fit    []v1.Descriptor
	plain  []v1.Descriptor // without a platform
	others []string
	loads  int
}

func (p *picking) look(raw []byte, depth int) error {
	if len(raw) > MaxManifest {
		return fault.Invalidf("the image index is too large")
	}
	idx, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return fault.Invalidf("the image index cannot be read: %w", err)
	}
	if len(idx.Manifests) > maxIndexEntries {
		return fault.Invalidf("the image index names %d manifests; %d are accepted", len(idx.Manifests), maxIndexEntries)
	}
	for _, d := range idx.Manifests {
		switch {
		case d.MediaType.IsIndex():
			if p.loads++; depth >= maxIndexDepth || p.loads > maxIndexEntries {
				return fault.Invalidf("the image index holds indexes too deep")
			}
			inner, err := p.load(d)
			if err != nil {
				return err
			}
			before := len(p.fit)
			if err := p.look(inner, depth+1); err != nil {
				return err
			}
			for i := before; i < len(p.fit); i++ { // the outer one has the name
				p.fit[i].Annotations = d.Annotations
			}
		case !d.MediaType.IsImage(), d.Annotations["vnd.docker.reference.type"] == "attestation-manifest":
		case d.Platform == nil:
			if !slices.ContainsFunc(p.plain, func(o v1.Descriptor) bool { return o.Digest == d.Digest }) { // else a further name
				p.plain = append(p.plain, d)
			}
		case fits(*d.Platform, p.want):
			p.fit = append(p.fit, d)
		default:
			p.others = append(p.others, printable(d.Platform.String()))
		}
	}
	return nil
}

// fits tells whether an image for have runs on want. arm64 without variant means v8.
func fits(have, want v1.Platform) bool {
	variant := func(p v1.Platform) string {
		if p.Architecture == "arm64" && p.Variant == "" {
			return "v8"
		}
		return p.Variant
	}
	return have.OS == want.OS && have.Architecture == want.Architecture && (want.Variant == "" || variant(have) == variant(want))
}

// setLabels adds labels to a configuration and leaves all else as it was.
func setLabels(config []byte, labels map[string]string) ([]byte, error) {
	if len(config) > MaxConfig {
		return nil, fault.Invalidf("the image's configuration is too large")
	}
	broken := func(err error) error {
		return fault.Invalidf("the image's configuration cannot be read: %w", err)
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, broken(err)
	}
	inner := map[string]json.RawMessage{}
	if raw, ok := whole["config"]; ok {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, broken(err)
		}
	}
	if whole == nil || inner == nil { // JSON's null
		return nil, fault.Invalidf("the image's configuration is empty")
	}
	all := map[string]string{}
	if raw, ok := inner["Labels"]; ok {
		if err := json.Unmarshal(raw, &all); err != nil {
			return nil, broken(err)
		}
	}
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range labels {
		all[k] = v
	}
	var err error
	if inner["Labels"], err = json.Marshal(all); err != nil {
		return nil, err
	}
	if whole["config"], err = json.Marshal(inner); err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

// compress writes r to w as gzip, the same bytes for the same stream.
func compress(w io.Writer, r io.Reader) error {
	z := gzip.NewWriter(w)
	if _, err := io.Copy(z, r); err != nil {
		return err
	}
	return z.Close()
}
