package kernel

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/unit"
)

// AddOptions say where a kernel comes from.
type AddOptions struct {
	// Source is "debian" for the distribution's newest cloud kernel,
	// "debian:PACKAGE", "host" for the newest of the host's /boot,
	// "host:RELEASE", or "template:REF" with Root set.
	Source string
	Name   string // "": the kernel's release
	Root   fs.FS  // a template's root file system, whose links must not lead out of it
}

// The sources.
const (
	sourceDebian   = "debian"
	sourceHost     = "host"
	sourceTemplate = "template"
)

// Add brings a kernel from a source. Kinds: Invalid, Missing where the source has
// no such kernel, Unable where guests cannot run on it or the host lacks a
// program, Busy where a mirror cannot be reached, Conflict for a name that is taken.
func (s *Store) Add(ctx context.Context, o AddOptions, report Report) (Kernel, error) {
	if o.Name != "" {
		if err := checkName(o.Name); err != nil {
			return Kernel{}, err
		}
	}
	in, err := s.intake()
	if err != nil {
		return Kernel{}, err
	}
	defer in.close()
	r := record{Name: o.Name, Source: o.Source}
	kind, which, named := strings.Cut(o.Source, ":")
	if named && which == "" {
		return Kernel{}, fault.Invalidf("%q names nothing after the colon", o.Source).At("source")
	}
	switch kind {
	case sourceDebian:
		r.Origin, err = in.fromDebian(ctx, s.downloads(), which, report)
	case sourceHost:
		r.Origin, err = in.fromHost(ctx, hostRoot, which, report)
	case sourceTemplate:
		if o.Root == nil {
			return Kernel{}, fault.Invalidf("%q comes without the template", o.Source).At("source")
		}
		r.Origin, err = in.fromRoot(ctx, o.Root, "", report)
	default:
		return Kernel{}, fault.Invalidf("%q is no source of kernels", printable(o.Source)).At("source").
			Help("debian, debian:PACKAGE, host, host:RELEASE, template:REF, or a file that is there")
	}
	if err != nil {
		return Kernel{}, fault.Wrap(err, "get a kernel from %s", printable(o.Source))
	}
	k, err := s.settle(ctx, in, r, report)
	return k, fault.Wrap(err, "add the kernel from %s", printable(o.Source))
}

// ImportOptions say what a stream is.
type ImportOptions struct {
	Name   string // "": the kernel's release
	Source string // for people, such as the file's name
}

// Import makes a kernel of a stream: a Debian package; a tar, compressed or not,
// with boot/vmlinuz-RELEASE and lib/modules/RELEASE; or a bzImage or vmlinux that
// has built in what guests need. Kinds: as Add's.
func (s *Store) Import(ctx context.Context, content io.Reader, o ImportOptions, report Report) (Kernel, error) {
	if o.Name != "" {
		if err := checkName(o.Name); err != nil {
			return Kernel{}, err
		}
	}
	in, err := s.intake()
	if err != nil {
		return Kernel{}, err
	}
	defer in.close()
	source := printable(o.Source)
	if source == "" {
		source = "file"
	}
	reading := &counted{r: content, tell: func(n int64) { report.tell("import", source, n, 0) }}
	if err := in.fromStream(ctx, reading); err != nil {
		return Kernel{}, fault.Wrap(err, "read the kernel of %s", source)
	}
	k, err := s.settle(ctx, in, record{Name: o.Name, Source: source, Origin: source}, report)
	return k, fault.Wrap(err, "add the kernel of %s", source)
}

// tarMagic is in the first header of a tar. Source: POSIX ustar, at byte 257.
const (
	tarMagic   = "ustar"
	tarMagicAt = 257
)

func isTar(head []byte) bool {
	return len(head) >= tarMagicAt+len(tarMagic) && string(head[tarMagicAt:tarMagicAt+len(tarMagic)]) == tarMagic
}

func (in *intake) fromStream(ctx context.Context, content io.Reader) error {
	b := bufio.NewReaderSize(stoppable{ctx, content}, 256*unit.KiB)
	head, err := b.Peek(512)
	if err != nil && err != io.EOF {
		return err
	}
	switch {
	case len(head) == 0:
		return fault.Invalidf("the file is empty, and no kernel")
	case isAr(head):
		return in.fromPackage(ctx, b)
	case isTar(head):
		return in.fromTar(ctx, b)
	}
	plain, format, err := inflate.Reader(b)
	if err != nil {
		return err
	}
	defer plain.Close()
	if format == inflate.None {
		return in.takeImage("", plain)
	}
	inner := bufio.NewReaderSize(plain, 256*unit.KiB)
	if head, err = inner.Peek(512); err != nil && err != io.EOF {
		return err
	}
	if isTar(head) {
		return in.fromTar(ctx, inner)
	}
	return in.takeImage("", inner)
}

