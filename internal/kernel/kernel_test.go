package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/image"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
	"github.com/strata-project/strata/internal/kernel/modinfo"
	"github.com/strata-project/strata/internal/require"
)

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func vmlinux(words ...string) []byte {
	return synth.Vmlinux(image.Machine(), synth.Release, synth.PVH(), words...)
}

// monolith is a kernel that has everything built in.
func monolith() []byte {
	words := slices.Clone(Guest.Required)
	words[slices.Index(words, "virtio_mmio")] = "virtio-mmio"
	return vmlinux(words...)
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func xzed(t testing.TB, data []byte) []byte {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "xz"), "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// module is a plain one for the tests' kernel.
func plain(name string, depends ...string) []byte {
	return synth.Plain(image.Machine(), name, depends...)
}

const (
	boot      = "boot/vmlinuz-" + synth.Release
	modulesOf = "lib/modules/" + synth.Release
)

// distribution are the files of a kernel as distributions have it.
func distribution(t testing.TB) []synth.File {
	ko := modulesOf + "/kernel/"
	signed := func(name string, depends ...string) []byte { return synth.Signed(plain(name, depends...), 256) }
	wish := synth.Module(image.Machine(), "name=libcrc32c", "depends=", "softdep=pre: crc32c", "vermagic="+synth.Release+" SMP")
	generic := synth.Module(image.Machine(), "name=crc32c_generic", "depends=", "alias=crc32c", "vermagic="+synth.Release+" SMP")
	intel := synth.Module(image.Machine(), "name=crc32c_intel", "depends=", "alias=crc32c", "vermagic="+synth.Release+" SMP")
	return []synth.File{
		{Path: "boot/config-" + synth.Release, Data: []byte("CONFIG_X=y\n")},
		{Path: boot, Data: synth.BzImage(zipped(vmlinux()), synth.Release)},
		{Path: ko + "drivers/virtio/virtio_ring.ko", Data: plain("virtio_ring")},
		{Path: ko + "drivers/virtio/virtio.ko.xz", Data: xzed(t, signed("virtio", "virtio_ring"))},
		{Path: ko + "drivers/virtio/virtio_mmio.ko.zst", Data: zstded(t, plain("virtio_mmio", "virtio", "virtio_ring"))},
		{Path: ko + "drivers/char/virtio_console.ko.gz", Data: zipped(signed("virtio_console", "virtio", "virtio_ring"))},
		{Path: ko + "drivers/block/virtio_blk.ko", Data: signed("virtio_blk", "virtio", "virtio_ring")},
		{Path: ko + "net/failover.ko", Data: plain("failover")},
		{Path: ko + "drivers/net/virtio_net.ko", Data: plain("virtio_net", "virtio", "virtio_ring", "failover")},
		{Path: ko + "drivers/char/virtio-rng.ko", Data: plain("virtio_rng", "virtio", "rng-core")},
		{Path: ko + "fs/overlay.ko", Data: plain("overlay")},
		{Path: ko + "lib/libcrc32c.ko", Data: wish},
		{Path: ko + "crypto/crc32c_generic.ko", Data: generic},
		{Path: ko + "crypto/crc32c-intel.ko", Data: intel},
		{Path: ko + "fs/erofs.ko", Data: plain("erofs", "libcrc32c")},
		{Path: ko + "fs/virtiofs.ko", Data: plain("virtiofs", "fuse")}, // and no fuse
		{Path: ko + "drivers/usb/printer.ko", Data: plain("printer")},
		{Path: modulesOf + "/modules.builtin", Data: []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/char/rng-core.ko\nkernel/fs/jbd2/jbd2.ko\n")},
		{Path: modulesOf + "/build", Link: "/usr/src/linux"},
	}
}

func without(files []synth.File, part string) []synth.File {
	return slices.DeleteFunc(slices.Clone(files), func(f synth.File) bool { return strings.Contains(f.Path, part) })
}

func importing(t testing.TB, s *Store, data []byte, name string) (Kernel, error) {
	t.Helper()
	k, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{Name: name, Source: "test"}, nil)
	if left, _ := os.ReadDir(filepath.Join(s.dir, workDir)); len(left) != 0 {
		t.Errorf("left in the work folder: %v", left)
	}
	return k, err
}

func names(s Set) string {
	var all []string
	for _, m := range s.Modules {
		all = append(all, m.Name)
	}
	return strings.Join(all, " ")
}

func TestAKernelComesInManyFormsAndIsAlwaysTheSame(t *testing.T) {
	files := distribution(t)
	tarball := synth.Tar(files...)
	dotted := slices.Clone(files)
	for i := range dotted {
		dotted[i].Path = "./usr/" + strings.TrimPrefix(dotted[i].Path, "usr/")
	}
	dotted = append(without(dotted, "boot/vmlinuz"), synth.File{Path: "./boot/vmlinuz-" + synth.Release, Data: files[1].Data})
	named := slices.Clone(files)
	for i := range named {
		named[i].Path = strings.Replace(named[i].Path, modulesOf, "lib/modules/mine", 1)
	}
	holes := slices.Clone(files)
	for i := range holes {
		holes[i].Sparse = holes[i].Link == ""
	}
	id := ""
	for _, c := range []struct {
		sentence string
		data     []byte
	}{
		{"a tar", tarball},
		{"a tar with ./usr before the modules", synth.Tar(dotted...)},
		{"a tar of files with holes", synth.Tar(holes...)},
		{"a tar of gzip", zipped(tarball)},
		{"a tar of xz", xzed(t, tarball)},
		{"a package with a tar of xz", synth.Package("data.tar.xz", xzed(t, tarball))},
		{"a package with a tar of zstd", synth.Package("data.tar.zst", zstded(t, tarball))},
		{"a package with a tar that is not compressed", synth.Package("data.tar/", tarball)},
		{"a tar with the modules in a folder of any name", synth.Tar(named...)},
		{"a tar with modules of another kernel besides", synth.Tar(append(files, synth.File{Path: "lib/modules/5.0/kernel/x.ko", Data: plain("x")})...)},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			k, err := importing(t, open(t), c.data, "")
			if err != nil {
				t.Fatal(err)
			}
			if id == "" {
				id = k.ID
			}
			if k.ID != id || k.Name != synth.Release || k.Release != synth.Release || !k.Default || k.Source != "test" || k.Modules != 13 {
				t.Errorf("kernel is %s, %s with %d modules, want %s", k.ID, k.Name, k.Modules, id)
			}
			got, err := os.ReadFile(k.Vmlinux())
			if err != nil || !bytes.Equal(got, vmlinux()) {
				t.Errorf("its file is not what was packed, %v", err)
			}
			set, err := k.Set(Guest)
			if want := "crc32c_generic virtio_ring virtio virtio_mmio virtio_console virtio_blk failover virtio_net overlay libcrc32c erofs virtio_rng"; err != nil || names(set) != want {
				t.Errorf("modules are\n%s, want\n%s, %v", names(set), want, err)
			}
			if !slices.Equal(set.BuiltIn, []string{"ext4"}) || !slices.Contains(set.Absent, "virtiofs") || !set.Has("ext4") || !set.Has("erofs") || set.Has("fuse") {
				t.Errorf("built in: %v, absent: %v", set.BuiltIn, set.Absent)
			}
			for _, m := range set.Modules {
				if m.Later != (m.Name == "virtio_rng") {
					t.Errorf("%s: loaded later: %v", m.Name, m.Later)
				}
				data, err := os.ReadFile(m.Path)
				if err != nil || int64(len(data)) != m.Size || bytes.Contains(data, []byte("signature appended")) {
					t.Errorf("%s: %d bytes, %v", m.Name, len(data), err)
				}
			}
		})
	}
}

