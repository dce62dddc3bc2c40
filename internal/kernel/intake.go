package kernel

import (
	"bytes"
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
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/image"
	"github.com/strata-project/strata/internal/kernel/modinfo"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of what one kernel may come with. Debian's full kernel has 4000 modules
// and 400 MiB, the largest of them 20 MiB.
const (
	maxModules     = 20_000
	maxModule      = 128 * unit.MiB
	maxModuleBytes = 4 * unit.GiB
	maxBuiltinList = 4 * unit.MiB
	maxImages      = 16
)

// intake sorts the files of a source: kernels, and modules by the release that
// they are for. Everything goes below a folder of its own under a name that is
// made here, since the names of a source are hostile.
type intake struct {
	dir     string
	images  []foundImage
	trees   map[string]*tree // by the name of their folder, which is a release or what somebody called it
	modules int
	bytes   int64
}

// foundImage is a kernel as it was shipped.
type foundImage struct {
	file string // in the intake's folder
	from string // path in the source; "": it is the source
	size int64
}

// tree is what /lib/modules/RELEASE holds.
type tree struct {
	dir     string
	modules map[string]module
	wrong   string   // why a module was left out, of the first
	builtin []string // nil: there was no list
}

func (s *Store) intake() (*intake, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, workDir), "add-")
	if err != nil {
		return nil, room(err)
	}
	return &intake{dir: dir, trees: map[string]*tree{}}, nil
}

func (in *intake) close() { _ = os.RemoveAll(in.dir) } // what stays goes at the next start

// Where kernels and modules are. Source: file-hierarchy(7), and where
// distributions put them: Debian in /boot, Fedora and Arch beside the modules.
const (
	bootFolder    = "boot"
	modulesFolder = "lib/modules"
)

// place splits a path of a source: release is set below /lib/modules/RELEASE, and
// rest is the path in there or in /boot.
func place(name string) (release, rest string, ok bool) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	name = strings.TrimPrefix(name, "usr/")
	if rest, ok = strings.CutPrefix(name, bootFolder+"/"); ok {
		return "", rest, rest != ""
	}
	if rest, ok = strings.CutPrefix(name, modulesFolder+"/"); !ok {
		return "", "", false
	}
	release, rest, ok = strings.Cut(rest, "/")
	return release, rest, ok && isRelease(release) && rest != ""
}

// isRelease tells whether a word can be a kernel's release, and is safe as a file's name.
func isRelease(s string) bool { return namePattern.MatchString(s) }

// wanted tells whether take would look at a file of that path.
func wanted(name string) bool {
	release, rest, ok := place(name)
	switch {
	case !ok:
		return false
	case isImage(release, rest):
		return true
	}
	return release != "" && (rest == "modules.builtin" || modinfo.Name(rest) != "" && !strings.HasPrefix(rest, "build/") && !strings.HasPrefix(rest, "source/"))
}

func isImage(release, rest string) bool {
	if release != "" {
		return rest == "vmlinuz" || rest == "vmlinux"
	}
	return !strings.Contains(rest, "/") && (strings.HasPrefix(rest, "vmlinuz") || strings.HasPrefix(rest, "vmlinux") || rest == "Image" || strings.HasPrefix(rest, "Image-")) && !strings.HasSuffix(rest, ".old")
}

// take sorts one file of a source in; others than kernels and modules are left
// unread. Kinds: Invalid.
func (in *intake) take(ctx context.Context, name string, r io.Reader) error {
	if !wanted(name) {
		return nil
	}
	release, rest, _ := place(name)
	r = stoppable{ctx, r}
	switch {
	case isImage(release, rest):
		return in.takeImage(name, r)
	case rest == "modules.builtin":
		return in.takeBuiltin(release, r)
	}
	return in.takeModule(release, rest, r)
}

func (in *intake) takeImage(name string, r io.Reader) error {
	if len(in.images) >= maxImages {
		return fault.Invalidf("there are more than %d kernels in it", maxImages)
	}
	found := foundImage{file: filepath.Join(in.dir, fmt.Sprintf("image-%d", len(in.images))), from: name}
	f, err := os.OpenFile(found.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return room(err)
	}
	found.size, err = io.Copy(f, io.LimitReader(r, int64(image.MaxPacked)+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return room(err)
	}
	in.images = append(in.images, found)
	return nil
}

func (in *intake) tree(release string) (*tree, error) {
	if t := in.trees[release]; t != nil {
		return t, nil
	}
	if len(in.trees) >= maxImages {
		return nil, fault.Invalidf("there are modules of more than %d kernels in it", maxImages)
	}
	t := &tree{dir: filepath.Join(in.dir, fmt.Sprintf("modules-%d", len(in.trees))), modules: map[string]module{}}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, room(err)
	}
	in.trees[release] = t
	return t, nil
}

