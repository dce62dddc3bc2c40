package template

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
)

// rootOf is all that an environment of a template has, as it would be read inside.
func rootOf(t *testing.T, s *Store, tm Template) Root {
	t.Helper()
	all := new(bytes.Buffer)
	err := mount.Merged(t.Context(), s.layerPaths(tm.Layers), t.TempDir(), func(root string) error {
		found, err := survey(t.Context(), root)
		if err == nil {
			_, err = writeDifference(t.Context(), t.TempDir(), root, found.ghosts, all)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tarred(all.Bytes())
}

func tarred(root []byte) Root {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(root)
		return err
	}
}

// still is a tree without the times of its folders, which a layer need not tell.
func still(all map[string]node) map[string]node {
	for name, n := range all {
		if n.Mode&unix.S_IFMT == unix.S_IFDIR {
			n.Changed = ""
			all[name] = n
		}
	}
	return all
}

func symlink(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}

func TestACommitHasWhatWasThere(t *testing.T) {
	s := open(t)
	all := map[string]Template{
		"three layers": layered(t, s, "three:1", threeLayers(t)...),
		"another": importRoot(t, s, "another:1",
			folder("etc/"), file("etc/both", "upper"), file("etc/base", "Base"), of(file("etc/top", "top"), 1, 0, 0o644), // of one size; of another owner
			file("links", "no folder any more"), folder("bin/"), folder("bin/sh/"), file("bin/sh/x", "where a link was"), file("bin/su", "#!"), // another mode
			symlink("opaque", "/etc"), folder("dev/"), entry{tar.Header{Typeflag: tar.TypeChar, Name: "dev/zero", Devmajor: 1, Devminor: 3, Mode: 0o666}, ""}),
		"links to the host": importRoot(t, s, "host:1", symlink("etc", "/etc"), symlink("fresh", "/proc/self"), file("big", "small")),
		"other links": importRoot(t, s, "links:1", folder("links/"), file("links/a", "linked"), link("links/b", "links/a"), file("links/c", "linked"), link("links/d", "links/c"),
			folder("etc/"), file("etc/passwd", "not the host's")),
	}
	for below, base := range all {
		for above, like := range all {
			t.Run(above+" over "+below, func(t *testing.T) {
				got, err := s.Commit(t.Context(), base.ID, rootOf(t, s, like), CommitOptions{Config: base.Config}, nil)
				if err != nil {
					t.Fatal(err)
				}
				layers := len(base.Layers)
				if below != above {
					layers++
				}
				if len(got.Layers) != layers || !slices.Equal(got.Layers[:len(base.Layers)], base.Layers) {
					t.Errorf("layers are %v over %v", got.Layers, base.Layers)
				}
				mine, want := still(asZone(t, s, got)), still(asZone(t, s, like))
				for _, name := range slices.Sorted(maps.Keys(want)) {
					if a, ok := mine[name]; !ok || !maps.Equal(a.Attributes, want[name].Attributes) || !equal(a, want[name]) {
						t.Errorf("%s is %+v, want %+v", name, a, want[name])
					}
				}
				for name := range mine {
					if _, ok := want[name]; !ok {
						t.Errorf("%s is there still", name)
					}
				}
			})
		}
	}
}

func equal(a, b node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Device == b.Device && a.Size == b.Size && a.Changed == b.Changed && a.Content == b.Content && a.SameAs == b.SameAs
}

func TestACommitLooksAtNoFileOfTheHosts(t *testing.T) {
	s := open(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "same"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1_000_000_000, 0) // of every entry that makeTar writes
	if err := os.Chtimes(filepath.Join(dir, "same"), then, then); err != nil {
		t.Fatal(err)
	}
	base := importRoot(t, s, "base", symlink("d", dir))
	got, err := s.Commit(t.Context(), base.ID, tarred(makeTar(t, folder("d/"), file("d/same", "x")).Bytes()), CommitOptions{Config: base.Config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := asZone(t, s, got)["/d/same"]; !ok || n.Size != 1 {
		t.Errorf("it is %+v: the host's file was taken for the base's", n)
	}
}

func TestACommittedLayerHasWhatDiffersAlone(t *testing.T) {
	s := open(t)
	base := importRoot(t, s, "base", folder("etc/"), file("etc/kept", "k"), file("etc/changed", "before"), file("etc/gone", "g"), folder("usr/"), file("usr/kept", "k"),
		folder("own/"), file("own/there", "the base's"), file("own/not", "the base's"), file("a", "one"), link("b", "a"), link("c", "a"))
	root := makeTar(t, folder("./"), folder("./etc/"), file("./etc/kept", "k"), file("./etc/changed", "after"), folder("./usr/"), file("./usr/kept", "k"),
		folder("./own/"), file("./own/there", "mine"), file("./a", "one"), link("./b", "./a"), file("./new", "n"))
	config := base.Config
	config.Cmd, config.Env, config.System = []string{"/bin/true"}, []string{"A=b"}, true
	got, err := s.Commit(t.Context(), "base", tarred(root.Bytes()), CommitOptions{Name: "made", Config: config, Without: []string{"/own", "/nowhere"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	mounted(t, s, got.Layers[1], func(dir string) {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
			if !d.IsDir() {
				names = append(names, strings.TrimPrefix(path, dir))
			}
			return nil
		})
	})
	if want := []string{"/c", "/etc/changed", "/etc/gone", "/new"}; !slices.Equal(names, want) {
		t.Errorf("the layer has %q, want %q", names, want)
	}
	if again, err := reopen(t, s.dir).Get("made"); err != nil || again.ID != got.ID || !again.Config.System || !slices.Equal(again.Config.Cmd, config.Cmd) || !slices.Equal(again.Config.Env, config.Env) {
		t.Errorf("it is %+v, %v", again, err)
	}
	if tree := asZone(t, s, got); tree["/own/not"].Size != int64(len("the base's")) {
		t.Errorf("what was left out is not the base's: %+v", tree["/own/not"])
	}
}

func TestACommitThatFailsLeavesNothing(t *testing.T) {
	s := open(t)
	base := importRoot(t, s, "base", file("x", "x"))
	before := files(t, s)
	whole := makeTar(t, file("y", strings.Repeat("y", 100_000))).Bytes()
	for name, root := range map[string][]byte{"cut off": whole[:50_000], "no tar": []byte(strings.Repeat("?", 2048)), "a name that leaves it": makeTar(t, file("../y", "y")).Bytes()} {
		if _, err := s.Commit(t.Context(), "base", tarred(root), CommitOptions{Name: "made", Config: base.Config}, nil); err == nil {
			t.Errorf("%s: it is made", name)
		}
	}
	for name, odd := range map[string]entry{".wh.x": file("a/.wh.x", "no whiteout"), ".wh.d": file(".wh.d/y", "y"), "none": {tar.Header{Typeflag: tar.TypeChar, Name: "none"}, ""}} {
		_, err := s.Commit(t.Context(), "base", tarred(makeTar(t, file("x", "x"), odd).Bytes()), CommitOptions{Config: base.Config}, nil)
		wantKind(t, err, fault.Unable, name, "give it another name")
	}
	never := func(context.Context, io.Writer) error { t.Error("it was read"); return nil }
	_, err := s.Commit(t.Context(), "base", never, CommitOptions{Name: "UPPER:", Config: base.Config}, nil)
	wantKind(t, err, fault.Invalid)
	_, err = s.Commit(t.Context(), "nonesuch", never, CommitOptions{}, nil)
	wantKind(t, err, fault.Missing)
	breaks := func(_ context.Context, w io.Writer) error {
		_, err := w.Write(whole[:1024])
		return fault.Join(err, fault.Conflictf("it was removed meanwhile"))
	}
	_, err = s.Commit(t.Context(), "base", breaks, CommitOptions{Config: base.Config}, nil)
	wantKind(t, err, fault.Conflict, "removed meanwhile")
	if after := files(t, s); !slices.Equal(after, before) {
		t.Errorf("left behind: %q, before %q", after, before)
	}
}
