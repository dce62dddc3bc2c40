package template

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/thread"
)

// node is what a tree has at a path.
type node struct {
	Mode       uint32
	UID, GID   uint32
	Device     uint64
	Size       int64
	Changed    string
	Content    string
	Attributes map[string]string
	SameAs     string // the first name of a file that has several
}

// tree reads all of a file system; ids are less base.
func tree(root string, base uint32) (map[string]node, error) {
	all := map[string]node{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if errors.Is(err, unix.ENOENT) {
			return nil // a whiteout that hides nothing
		}
		if err != nil {
			return err
		}
		n := node{Mode: st.Mode, UID: st.Uid - base, GID: st.Gid - base, Device: st.Rdev, Attributes: map[string]string{}, Changed: fmt.Sprint(st.Mtim)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n.Size, n.Content = st.Size, fmt.Sprintf("%x", sha256.Sum256(data))
			key := [2]uint64{uint64(st.Dev), st.Ino}
			if first[key] == "" {
				first[key] = path[len(root):]
			}
			n.SameAs = first[key]
		case unix.S_IFLNK:
			if n.Content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		names := make([]byte, 4096)
		size, err := unix.Llistxattr(path, names)
		if err != nil {
			return err
		}
		for _, name := range strings.Split(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
			if name == "" {
				continue
			}
			value := make([]byte, 4096)
			size, err := unix.Lgetxattr(path, name, value)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", name, path, err)
			}
			if name == "security.capability" { // through a user range it has that range's root besides
				value[0], value[3], size = 0, 0, 20
			}
			n.Attributes[name] = string(value[:size])
		}
		all["/"+strings.TrimPrefix(path[len(root):], "/")] = n
		return nil
	})
	return all, err
}

