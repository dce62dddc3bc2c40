package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/image"
)

// settle makes a kernel of what the intake has: it unpacks the newest image that
// there is, joins its modules, checks that guests can run on it, and puts it in
// its place. A kernel that is there already is returned as it is.
func (s *Store) settle(ctx context.Context, in *intake, r record, report Report) (Kernel, error) {
	found, err := in.newest()
	if err != nil {
		return Kernel{}, err
	}
	out := filepath.Join(in.dir, "kernel")
	if err := os.MkdirAll(filepath.Join(out, modulesDir), 0o755); err != nil {
		return Kernel{}, room(err)
	}
	item := r.Source
	if found.from != "" {
		item = path.Base(found.from)
	}
	report.tell("unpack", item, 0, found.size)
	vmlinux, info, err := unpack(ctx, found, filepath.Join(out, vmlinuxFile))
	if err != nil && found.from != "" {
		return Kernel{}, fault.Wrap(err, "unpack %s", printable(found.from))
	}
	if err != nil {
		return Kernel{}, err
	}
	defer vmlinux.Close()
	t, err := in.of(info.Release)
	if err != nil {
		return Kernel{}, err
	}
	r.Version, r.Release, r.Arch, r.Added = recordVersion, info.Release, info.Arch, time.Now().UTC()
	r.Modules = t.closure()
	if r.BuiltIn, err = t.builtIn(vmlinux); err != nil {
		return Kernel{}, err
	}
	if err := suits(r, t); err != nil {
		return Kernel{}, err
	}
	if r.Vmlinux, r.Size, err = digest(ctx, vmlinux); err != nil {
		return Kernel{}, err
	}
	for _, m := range r.Modules {
		to := filepath.Join(out, modulesDir, m.Name+moduleTail)
		if err := errors.Join(os.Rename(filepath.Join(t.dir, m.Name+moduleTail), to), os.Chmod(to, 0o644), syncPath(to)); err != nil {
			return Kernel{}, room(err)
		}
		r.Size += m.Size
	}
	if r.ID, err = (identity{r.Vmlinux, r.Modules, r.BuiltIn}).id(); err != nil {
		return Kernel{}, err
	}
	report.tell("unpack", item, found.size, found.size)
	return s.keep(r, out)
}

// newest returns the image with the highest version in its name.
func (in *intake) newest() (foundImage, error) {
	if len(in.images) == 0 {
		return foundImage{}, fault.Invalidf("there is no kernel in it").
			Help("one is looked for at boot/vmlinuz-RELEASE and lib/modules/RELEASE/vmlinuz")
	}
	return slices.MaxFunc(in.images, func(a, b foundImage) int { return compareVersions(a.from, b.from) }), nil
}

// of returns the modules of a release: those in the folder of that name, else in
// one whose modules say so; others in it are left out. Where there are only those
// of another release, that is the fault, and not each that is missing. nil: there
// are none at all.
func (in *intake) of(release string) (*tree, error) {
	other := ""
	t := in.trees[release]
	for _, one := range in.trees {
		for _, m := range one.modules {
			if m.release == release && t == nil {
				t = one
			}
			if m.release != release {
				other = m.release
			}
		}
	}
	if t == nil && other != "" {
		return nil, fault.Invalidf("the kernel is %s, and the modules beside it are for %s", release, printable(other)).Help("give the modules of the same build")
	}
	if t == nil {
		return nil, nil
	}
	for name, m := range t.modules {
		if m.release != "" && m.release != release {
			delete(t.modules, name)
			_ = t.leaveOut(name+moduleTail, fault.Invalidf("it is for kernel %s", printable(m.release))) // only notes it
		}
	}
	if len(t.modules) == 0 && other != "" {
		return nil, fault.Invalidf("the kernel is %s, and the modules beside it are for %s", release, printable(other)).Help("give the modules of the same build")
	}
	return t, nil
}

func unpack(ctx context.Context, found foundImage, to string) (*os.File, image.Info, error) {
	in, err := os.Open(found.file)
	if err != nil {
		return nil, image.Info{}, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, image.Info{}, room(err)
	}
	info, err := image.Unpack(ctx, in, found.size, out)
	if err == nil {
		err = errors.Join(out.Chmod(0o644), out.Sync())
	}
	if err != nil {
		return nil, info, errors.Join(room(err), out.Close())
	}
	return out, info, nil
}

func digest(ctx context.Context, f *os.File) (string, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, stoppable{ctx, io.NewSectionReader(f, 0, int64(image.MaxKernel))})
	return idPrefix + hex.EncodeToString(h.Sum(nil)), n, err
}

// suits refuses a kernel on which no guest can run.
func suits(r record, t *tree) error {
	r.Name = r.Release // it has none yet
	_, err := r.kernel("").Set(Guest)
	if err != nil && t != nil && t.wrong != "" {
		all := fault.All(err)
		all[0].Hint = strings.TrimSpace(fmt.Sprintf("a module was left out, %s. %s", t.wrong, all[0].Hint))
		return all[0]
	}
	return err
}

// keep puts a finished kernel in its place, with a name.
func (s *Store) keep(r record, from string) (Kernel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.kernels[r.ID]; have != nil {
		if r.Name != "" && r.Name != have.Name {
			return Kernel{}, fault.Conflictf("this kernel is here already, as %s", have.Name).At("name").Help("use it by that name, or remove it first")
		}
		if _, err := os.Stat(have.Vmlinux()); err == nil {
			return view(have, s.fallback()), nil
		}
		r.Name = have.Name // damaged: what came now takes its place
	}
	if err := s.christen(&r); err != nil {
		return Kernel{}, err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return Kernel{}, err
	}
	if err := writeFile(filepath.Join(from, recordFile), data); err != nil {
		return Kernel{}, err
	}
	to := s.folder(r.ID)
	if err := os.RemoveAll(to); err != nil { // of a record that could not be read
		return Kernel{}, err
	}
	for _, dir := range []string{from, filepath.Join(from, modulesDir)} {
		if err := errors.Join(os.Chmod(dir, 0o755), syncPath(dir)); err != nil {
			return Kernel{}, err
		}
	}
	if err := errors.Join(os.Rename(from, to), syncPath(s.dir)); err != nil {
		return Kernel{}, room(err)
	}
	k := r.kernel(to)
	s.kernels[r.ID] = k
	if s.kernels[s.chosen] == nil { // the first one is the default until another is chosen
		if err := s.choose(k.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the default kernel is not written down", "error", err)
		}
	}
	return view(k, s.fallback()), nil
}

// christen gives a name to a kernel without one: its release, and a part of its id
// where another build of the same release has that. Under mu.
func (s *Store) christen(r *record) error {
	taken := func(name string) bool {
		for id, k := range s.kernels {
			if k.Name == name && id != r.ID {
				return true
			}
		}
		return false
	}
	if r.Name != "" {
		if taken(r.Name) {
			return fault.Conflictf("there is a kernel %s already", r.Name).At("name").Help("choose another name, or remove that one: strata kernel rm %s", r.Name)
		}
		return nil
	}
	r.Name = r.Release
	if taken(r.Name) {
		r.Name += "-" + short(r.ID)[:6]
	}
	return checkName(r.Name)
}

// compareVersions compares texts with numbers in them as people do: 6.10 is after 6.9.
func compareVersions(a, b string) int {
	number := func(s string) (digits, rest string) {
		i := 0
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return strings.TrimLeft(s[:i], "0"), s[i:]
	}
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			var x, y string
			x, a = number(a)
			y, b = number(b)
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
