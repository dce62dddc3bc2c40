package template

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/template/unpack"
)

// mounted mounts a layer and gives its path to look.
func mounted(t *testing.T, s *Store, l Layer, look func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount(s.LayerPath(l), dir, "erofs", syscall.MS_RDONLY, "")
	require.Host(t, "erofs-on-file", err == nil, "the kernel mounts no EROFS straight from a file")
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	look(dir)
}

func TestImportOfARootFolder(t *testing.T) {
	root := makeTar(t, folder("./"), folder("bin/"), file("bin/x", "x")).Bytes()
	packed := map[string]func() []byte{
		"plain": func() []byte { return root },
		"gzip": func() []byte {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			w.Write(root)
			w.Close()
			return b.Bytes()
		},
		"zstd": func() []byte {
			var b bytes.Buffer
			w, _ := zstd.NewWriter(&b)
			w.Write(root)
			w.Close()
			return b.Bytes()
		},
		"xz": func() []byte {
			var b bytes.Buffer
			w, _ := xz.NewWriter(&b)
			w.Write(root)
			w.Close()
			return b.Bytes()
		},
		"bzip2": func() []byte {
			cmd := exec.Command(require.Tool(t, "bzip2"), "-c")
			cmd.Stdin = bytes.NewReader(root)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
	}
	ids := map[string]bool{}
	for format, data := range packed {
		t.Run(format, func(t *testing.T) {
			s := open(t)
			tm, err := s.Import(t.Context(), bytes.NewReader(data()), ImportOptions{Name: "mine"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			ids[tm.ID] = true
			if tm.Names[0] != "mine:latest" || tm.Config.Cmd[0] != "/bin/sh" {
				t.Errorf("template is %+v", tm)
			}
		})
	}
	if len(ids) != 1 {
		t.Errorf("the same folder became %d templates: %v", len(ids), ids)
	}
}

func TestImportedSystemHasItsInit(t *testing.T) {
	s := open(t)
	tm, err := s.Import(t.Context(), makeTar(t, file("sbin/init", "x")), ImportOptions{Kind: KindSystem, Labels: map[string]string{"a": "b"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !tm.Config.System || tm.Config.Cmd[0] != "/sbin/init" || tm.Config.StopSignal != StopSystemd || tm.Config.Labels["a"] != "b" || len(tm.Names) != 0 {
		t.Errorf("template is %+v", tm)
	}
}

func TestExportAndImportGiveTheSameTemplate(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	ref := reg.write(t, "app:1", image(t, Host().Architecture, makeTar(t, file("a", "1")), makeTar(t, file(".wh.a", ""))))
	tm, err := s.Pull(t.Context(), ref, anonymous, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ref, "local/app"); err != nil {
		t.Fatal(err)
	}
	var out, again bytes.Buffer
	for _, b := range []*bytes.Buffer{&out, &again} {
		if err := s.Export(t.Context(), ref, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Error("two exports differ")
	}
	other := open(t)
	back, err := other.Import(t.Context(), &out, ImportOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID != tm.ID || len(back.Names) != 2 || back.Layers[1] != tm.Layers[1] {
		t.Errorf("came back as %+v, was %+v", back, tm)
	}
	if err := other.Push(t.Context(), back.ID, reg.host+"/back:1", anonymous, nil); err != nil {
		t.Fatal(err)
	}
	labelled, err := other.Import(t.Context(), &again, ImportOptions{Kind: KindSystem}, nil)
	if err != nil || labelled.ID == tm.ID || !labelled.Config.System || labelled.Config.Env[0] != "A=b" {
		t.Errorf("with another kind: %+v, %v", labelled, err)
	}
}

// sparseTar is what `tar -cS` makes of the files of a folder.
func sparseTar(t *testing.T, dir string, files ...string) *bytes.Buffer {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "tar"), append([]string{"--format=gnu", "-cSf", "-", "-C", dir}, files...)...)
	out := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(out.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("no entry is sparse: %v", err)
		}
		if h.Typeflag == tar.TypeGNUSparse {
			return out
		}
	}
}

func TestSparseFilesAreImported(t *testing.T) {
	s := open(t)
	dir, hole := t.TempDir(), int64(4<<20)
	f, err := os.Create(dir + "/big")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("end"), hole)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	tm, err := s.Import(t.Context(), sparseTar(t, dir, "big"), ImportOptions{Name: "x/y"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, s, tm.Layers[0], func(dir string) {
		if got, err := os.ReadFile(dir + "/big"); int64(len(got)) != hole+3 || string(got[hole:]) != "end" || err != nil {
			t.Errorf("it has %d bytes, %v", len(got), err)
		}
	})
}

func TestSparseLayersOfAnArchiveAreImported(t *testing.T) {
	s, dir := open(t), t.TempDir()
	layer := makeTar(t, file("zeros", strings.Repeat("\x00", 4<<20)), file("a", "1")).Bytes()
	config := must(json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(layer)}}}))
	f, err := os.Create(dir + "/layer.tar")
	if err != nil {
		t.Fatal(err)
	}
	_, head := f.WriteAt(layer[:512], 0)
	_, tail := f.WriteAt(layer[4<<20:], 4<<20) // between them there is a hole
	err = errors.Join(head, tail, f.Close(), os.WriteFile(dir+"/config.json", config, 0o600),
		os.WriteFile(dir+"/manifest.json", must(json.Marshal([]dockerEntry{{Config: "config.json", Layers: []string{"layer.tar"}}})), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if tm, err := s.Import(t.Context(), sparseTar(t, dir, "manifest.json", "config.json", "layer.tar"), ImportOptions{}, nil); err != nil || tm.ID != digestOf(config) {
		t.Errorf("%+v, %v", tm, err)
	}
}

// reindexed is a layout with its index changed.
func reindexed(t *testing.T, layout io.Reader, change func(*v1.IndexManifest)) io.Reader {
	t.Helper()
	var all []entry
	for r := tar.NewReader(layout); ; {
		h, err := r.Next()
		if err == io.EOF {
			return makeTar(t, all...)
		}
		if err != nil {
			t.Fatal(err)
		}
		data := must(io.ReadAll(r))
		if h.Name == "index.json" {
			index := must(v1.ParseIndexManifest(bytes.NewReader(data)))
			change(index)
			data = must(json.Marshal(index))
		}
		all = append(all, file(h.Name, string(data)))
	}
}

func TestImportOfALayoutWithTwoNamesAndNoPlatform(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "team/app:1", file("a", "1"))
	if err := s.Tag("team/app:1", "team/app:2"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Export(t.Context(), tm.ID, &out, nil); err != nil {
		t.Fatal(err)
	}
	back, err := open(t).Import(t.Context(), reindexed(t, &out, func(index *v1.IndexManifest) {
		for i := range index.Manifests {
			index.Manifests[i].Platform = nil
		}
	}), ImportOptions{}, nil)
	if err != nil || back.ID != tm.ID || len(back.Names) != 2 {
		t.Errorf("%+v, %v", back, err)
	}
}

// Who names a digest wants what a registry has under it: no name that is merely given says so.
func TestNoNameThatIsGivenHasADigest(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "team/app:1", file("a", "1"))
	pinned := "debian@sha256:" + strings.Repeat("ab", 32)
	wantKind(t, s.Tag(tm.ID, pinned), fault.Invalid, "pulling it")
	_, err := s.Import(t.Context(), makeTar(t, file("a", "1")), ImportOptions{Name: pinned}, nil)
	wantKind(t, err, fault.Invalid, "pulling it")
	_, err = s.Commit(t.Context(), tm.ID, nil, CommitOptions{Name: pinned}, nil)
	wantKind(t, err, fault.Invalid, "pulling it")
	_, err = planBuild(BuildOptions{Base: "debian:bookworm", Name: pinned})
	wantKind(t, err, fault.Invalid, "pulling it")
	var out bytes.Buffer
	if err := s.Export(t.Context(), tm.ID, &out, nil); err != nil {
		t.Fatal(err)
	}
	back, err := open(t).Import(t.Context(), reindexed(t, &out, func(index *v1.IndexManifest) {
		index.Manifests[0].Annotations = map[string]string{containerdAnnotation: pinned}
	}), ImportOptions{}, nil)
	if err != nil || len(back.Names) != 0 {
		t.Errorf("an archive gave the names %q, %v", back.Names, err)
	}
}

func TestOfSeveralImagesNoneIsTakenForTheOthers(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "team/app:1", file("a", "1"))
	var out bytes.Buffer
	if err := s.Export(t.Context(), tm.ID, &out, nil); err != nil {
		t.Fatal(err)
	}
	layout := func(second string) io.Reader {
		return reindexed(t, bytes.NewReader(out.Bytes()), func(index *v1.IndexManifest) {
			other := index.Manifests[0]
			other.Digest = must(v1.NewHash(digestOf([]byte("other"))))
			other.Annotations = map[string]string{containerdAnnotation: second}
			index.Manifests = append(index.Manifests, other)
		})
	}
	_, err := s.Import(t.Context(), layout("team/db:1"), ImportOptions{}, nil)
	wantKind(t, err, fault.Invalid, "several images", "team/app:1", "team/db:1", "an archive of its own")
	if back, err := s.Import(t.Context(), layout("team/app:1"), ImportOptions{}, nil); err != nil || back.ID != tm.ID {
		t.Errorf("one name's images, of which the first fits: %+v, %v", back, err)
	}
}

func TestImportOfDockersArchive(t *testing.T) {
	s := open(t)
	img := image(t, Host().Architecture, makeTar(t, file("a", "1")))
	var out bytes.Buffer
	tag, err := name.NewTag("team/app:3")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.Write(tag, img, &out); err != nil {
		t.Fatal(err)
	}
	tm, err := s.Import(t.Context(), &out, ImportOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := img.ConfigName()
	if tm.ID != id.String() || tm.Names[0] != "team/app:3" {
		t.Errorf("template is %+v", tm)
	}
}

func TestImportOfDockersOldArchiveWithPlainLayers(t *testing.T) {
	s := open(t)
	layer := makeTar(t, file("a", "1")).Bytes()
	hex := strings.TrimPrefix(digestOf(layer), "sha256:")
	config, _ := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex, "sha256:" + hex}}})
	manifest, _ := json.Marshal([]dockerEntry{{Config: hex + ".json", RepoTags: []string{"old:1"}, Layers: []string{hex + "/layer.tar", "second/layer.tar"}}})
	in := makeTar(t, folder(hex+"/"), file(hex+"/VERSION", "1.0"), file(hex+"/layer.tar", string(layer)),
		entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "second/layer.tar", Linkname: "../" + hex + "/layer.tar"}, ""},
		file(hex+".json", string(config)), file("manifest.json", string(manifest)))
	tm, err := s.Import(t.Context(), in, ImportOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tm.ID != digestOf(config) || len(tm.Layers) != 2 {
		t.Errorf("template is %+v", tm)
	}
}