// maxTarEntries bounds the entries of one archive.
const maxTarEntries = 200_000

// fromTar takes the plain files of a tar, holes as zeros. Links are not followed: neither a
// kernel nor a module of a package is one.
func (in *intake) fromTar(ctx context.Context, r io.Reader) error {
	t := tar.NewReader(stoppable{ctx, r})
	for range maxTarEntries {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return brokenArchive(err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
			continue
		}
		if err := in.take(ctx, h.Name, t); err != nil {
			return brokenArchive(err)
		}
	}
	return fault.Invalidf("the archive has more than %d entries", maxTarEntries)
}

// brokenArchive gives the faults of an archive their kind, and leaves others.
func brokenArchive(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Invalidf("the archive is broken or truncated: %w", err)
	}
	return err
}

// hostRoot is the host's root folder. Its links are the host's own, and may lead anywhere.
var hostRoot = os.DirFS("/")

// fromHost takes a kernel of this host.
func (in *intake) fromHost(ctx context.Context, root fs.FS, release string, report Report) (string, error) {
	if release != "" && !isRelease(release) {
		return "", fault.Invalidf("%q is no kernel's release", printable(release)).At("source")
	}
	return in.fromRoot(ctx, root, release, report)
}

// fromRoot takes the kernel of a root file system with the release, "" for the newest.
func (in *intake) fromRoot(ctx context.Context, root fs.FS, release string, report Report) (string, error) {
	found, err := kernelsOf(root)
	if err != nil {
		return "", err
	}
	chosen := ""
	for name, its := range found {
		if (release == "" || its == release) && (chosen == "" || compareVersions(its, found[chosen]) > 0) {
			chosen = name
		}
	}
	switch {
	case len(found) == 0:
		return "", fault.Missingf("there is no kernel in /boot nor in /lib/modules").Help("install one there, or use the distribution's: strata kernel add debian")
	case chosen == "":
		var all []string
		for _, its := range found {
			all = append(all, its)
		}
		return "", fault.Missingf("there is no kernel %s there", release).Help("there are: %s", strings.Join(all, ", "))
	}
	report.tell("read", "/"+chosen, 0, 0)
	if err := in.takeFile(ctx, root, chosen); err != nil {
		return "", err
	}
	return "/" + chosen, in.takeFolder(ctx, root, found[chosen])
}

// kernelsOf returns the kernels of a root file system and their releases.
func kernelsOf(root fs.FS) (map[string]string, error) {
	found := map[string]string{}
	boot, err := fs.ReadDir(root, bootFolder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(bootFolder, err)
	}
	for _, e := range boot {
		if _, release, ok := strings.Cut(e.Name(), "-"); ok && e.Type().IsRegular() && isImage("", e.Name()) && isRelease(release) {
			found[path.Join(bootFolder, e.Name())] = release
		}
	}
	releases, err := fs.ReadDir(root, modulesFolder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, unreadable(modulesFolder, err)
	}
	for _, e := range releases {
		name := path.Join(modulesFolder, e.Name(), "vmlinuz")
		if info, err := fs.Stat(root, name); err == nil && info.Mode().IsRegular() && isRelease(e.Name()) {
			found[name] = e.Name()
		}
	}
	return found, nil
}

// unreadable gives its kind to what a root file system itself is at fault for.
func unreadable(name string, err error) error {
	return fault.Unablef("/%s cannot be read: %w", printable(name), err).Help("it must be a folder; in a template, links to it must be relative and stay inside")
}

func (in *intake) takeFile(ctx context.Context, root fs.FS, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	return in.take(ctx, name, f)
}

// takeFolder takes the modules of a release; a kernel may have none.
func (in *intake) takeFolder(ctx context.Context, root fs.FS, release string) error {
	top := path.Join(modulesFolder, release)
	if _, err := fs.Stat(root, top); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fs.WalkDir(root, top, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return unreadable(name, err)
		}
		if !e.Type().IsRegular() || !wanted(name) || path.Base(name) == "vmlinuz" || path.Base(name) == "vmlinux" {
			return ctx.Err()
		}
		return in.takeFile(ctx, root, name)
	})
}

// takePackageFile reads a package that was downloaded.
func (in *intake) takePackageFile(ctx context.Context, file string, report Report) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	item := filepath.Base(file)
	return fault.Wrap(in.fromPackage(ctx, &counted{r: f, tell: func(n int64) { report.tell("unpack", item, n, info.Size()) }}), "unpack %s", item)
}

// counted tells how much was read, now and then.
type counted struct {
	r          io.Reader
	tell       func(int64)
	read, told int64
}

// tellEvery is how often progress is told. Unit: bytes.
const tellEvery = unit.MiB

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.read += int64(n); c.read-c.told >= int64(tellEvery) || err == io.EOF && c.told != c.read {
		c.told = c.read
		c.tell(c.read)
	}
	return n, err
}