func TestEveryoneMayReadAKernelAndNobodyElseWrite(t *testing.T) {
	s := open(t)
	k, err := importing(t, s, synth.Tar(distribution(t)...), "")
	if err != nil {
		t.Fatal(err)
	}
	set, err := k.Set(Guest)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Initramfs(t.Context(), k, self, set); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o644)
		if e.IsDir() {
			want = 0o755
		}
		if e.Name() == workDir {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAKernelWithEverythingBuiltInNeedsNoModules(t *testing.T) {
	for sentence, data := range map[string][]byte{"a bzImage": synth.BzImage(zipped(monolith()), synth.Release), "a vmlinux": monolith(), "a vmlinux of gzip": zipped(monolith())} {
		k, err := importing(t, open(t), data, "mine")
		if err != nil {
			t.Fatalf("%s: %v", sentence, err)
		}
		set, err := k.Set(Guest)
		if err != nil || len(set.Modules) != 0 || len(set.BuiltIn) != len(Guest.Required) || k.Name != "mine" {
			t.Errorf("%s: %+v, %v", sentence, set, err)
		}
	}
}

func TestWhatGuestsCannotRunOnIsRefused(t *testing.T) {
	files := distribution(t)
	moved := slices.Clone(files)
	for i := range moved {
		moved[i].Path = strings.Replace(moved[i].Path, modulesOf, "lib/modules/5.0.0", 1)
		if strings.HasSuffix(moved[i].Path, ".ko") {
			moved[i].Data = synth.Module(image.Machine(), "name=x", "vermagic=5.0.0 SMP")
		} else if modinfo.Name(moved[i].Path) != "" {
			moved[i].Data = nil
		}
	}
	changed := func(part string, data []byte) []byte {
		out := slices.Clone(files)
		for i := range out {
			if strings.Contains(out[i].Path, part) {
				out[i].Data = data
			}
		}
		return synth.Tar(out...)
	}
	otherRelease := synth.Module(image.Machine(), "name=virtio_blk", "vermagic=5.0.0 SMP")
	tarball := synth.Tar(files...)
	for sentence, c := range map[string]struct {
		data []byte
		kind fault.Kind
		want string
		hint string
	}{
		"a module is missing":              {synth.Tar(without(files, "virtio_blk")...), fault.Unable, "has no virtio_blk, neither as a module nor built in", "strata kernel add debian"},
		"a dependency is missing":          {synth.Tar(without(files, "virtio_ring")...), fault.Unable, "needs virtio_ring, which is missing", ""},
		"modules depend in a circle":       {changed("/virtio_ring.ko", plain("virtio_ring", "virtio_mmio")), fault.Unable, "depend on one another", ""},
		"a module is for another kernel":   {changed("/virtio_blk.ko", otherRelease), fault.Unable, "has no virtio_blk", "it is for kernel 5.0.0"},
		"a module is no module":            {changed("/virtio_blk.ko", []byte("text")), fault.Unable, "has no virtio_blk", "virtio_blk.ko"},
		"a module's compression is broken": {changed("/virtio.ko.xz", xzed(t, []byte("x"))[:20]), fault.Unable, "needs virtio, which is missing", "virtio.ko.xz"},
		"a kernel without its modules":     {synth.BzImage(zipped(vmlinux()), synth.Release), fault.Unable, "has no virtio_mmio", "--modules"},
		"modules of another kernel":        {synth.Tar(moved...), fault.Invalid, "the modules beside it are for 5.0.0", ""},
		"no kernel":                        {synth.Tar(without(files, "boot/")...), fault.Invalid, "there is no kernel in it", ""},
		"nothing":                          {nil, fault.Invalid, "empty", ""},
		"text":                             {[]byte(strings.Repeat("hello ", 100)), fault.Invalid, "no kernel", "bzImage"},
		"half a tar":                       {tarball[:len(tarball)/2&^511+100], fault.Invalid, "truncated", ""},
		"half a package":                   {synth.Package("data.tar", tarball)[:len(tarball)/2], fault.Invalid, "truncated", ""},
		"half a compressed package":        {synth.Package("data.tar.xz", xzed(t, tarball))[:1500], fault.Invalid, "", ""},
		"a package without files":          {synth.Package("other.tar", tarball), fault.Invalid, "no data.tar", ""},
		"a package with a broken member":   {append([]byte("!<arch>\n"), make([]byte, 60)...), fault.Invalid, "malformed member", ""},
		"an archive with a huge member":    {append([]byte("!<arch>\n"), "data.tar        0           0     0     100644  -999999999`\n"...), fault.Invalid, "malformed member", ""},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := open(t)
			_, err := importing(t, s, c.data, "")
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v (%s), want %s: %s", err, fault.KindOf(err), c.kind, c.want)
			}
			if hint := fault.All(err)[0].Hint; !strings.Contains(hint, c.hint) {
				t.Errorf("hint is %q, want %q", hint, c.hint)
			}
			if len(s.List()) != 0 {
				t.Error("it was kept")
			}
		})
	}
}