// alone runs do on a thread with mounts of its own.
func alone(t *testing.T, do func(dir string) error) {
	t.Helper()
	dir := t.TempDir()
	err := thread.Spare(func() error {
		if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			return err
		}
		return do(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asZone is the tree that a zone of the template begins with.
func asZone(t *testing.T, s *Store, tm Template) (found map[string]node) {
	t.Helper()
	const base = 1 << 20
	maps := &mount.IDMaps{}
	defer maps.Close()
	alone(t, func(dir string) error {
		layers, err := mount.OpenLayers(filepath.Join(dir, "layers"))
		if err != nil {
			return err
		}
		m := mount.IDMap{Base: base}
		users, err := maps.Get(context.Background(), m)
		if err != nil {
			return err
		}
		defer users.Close()
		spec := mount.OverlaySpec{Map: m, Users: users}
		for _, l := range tm.Layers {
			one, err := layers.Get(context.Background(), l.Digest, s.LayerPath(l))
			if err != nil {
				return err
			}
			defer one.Close()
			spec.Lowers = append(spec.Lowers, one)
		}
		root, err := mount.Overlay(context.Background(), spec)
		if err != nil {
			return err
		}
		defer root.Close()
		at := filepath.Join(dir, "root")
		if err := errors.Join(os.Mkdir(at, 0o700), root.Attach(at)); err != nil {
			return err
		}
		found, err = tree(at, base)
		return errors.Join(err, layers.UnmountAll(context.Background()))
	})
	return found
}

// asFile is the tree that is in an EROFS file.
func asFile(t *testing.T, path string) (found map[string]node) {
	t.Helper()
	err := mount.Merged(t.Context(), []string{path}, t.TempDir(), func(root string) (err error) {
		found, err = tree(root, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// layered imports an image of several layers.
func layered(t *testing.T, s *Store, tag string, layers ...*bytes.Buffer) Template {
	t.Helper()
	var out bytes.Buffer
	ref, err := name.NewTag(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.Write(ref, image(t, Host().Architecture, layers...), &out); err != nil {
		t.Fatal(err)
	}
	tm, err := s.Import(t.Context(), &out, ImportOptions{Name: tag}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

func of(e entry, uid, gid int, mode int64) entry {
	e.Uid, e.Gid, e.Mode = uid, gid, mode
	return e
}

func with(e entry, attributes ...string) entry {
	e.PAXRecords = map[string]string{}
	for i := 0; i < len(attributes); i += 2 {
		e.PAXRecords["SCHILY.xattr."+attributes[i]] = attributes[i+1]
	}
	e.Format = tar.FormatPAX
	return e
}

func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func threeLayers(t *testing.T) []*bytes.Buffer {
	const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	big := strings.Repeat("much of the same ", 100_000)
	return []*bytes.Buffer{
		makeTar(t, of(folder("./"), 0, 0, 0o755), folder("etc/"), file("etc/base", "base"), file("etc/both", "lower"), file("etc/gone", "x"),
			of(file("bin/su", "#!"), 0, 0, 0o4755), with(file("bin/ping", "ping"), "security.capability", capability, "user.note", "hello"),
			of(folder("home/user/"), 1000, 1000, 0o700), of(file("home/user/file", "mine"), 1000, 65534, 0o600),
			folder("opaque/"), file("opaque/hidden", "x"), file("whole/dir/deep", "x"), file("whole/dir/other", "y"),
			file("links/a", "linked"), link("links/b", "links/a"), link("links/c", "links/a"), link("links/e", "links/a"), file("big", big),
			entry{tar.Header{Typeflag: tar.TypeChar, Name: "dev/zero", Devmajor: 1, Devminor: 5, Mode: 0o666}, ""},
			entry{tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o640}, ""},
			entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/sh", Linkname: "/no/where", Mode: 0o777}, ""}),
		makeTar(t, folder("etc/"), file("etc/both", "upper"), file("etc/.wh.gone", ""), folder("opaque/"), file("opaque/.wh..wh..opq", ""), file("opaque/new", "y"),
			file("links/b", "another"), link("links/d", "links/b"), file(".wh.whole", ""), with(of(folder("home/user/"), 1000, 1000, 0o711), "user.of", "folder"),
			file("fresh/file", "z"), file("fresh/.wh.never-was", "")),
		makeTar(t, of(folder("./"), 7, 8, 0o711), file("whole/again", "w"), file("links/.wh.c", ""), file("etc/top", "top"), link("etc/hard", "etc/top"),
			entry{tar.Header{Typeflag: tar.TypeSymlink, Name: "opaque/new", Linkname: "../etc", Mode: 0o777}, ""}),
	}
}

func TestWholeIsWhatAZoneSees(t *testing.T) {
	s := open(t)
	tm := layered(t, s, "three:1", threeLayers(t)...)
	var mu sync.Mutex
	var told []Progress
	digest, path, err := s.Whole(t.Context(), "three:1", func(p Progress) { mu.Lock(); told = append(told, p); mu.Unlock() })
	if err != nil {
		t.Fatal(err)
	}
	zone, whole := asZone(t, s, tm), asFile(t, path)
	if d := cmp.Diff(zone, whole); d != "" {
		t.Errorf("a zone (-) and the file (+) differ:\n%s", d)
	}
	for _, p := range []string{"/etc/gone", "/opaque/hidden", "/whole/dir", "/links/c", "/fresh/never-was"} {
		if _, there := whole[p]; there {
			t.Errorf("%s is there", p)
		}
	}
	if r := whole["/"]; r.Mode != unix.S_IFDIR|0o711 || r.UID != 7 || r.GID != 8 {
		t.Errorf("the root folder is %+v", r)
	}
	for one, same := range map[string]string{"/links/e": "/links/a", "/links/d": "/links/b", "/etc/top": "/etc/hard", "/links/b": "/links/b"} {
		if whole[one].SameAs != same {
			t.Errorf("%s is the same file as %s, not %s", one, whole[one].SameAs, same)
		}
	}
	if len(whole["/bin/ping"].Attributes) != 2 || whole["/home/user"].Attributes["user.of"] != "folder" {
		t.Errorf("attributes: %v, %v", whole["/bin/ping"], whole["/home/user"])
	}
	if n := whole["/dev/zero"]; n.Device != unix.Mkdev(1, 5) {
		t.Errorf("device: %+v", n)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if len(told) < 2 || told[len(told)-1].Step != "merge" || told[len(told)-1].Done != info.Size() {
		t.Errorf("told %+v", told)
	}
	again, samePath, err := reopen(t, s.dir).Whole(t.Context(), tm.ID, func(Progress) { t.Error("it was made again") })
	if err != nil || again != digest || samePath != path || !isDigest(digest) {
		t.Error(again, samePath, err)
	}
}

func TestWholeOfOneLayerIsThatLayer(t *testing.T) {
	s := open(t)
	one := importRoot(t, s, "one", file("a", "1"))
	before := files(t, s)
	digest, path, err := s.Whole(t.Context(), "one", nil)
	if err != nil || digest != one.Layers[0].Digest || path != s.LayerPath(one.Layers[0]) {
		t.Error(digest, path, err)
	}
	same := makeTar(t, file("a", "1")).Bytes()
	twice := layered(t, s, "twice:1", bytes.NewBuffer(same), bytes.NewBuffer(same))
	if _, path, err = s.Whole(t.Context(), "twice:1", nil); err != nil || path != s.LayerPath(twice.Layers[1]) {
		t.Error(path, err)
	}
	if slices.ContainsFunc(files(t, s), func(f string) bool { return strings.HasPrefix(f, wholeDir) }) {
		t.Error("more than before:", before, files(t, s))
	}
	_, _, err = s.Whole(t.Context(), "nothing", nil)
	wantKind(t, err, fault.Missing)
}

func TestWholeIsMadeOnceAndGoesWithItsLastTemplate(t *testing.T) {
	s := open(t)
	first, second := makeTar(t, file("a", "1")), makeTar(t, file("b", "2"))
	tm := layered(t, s, "a:1", bytes.NewBuffer(first.Bytes()), bytes.NewBuffer(second.Bytes()))
	var mu sync.Mutex
	made := 0
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			_, path, err := s.Whole(t.Context(), "a:1", func(p Progress) {
				mu.Lock()
				defer mu.Unlock()
				if p.Step == "merge" && p.Done == p.Total {
					made++
				}
			})
			if err != nil || !isWhole(path) {
				t.Error(path, err)
			}
		})
	}
	wait.Wait()
	if made != 1 {
		t.Errorf("it was made %d times", made)
	}
	_, path, err := s.Whole(t.Context(), "a:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	// A damaged one is made again.
	if err := os.Truncate(path, 3000); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Whole(t.Context(), "a:1", nil); err != nil || !isWhole(path) {
		t.Error(err)
	}
	if _, err := s.Remove(tm.ID, false, func(string) []string { return []string{"web"} }); !fault.Is(err, fault.Conflict) || !isWhole(path) {
		t.Error(err)
	}
	if freed, err := s.Remove(tm.ID, false, unused); err != nil || freed == 0 {
		t.Error(freed, err)
	}
	if left := files(t, s); !slices.Equal(left, []string{"names.json"}) {
		t.Error("left:", left)
	}
}

func TestWholeThatFailsLeavesNothing(t *testing.T) {
	s := open(t)
	layered(t, s, "three:1", threeLayers(t)...)
	before := files(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := s.Whole(ctx, "three:1", func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	t.Setenv("PATH", t.TempDir())
	_, _, err = s.Whole(t.Context(), "three:1", nil)
	wantKind(t, err, fault.Unable, "erofs-utils")
	if after := files(t, s); !slices.Equal(after, before) {
		t.Errorf("before %v, after %v", before, after)
	}
	work, err := os.ReadDir(filepath.Join(s.dir, workDir))
	if err != nil || len(work) > 0 {
		t.Error(work, err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mounts"); strings.Contains(string(mounts), s.dir) {
		t.Error("something is still mounted")
	}
}