func TestImportRefuses(t *testing.T) {
	layer := makeTar(t, file("a", "1")).String()
	hex := func(s string) string { return strings.TrimPrefix(digestOf([]byte(s)), "sha256:") }
	desc := func(s, media string) string {
		return `{"mediaType":"` + media + `","size":` + string(must(json.Marshal(len(s)))) + `,"digest":"` + digestOf([]byte(s)) + `"}`
	}
	const ociManifest, ociConfig, ociLayer = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digestOf([]byte(layer)) + `"]}}`
	layout := func(index, manifest, config, layer string) io.Reader {
		return makeTar(t, file("oci-layout", "{}"), file("index.json", index), file("blobs/sha256/"+hex(manifest), manifest), file("blobs/sha256/"+hex(config), config), file("blobs/sha256/"+hex(layer), layer))
	}
	manifest := func(config, layers string) string {
		return `{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":` + desc(config, ociConfig) + `,"layers":[` + layers + `]}`
	}
	index := func(m string) string { return `{"schemaVersion":2,"manifests":[` + desc(m, ociManifest) + `]}` }
	good := manifest(config, desc(layer, ociLayer))
	two := manifest(config, desc(layer, ociLayer)+","+desc(layer, ociLayer))
	windows := strings.Replace(config, "linux", "windows", 1)
	odd := strings.Replace(config, "sha256:"+hex(layer), "sha512:../../../etc/passwd", 1)
	for what, c := range map[string]struct {
		in   io.Reader
		kind fault.Kind
		says string
	}{
		"an empty stream":                  {strings.NewReader(""), fault.Invalid, "empty"},
		"a stream that is no tar":          {strings.NewReader(strings.Repeat("garbage", 300)), fault.Invalid, "no tar"},
		"a truncated tar":                  {bytes.NewReader(makeTar(t, file("a", strings.Repeat("x", 9000))).Bytes()[:3000]), fault.Invalid, "broken"},
		"a broken gzip":                    {strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03garbage garbage"), fault.Invalid, ""},
		"a root folder that escapes":       {makeTar(t, file("../x", "x")), fault.Invalid, "outside"},
		"a layout without its index":       {makeTar(t, file("oci-layout", "{}")), fault.Invalid, "manifest.json"},
		"a layout whose index is no JSON":  {layout("nonsense", good, config, layer), fault.Invalid, "index"},
		"a layout without its manifest":    {makeTar(t, file("oci-layout", "{}"), file("index.json", index(good))), fault.Invalid, "blobs/sha256"},
		"a layout with a damaged layer":    {makeTar(t, file("index.json", index(good)), file("blobs/sha256/"+hex(good), good), file("blobs/sha256/"+hex(config), config), file("blobs/sha256/"+hex(layer), "other")), fault.Invalid, "damaged"},
		"more layers than diff ids":        {layout(index(two), two, config, layer), fault.Invalid, "do not fit"},
		"an image for windows":             {layout(index(manifest(windows, desc(layer, ociLayer))), manifest(windows, desc(layer, ociLayer)), windows, layer), fault.Unable, "windows"},
		"a diff id that is a path":         {layout(index(manifest(odd, desc(layer, ociLayer))), manifest(odd, desc(layer, ociLayer)), odd, layer), fault.Invalid, "configuration"},
		"docker's archive of two images":   {makeTar(t, file("manifest.json", `[{"Config":"a"},{"Config":"b"}]`)), fault.Invalid, "2 images"},
		"docker's archive without a layer": {makeTar(t, file("manifest.json", `[{"Config":"../../etc/passwd","Layers":["x"]}]`)), fault.Invalid, "has no"},
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t)
			_, err := s.Import(t.Context(), c.in, ImportOptions{Name: "x/y"}, nil)
			wantKind(t, err, c.kind, c.says)
			if left := files(t, s); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
	s := open(t)
	_, err := s.Import(t.Context(), layout(index(good), good, config, layer), ImportOptions{Name: "Bad Name"}, nil)
	wantKind(t, err, fault.Invalid)
	_, err = s.Import(t.Context(), nil, ImportOptions{Kind: "strange"}, nil)
	wantKind(t, err, fault.Invalid, "app or system")
	if _, err := s.Import(t.Context(), layout(index(good), good, config, layer), ImportOptions{}, nil); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// endless is a root folder's tar that never ends and calls f on the way.
type endless struct {
	n int
	f func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n++; e.n == 50 {
		e.f()
	}
	return copy(p, make([]byte, min(len(p), 4096))), nil
}

func TestACancelledImportLeavesNothing(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	head := new(bytes.Buffer)
	w := tar.NewWriter(head)
	if err := w.WriteHeader(&tar.Header{Name: "big", Size: 1 << 30, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Import(ctx, io.MultiReader(head, &endless{f: cancel}), ImportOptions{}, nil)
	if err == nil || ctx.Err() == nil {
		t.Fatalf("error is %v", err)
	}
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestWhatCannotBeConfinedReadsNoLayer(t *testing.T) {
	s := open(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mkfs.erofs"), []byte("#!/nonesuch\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if _, err := s.Import(t.Context(), makeTar(t, folder("etc/")), ImportOptions{}, nil); err == nil || !strings.Contains(err.Error(), "confine mkfs.erofs") {
		t.Errorf("error is %v", err)
	}
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestAnImportLeavesRoomOnTheDisk(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=200M"); err != nil { // less than must stay free
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := reopen(t, dir)
	for what, stream := range map[string]io.Reader{
		"an archive's blob":     makeTar(t, file("blobs/sha256/"+strings.Repeat("ab", 32), "x")),
		"a root folder's layer": makeTar(t, folder("etc/")),
	} {
		_, err := s.Import(t.Context(), stream, ImportOptions{}, nil)
		if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestLayersKeepWhatTheTarSays(t *testing.T) {
	s := open(t)
	setuid := file("su", "x")
	setuid.Mode, setuid.Uid = 0o4755, 65535
	closed := file("closed", "for its owner")
	closed.Mode, closed.Uid = 0, 1000
	tm := importRoot(t, s, "x/y", setuid, entry{tar.Header{Typeflag: tar.TypeLink, Name: "su2", Linkname: "su"}, ""}, file(".wh.gone", ""),
		closed, folder("new/"), file("new/.wh..wh..opq", ""))
	mounted(t, s, tm.Layers[0], func(dir string) {
		var a, b, c syscall.Stat_t
		if err := syscall.Stat(dir+"/su", &a); err != nil || a.Mode&0o7777 != 0o4755 || a.Uid != 65535 || a.Mtim.Sec != 1_000_000_000 {
			t.Errorf("su is %+v, %v", a, err)
		}
		if err := syscall.Stat(dir+"/su2", &b); err != nil || a.Ino != b.Ino || b.Nlink != 2 {
			t.Errorf("su2 is %+v, %v", b, err)
		}
		if err := syscall.Lstat(dir+"/gone", &c); err != nil || c.Mode&syscall.S_IFMT != syscall.S_IFCHR || c.Rdev != 0 {
			t.Errorf("the whiteout is %+v, %v", c, err)
		}
		if text, err := os.ReadFile(dir + "/closed"); err != nil || string(text) != "for its owner" {
			t.Errorf("what only its owner may read is %q, %v", text, err)
		}
		var opaque [8]byte
		if n, err := unix.Lgetxattr(dir+"/new", "trusted.overlay.opaque", opaque[:]); err != nil || string(opaque[:n]) != "y" {
			t.Errorf("a folder that hides what is below has %q, %v", opaque[:n], err)
		}
	})
}

func TestTheLongestNameThatIsAcceptedFits(t *testing.T) {
	s := open(t)
	importRoot(t, s, "x/y", file(strings.Repeat("n", unpack.MaxName), "x"))
	_, err := s.Import(t.Context(), makeTar(t, file(strings.Repeat("n", unpack.MaxName+1), "x")), ImportOptions{}, nil)
	wantKind(t, err, fault.Invalid, "longer than 254 bytes")
}

func TestTheDeepestPathThatIsAcceptedFits(t *testing.T) {
	s := open(t)
	deep := strings.Repeat("d/", 1740) + strings.Repeat("x", 19)
	tm := importRoot(t, s, "x/y", file(deep, "x"))
	if tm.Size == 0 {
		t.Error("the layer is empty")
	}
}