// needing is a kernel whose modules have these dependencies, and after a slash wishes.
func needing(modules map[string]string) Kernel {
	k := Kernel{index: map[string]module{}}
	for name, words := range modules {
		depends, before, _ := strings.Cut(words, "/")
		k.index[name] = module{Name: name, Depends: strings.Fields(depends), Before: strings.Fields(before)}
	}
	return k
}

func TestAWishIsHeededWhereItCanBe(t *testing.T) {
	for sentence, c := range map[string]struct {
		modules map[string]string
		want    string // of a and z, in this order
	}{
		"a wish comes before":                            {map[string]string{"a": "d / w", "d": "", "w": "d", "z": ""}, "d w a z"},
		"a wish that lacks something leaves nothing":     {map[string]string{"a": "/ w", "w": "x none", "x": "", "z": ""}, "a z"},
		"what such a wish had is there for who needs it": {map[string]string{"a": "/ w", "w": "x none", "x": "y", "y": "", "z": "x"}, "a y x z"},
		"a wish that needs who wishes comes after it":    {map[string]string{"a": "/ w", "w": "a", "z": "w"}, "a w z"},
		"the same where both are needed at once":         {map[string]string{"b": "/ w", "w": "b", "a": "b w", "z": ""}, "b w a z"},
		"two that wish for one another":                  {map[string]string{"a": "/ z", "z": "/ a"}, "z a"},
	} {
		set, err := needing(c.modules).Set(Wanted{Required: []string{"a", "z"}})
		if err != nil || names(set) != c.want {
			t.Errorf("%s: %q, %v, want %q", sentence, names(set), err, c.want)
		}
	}
}

