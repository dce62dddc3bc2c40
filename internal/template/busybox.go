package template

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-project/strata/internal/fault"
)

const (
	busyboxName = "busybox:latest"
	// busyboxLabel holds the digest of the binary and the version of the recipe.
	busyboxLabel = "strata.busybox"
	// busyboxRecipe changes with what Busybox puts around the binary.
	busyboxRecipe = "1"
	busyboxSource = "built in, from "
	// maxBusybox bounds what is read as a busybox. Unit: bytes. Debian's has 2 MB.
	maxBusybox = 64 << 20
	// busyboxPatience bounds the listing of its applets.
	busyboxPatience = 10 * time.Second
)

// busyboxPaths are where distributions put busybox. Debian's busybox-static and
// busybox packages share the first: only a static one is taken.
var busyboxPaths = []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/lib/busybox/bin/busybox"}

// Busybox returns the built-in template busybox, made from the host's static
// busybox the first time and again when that changed. Where busybox:latest is a
// template from elsewhere, that one is returned. Kinds: Unable where the host has
// no static busybox.
func (s *Store) Busybox(ctx context.Context) (Template, error) {
	unlock, err := s.work.Lock(ctx, busyboxName)
	if err != nil {
		return Template{}, err
	}
	defer unlock()
	have, haveErr := s.Get(busyboxName)
	if haveErr == nil && have.Config.Labels[busyboxLabel] == "" {
		return have, nil
	}
	from, data, err := findBusybox()
	if err != nil {
		if haveErr == nil {
			return have, nil // what was made of an earlier one still works
		}
		return Template{}, err
	}
	label := busyboxRecipe + "." + digestOf(data)
	if haveErr == nil && have.Config.Labels[busyboxLabel] == label {
		return have, nil
	}
	applets, err := busyboxApplets(ctx, from)
	if err != nil {
		return Template{}, err
	}
	rootfs, err := busyboxTar(data, applets)
	if err != nil {
		return Template{}, err
	}
	w, err := s.begin()
	if err != nil {
		return Template{}, err
	}
	defer w.end()
	config := v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{
			Cmd:    []string{"sh"},
			Env:    []string{defaultPath},
			Labels: map[string]string{busyboxLabel: label, KindLabel: KindApp},
		},
	}
	t, err := w.fromTar(ctx, rootfs, config, nil, []string{busyboxName}, busyboxSource+from)
	if err == nil && haveErr == nil && have.ID != t.ID {
		s.log.Debug("busybox was rebuilt", "before", have.ID, "now", t.ID)
	}
	return t, fault.Wrap(err, "make the template busybox")
}

// defaultPath is what programs get where their image says nothing.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// findBusybox returns the host's static busybox.
func findBusybox() (string, []byte, error) {
	dynamic := ""
	for _, p := range busyboxPaths {
		info, err := os.Stat(p)
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxBusybox {
			continue
		}
		data, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if isStatic(data) {
			return p, data, nil
		}
		dynamic = p
	}
	e := fault.Unablef("there is no static busybox on this host").Help("install it: apt install busybox-static")
	if dynamic != "" {
		e = fault.Unablef("%s is not static, so it cannot stand alone in a template", dynamic).Help("install the static one: apt install busybox-static")
	}
	return "", nil, e
}

// isStatic tells whether data is an ELF program that asks for no loader.
func isStatic(data []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// busyboxApplets asks the binary for its applets' paths, such as "usr/bin/awk".
func busyboxApplets(ctx context.Context, binary string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, busyboxPatience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--list-full").Output()
	if err != nil {
		return nil, fault.Unablef("%s cannot list its applets: %w", binary, err)
	}
	var applets []string
	for line := range strings.Lines(string(out)) {
		p := path.Clean(strings.TrimSpace(line))
		switch path.Dir(p) {
		case "bin", "sbin", "usr/bin", "usr/sbin":
			if p != "bin/busybox" {
				applets = append(applets, p)
			}
		}
	}
	slices.Sort(applets)
	return slices.Compact(applets), nil
}

// The accounts of the template: those that programs commonly look for.
const (
	busyboxPasswd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
	busyboxGroup  = "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\ndisk:x:6:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"
	busyboxShadow = "root:*:::::::\ndaemon:*:::::::\nbin:*:::::::\nwww-data:*:::::::\nnobody:*:::::::\n"
	busyboxNSS    = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
	busyboxShell  = "/bin/sh\n/bin/ash\n"
)

// busyboxTar makes the root folder, the same bytes for the same binary.
func busyboxTar(binary []byte, applets []string) (*bytes.Buffer, error) {
	out := new(bytes.Buffer)
	w := tar.NewWriter(out)
	var failed error
	put := func(h tar.Header, data string) {
		h.ModTime, h.Format, h.Size = time.Unix(0, 0), tar.FormatPAX, int64(len(data))
		if err := w.WriteHeader(&h); err != nil && failed == nil {
			failed = err
		}
		if _, err := w.Write([]byte(data)); err != nil && failed == nil {
			failed = err
		}
	}
	for _, d := range []string{"./", "bin/", "sbin/", "usr/", "usr/bin/", "usr/sbin/", "usr/lib/", "usr/local/", "usr/local/bin/", "etc/", "proc/", "sys/", "dev/", "run/", "home/", "mnt/", "opt/", "srv/", "var/", "var/log/", "var/www/", "var/spool/", "lib/"} {
		put(tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}, "")
	}
	put(tar.Header{Typeflag: tar.TypeDir, Name: "root/", Mode: 0o700}, "")
	put(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, "")
	put(tar.Header{Typeflag: tar.TypeDir, Name: "var/tmp/", Mode: 0o1777}, "")
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "var/run", Linkname: "../run", Mode: 0o777}, "")
	for _, f := range []struct {
		name, data string
		mode       int64
	}{{"passwd", busyboxPasswd, 0o644}, {"group", busyboxGroup, 0o644}, {"shadow", busyboxShadow, 0o600}, {"nsswitch.conf", busyboxNSS, 0o644}, {"shells", busyboxShell, 0o644}} {
		put(tar.Header{Typeflag: tar.TypeReg, Name: "etc/" + f.name, Mode: f.mode}, f.data)
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(binary))
	for _, a := range applets {
		put(tar.Header{Typeflag: tar.TypeLink, Name: a, Linkname: "bin/busybox", Mode: 0o755}, "")
	}
	if err := w.Close(); err != nil && failed == nil {
		failed = err
	}
	return out, failed
}
