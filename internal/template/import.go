package template

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/unit"
)

// ImportOptions say what an import makes. The zero value keeps what the stream says.
type ImportOptions struct {
	Name   string            // name[:tag]; "": what the archive says, or none
	Kind   string            // KindApp or KindSystem; "": what the image says, else app
	Labels map[string]string // added to the image's own
	// For a plain root folder, which says nothing of itself; ignored else.
	Cmd        []string // nil: /sbin/init for KindSystem, else /bin/sh
	StopSignal string   // "": see rootConfig
	Source     string   // for people, such as a file's name; "": "import"
}

// Import makes a template of a stream: an OCI layout as a tar, docker's archive,
// or a plain root folder as a tar, each of them plain or compressed by gzip, xz,
// zstd or bzip2. Of an archive with several images, the one for this host is
// taken where only that differs. Importing the same again gives the same id.
// Kinds: Invalid for a stream that is neither, or broken, or refused by
// unpack.Layer; Busy where the disk is full.
func (s *Store) Import(ctx context.Context, stream io.Reader, opt ImportOptions, r Report) (Template, error) {
	names, err := asked(opt.Name)
	if err != nil {
		return Template{}, err
	}
	if opt.Kind != "" && opt.Kind != KindApp && opt.Kind != KindSystem {
		return Template{}, fault.Invalidf("the kind %q is unknown", printable(opt.Kind)).At("kind").Help("write %s or %s", KindApp, KindSystem)
	}
	if opt.Source == "" {
		opt.Source = "import"
	}
	w, err := s.begin()
	if err != nil {
		return Template{}, err
	}
	defer w.end()
	counted := &counter{r: &stoppable{ctx, stream}, tell: func(n int64) { r.tell("import", opt.Source, n, 0) }}
	plain, _, err := inflate.Reader(counted)
	if err != nil {
		return Template{}, err
	}
	defer plain.Close()
	raw, archive, err := sniff(plain)
	if err != nil {
		return Template{}, err
	}
	var t Template
	if archive {
		t, err = w.importArchive(ctx, raw, names, opt, r)
	} else {
		t, err = w.fromTar(ctx, raw, rootConfig(opt), nil, names, opt.Source)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && fault.KindOf(err) == fault.Internal {
		err = fault.Invalidf("the archive ends too early: %w", err).Help("it was cut off: fetch or write it again")
	}
	return t, fault.Wrap(err, "import template")
}

// sniffLimit bounds what is looked at before it is known what a tar holds.
// Folders alone do not tell. Unit: bytes.
const sniffLimit = 1 * unit.MiB

// archiveName matches the files of OCI layouts and of docker's archives, old and new.
var archiveName = regexp.MustCompile(`^(oci-layout|index\.json|manifest\.json|repositories|blobs/sha256/[0-9a-f]{64}|[0-9a-f]{64}\.(json|tar|tar\.gz)|(sha256:)?[0-9a-f]{64}|[0-9a-f]{64}/(json|VERSION|layer\.tar))$`)

// sniff tells an image archive from a root folder by the first entry that is no
// folder, and returns the stream from its start.
func sniff(r io.Reader) (io.Reader, bool, error) {
	var seen bytes.Buffer
	t := tar.NewReader(io.TeeReader(io.LimitReader(r, sniffLimit), &seen))
	archive := false
	for {
		h, err := t.Next()
		if err == io.EOF || seen.Len() >= sniffLimit {
			break // folders only, or a great many: a root folder
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return nil, false, fault.Invalidf("the stream is no tar: %w", err).
				Help("an OCI layout, an archive of `docker save` or a root folder is accepted, as a tar, plain or compressed by gzip, xz, zstd or bzip2")
		}
		if h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		archive = archiveName.MatchString(path.Clean(h.Name))
		break
	}
	if seen.Len() == 0 {
		return nil, false, fault.Invalidf("the stream is empty")
	}
	return io.MultiReader(&seen, r), archive, nil
}

// StopSystemd is the signal that makes systemd power off cleanly.
// Source: systemd(1), "SIGNALS"; SIGRTMIN is 34 in glibc.
const StopSystemd = "SIGRTMIN+4"

// rootConfig is the configuration of a plain root folder. It depends on the
// options alone, so that the same folder always makes the same template.
func rootConfig(opt ImportOptions) v1.ConfigFile {
	c := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: v1.Config{
		Cmd: opt.Cmd, Env: []string{defaultPath}, Labels: map[string]string{}, StopSignal: opt.StopSignal,
	}}
	maps.Copy(c.Config.Labels, opt.Labels)
	if opt.Kind != "" {
		c.Config.Labels[KindLabel] = opt.Kind
	}
	system := c.Config.Labels[KindLabel] == KindSystem
	if c.Config.Cmd == nil {
		c.Config.Cmd = []string{"/bin/sh"}
		if system {
			c.Config.Cmd = []string{"/sbin/init"}
		}
	}
	if c.Config.StopSignal == "" && system {
		c.Config.StopSignal = StopSystemd
	}
	return c
}

// relabel changes an image's configuration as the options ask for.
func relabel(config []byte, opt ImportOptions) ([]byte, error) {
	if opt.Kind == "" && len(opt.Labels) == 0 {
		return config, nil
	}
	labels := maps.Clone(opt.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if opt.Kind != "" {
		labels[KindLabel] = opt.Kind
	}
	return setLabels(config, labels)
}

// archiveNames are the names that an archive's image goes by, malformed ones left out.
func archiveNames(asked []string, said ...string) []string {
	if len(asked) > 0 {
		return asked
	}
	var names []string
	for _, n := range said {
		if strings.HasPrefix(n, ":") || !strings.ContainsAny(n, "/:") {
			continue // a bare tag, as OCI layouts may have
		}
		if full, err := parseTag(n); err == nil {
			names = append(names, full)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