func TestModulesThatWishForWhatFailsTakeNoTime(t *testing.T) {
	for sentence, lacks := range map[string]func(level int) string{
		"for want of a module": func(int) string { return "none" },
		"in a circle":          func(level int) string { return fmt.Sprint("x", max(level-1, 0)) },
	} {
		modules := map[string]string{"a": "/ f0 g0"}
		for level := range 40 {
			needs := fmt.Sprintf("x%d %s", level, lacks(level))
			modules[fmt.Sprint("f", level)], modules[fmt.Sprint("g", level)] = needs, needs
			modules[fmt.Sprint("x", level)] = fmt.Sprintf("/ f%d g%d", level+1, level+1)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			if set, err := needing(modules).Set(Wanted{Required: []string{"a"}}); err != nil || !set.Has("a") {
				t.Errorf("%s: %q, %v", sentence, names(set), err)
			}
		}()
		select {
		case <-over:
		case <-time.After(require.Patience(20 * time.Second)):
			t.Fatalf("%s: it goes on", sentence)
		}
	}
}

func TestPathsOfAnArchiveLeadNowhere(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "store"), nil)
	if err != nil {
		t.Fatal(err)
	}
	evil := plain("../../../../evil")
	files := append(distribution(t),
		synth.File{Path: "../../boot/vmlinuz-" + synth.Release, Data: []byte("x")},
		synth.File{Path: modulesOf + "/kernel/../../../../../evil.ko", Data: plain("evil")},
		synth.File{Path: modulesOf + "/kernel/evil/evil.ko", Data: evil},
		synth.File{Path: "lib/modules/../kernel/evil.ko", Data: plain("evil")},
		synth.File{Path: "lib/modules/..evil/kernel/evil.ko", Data: plain("evil")},
		synth.File{Path: modulesOf + "/kernel/drivers/block/virtio_blk.ko", Link: "/etc/passwd"},
	)
	// A path above the archive's root is one below it: that second kernel is older.
	if _, err := importing(t, s, synth.Tar(files...), ""); err == nil {
		t.Log("the kernel at ../../boot was not preferred")
	}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if strings.Contains(e.Name(), "evil") {
			t.Errorf("there is %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFailuresOfTheSourceAreNotTheKernels(t *testing.T) {
	s := open(t)
	tarball := synth.Tar(distribution(t)...)
	gone := errors.New("the line went dead")
	_, err := s.Import(t.Context(), io.MultiReader(bytes.NewReader(tarball[:len(tarball)/2]), iotest.ErrReader(gone)), ImportOptions{}, nil)
	if !errors.Is(err, gone) {
		t.Errorf("error is %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Import(ended, bytes.NewReader(tarball), ImportOptions{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestATemplateWhoseFoldersLeadOutHasNoKernel(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"boot is a link out":    func(dir string) error { return os.Symlink("/boot", filepath.Join(dir, "boot")) },
		"boot is a file":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "boot"), nil, 0o644) },
		"modules is a link out": func(dir string) error { return os.Symlink("../../..", filepath.Join(dir, "lib/modules")) },
		"a release is a link out": func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "boot"), 0o755), os.Mkdir(filepath.Join(dir, "lib/modules"), 0o755),
				os.WriteFile(filepath.Join(dir, boot), synth.BzImage(zipped(monolith()), synth.Release), 0o644),
				os.Symlink("/", filepath.Join(dir, modulesOf)))
		},
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "lib"), 0o755), spoil(dir)); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, err = open(t).Add(t.Context(), AddOptions{Source: "template:x", Root: root.FS()}, nil)
		if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKernelsOfARootFileSystem(t *testing.T) {
	root := fstest.MapFS{"etc/passwd": {Data: []byte("root\n")}}
	for _, f := range distribution(t) {
		if f.Link == "" {
			root[f.Path] = &fstest.MapFile{Data: f.Data}
		}
	}
	root["boot/vmlinuz-6.1.0-10-test"] = &fstest.MapFile{Data: synth.BzImage(zipped(monolith()), synth.Release)}
	add := func(root fstest.MapFS, source string) (Kernel, error) {
		return open(t).Add(t.Context(), AddOptions{Source: source, Root: root}, nil)
	}
	if k, err := add(root, "template:x"); err != nil || k.Origin != "/boot/vmlinuz-6.1.0-10-test" || k.Modules != 0 || k.Source != "template:x" {
		t.Errorf("of two, the newest: %+v, %v", k, err)
	}
	hostRoot = root
	t.Cleanup(func() { hostRoot = os.DirFS("/") })
	if k, err := add(nil, "host:"+synth.Release); err != nil || k.Origin != "/"+boot || k.Modules == 0 {
		t.Errorf("of two, the one that is named: %+v, %v", k, err)
	}
	delete(root, "boot/vmlinuz-6.1.0-10-test")
	root[modulesOf+"/vmlinuz"], root[boot] = root[boot], nil
	delete(root, boot)
	if k, err := add(nil, "host"); err != nil || k.Origin != "/"+modulesOf+"/vmlinuz" || k.Modules == 0 {
		t.Errorf("one beside its modules: %+v, %v", k, err)
	}
	for source, want := range map[string]struct {
		kind fault.Kind
		text string
	}{
		"host:9.9": {fault.Missing, "no kernel 9.9"}, "host:../x": {fault.Invalid, "no kernel's release"}, "host:": {fault.Invalid, "after the colon"}, "template:x": {fault.Invalid, "without the template"}, "attic": {fault.Invalid, "no source of kernels"},
		"debian:-oops": {fault.Invalid, "no package's name"}, "debian:../x": {fault.Invalid, "no package's name"},
	} {
		_, err := open(t).Add(t.Context(), AddOptions{Source: source}, nil)
		if !fault.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v", source, err)
		}
	}
	hostRoot = fstest.MapFS{}
	if _, err := open(t).Add(t.Context(), AddOptions{Source: "host"}, nil); !fault.Is(err, fault.Missing) || !strings.Contains(err.Error(), "no kernel in /boot") {
		t.Errorf("a host without kernels: %v", err)
	}
}