func (in *intake) takeBuiltin(release string, r io.Reader) error {
	t, err := in.tree(release)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(maxBuiltinList)))
	if err != nil {
		return err
	}
	t.builtin = []string{}
	for line := range strings.Lines(string(text)) {
		if name := modinfo.Name(strings.TrimSpace(line)); name != "" {
			t.builtin = append(t.builtin, name)
		}
	}
	return nil
}

// takeModule decompresses a module, and keeps it without its signature. A module
// that is broken is left out: whether it matters is seen when it is needed.
func (in *intake) takeModule(release, rest string, r io.Reader) error {
	t, err := in.tree(release)
	if err != nil {
		return err
	}
	if in.modules++; in.modules > maxModules {
		return fault.Invalidf("there are more than %d modules in it", maxModules)
	}
	plain, _, err := inflate.Reader(r)
	if err != nil {
		return t.leaveOut(rest, err)
	}
	defer plain.Close()
	data, err := io.ReadAll(io.LimitReader(plain, int64(maxModule)+1))
	if err != nil {
		return t.leaveOut(rest, err)
	}
	if in.bytes += int64(len(data)); in.bytes > int64(maxModuleBytes) {
		return fault.Invalidf("its modules have more than %s", unit.Size(maxModuleBytes))
	}
	if int64(len(data)) > int64(maxModule) {
		return t.leaveOut(rest, fault.Invalidf("it has more than %s", unit.Size(maxModule)))
	}
	info, err := modinfo.Read(bytes.NewReader(data))
	switch {
	case err != nil:
		return t.leaveOut(rest, err)
	case info.Machine != image.Machine():
		return t.leaveOut(rest, fault.Invalidf("it is for %s", image.ArchOf(info.Machine)))
	}
	if info.Name == "" {
		info.Name = modinfo.Name(rest)
	}
	if _, double := t.modules[info.Name]; double {
		return nil // such as one of updates/: the first stays, whatever the order
	}
	data = modinfo.Unsigned(data)
	sum := sha256.Sum256(data)
	t.modules[info.Name] = module{
		Name: info.Name, Size: int64(len(data)), Digest: idPrefix + hex.EncodeToString(sum[:]),
		Depends: info.Depends, Before: info.Before, Aliases: info.Aliases, release: info.Release,
	}
	return room(os.WriteFile(filepath.Join(t.dir, info.Name+moduleTail), data, 0o644))
}

// leaveOut notes why a module is not there; a failure of the source or of the
// host is returned.
func (t *tree) leaveOut(name string, err error) error {
	if !fault.Is(err, fault.Invalid) {
		return err
	}
	if t.wrong == "" {
		t.wrong = printable(path.Base(name)) + ": " + err.Error()
	}
	return nil
}

// identity is what a kernel's id is the digest of.
type identity struct {
	Vmlinux string   `json:"vmlinux"`
	Modules []module `json:"modules"`
	BuiltIn builtin  `json:"built_in"`
}

func (i identity) id() (string, error) {
	data, err := json.Marshal(i)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return idPrefix + hex.EncodeToString(sum[:]), nil
}

// closure returns what is kept of a tree, by name: all that a guest or a machine
// may want, and what that depends on.
func (t *tree) closure() []module {
	if t == nil {
		return nil
	}
	k := Kernel{index: t.modules}
	chosen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		m, ok := t.modules[name]
		if !ok || chosen[name] {
			return
		}
		chosen[name] = true
		for _, other := range m.Depends {
			visit(other)
		}
		for _, other := range m.Before {
			visit(k.named(other))
		}
	}
	for _, name := range slices.Concat(Guest.names(), Machine.names(), kept) {
		visit(name)
	}
	var all []module
	for name := range chosen {
		all = append(all, t.modules[name])
	}
	slices.SortFunc(all, func(a, b module) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// driverText is how a driver's name stands in a kernel that has it built in,
// where that is not its module's.
var driverText = map[string]string{"virtio_mmio": "virtio-mmio"}

// builtIn is what needs no module, guessed where there is no list.
func (t *tree) builtIn(vmlinux *os.File) (builtin, error) {
	if t != nil && t.builtin != nil {
		names := slices.Clone(t.builtin)
		slices.Sort(names)
		return builtin{Names: slices.Compact(names)}, nil
	}
	text := map[string]string{} // to name
	var words []string
	for _, name := range slices.Concat(Guest.names(), Machine.names()) {
		word := name
		if driverText[name] != "" {
			word = driverText[name]
		}
		text[word] = name
		words = append(words, word)
	}
	info, err := vmlinux.Stat()
	if err != nil {
		return builtin{}, err
	}
	found, err := image.Mentions(io.NewSectionReader(vmlinux, 0, info.Size()), words)
	if err != nil {
		return builtin{}, err
	}
	b := builtin{Guessed: true}
	for word := range found {
		b.Names = append(b.Names, text[word])
	}
	slices.Sort(b.Names)
	return b, nil
}
