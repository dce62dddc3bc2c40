package template

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func unused(string) []string { return nil }

func TestGetFindsByNameAndID(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "registry.example:5000/team/app:v1", file("a", "1"))
	if err := s.Tag(tm.ID, "web"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"web", "web:latest", "docker.io/library/web", "registry.example:5000/team/app:v1", tm.ID, tm.ID[7:], tm.ID[7:11], tm.ID[:12]} {
		got, err := s.Get(ref)
		if err != nil || got.ID != tm.ID {
			t.Errorf("%q: %v, %v", ref, got.ID, err)
		}
	}
	for ref, kind := range map[string]fault.Kind{"other": fault.Missing, "web:v2": fault.Missing, "0000": fault.Missing, "": fault.Invalid, "A B": fault.Invalid, "../x": fault.Invalid, "-rf": fault.Invalid} {
		_, err := s.Get(ref)
		if !fault.Is(err, kind) {
			t.Errorf("%q: %v, want %s", ref, err, kind)
		}
	}
	_, err := s.Get("wbe")
	wantKind(t, err, fault.Missing, "did you mean web:latest")
	_, err = open(t).Get("debian")
	wantKind(t, err, fault.Missing, "template pull debian")
}

func TestAnAmbiguousIDIsRefused(t *testing.T) {
	s := open(t)
	s.records["sha256:abcd1"+strings.Repeat("0", 59)] = &record{}
	s.records["sha256:abcd2"+strings.Repeat("0", 59)] = &record{}
	_, err := s.Get("abcd")
	wantKind(t, err, fault.Invalid, "more digits")
}

func TestRemove(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "web", file("a", "1"))
	other := importRoot(t, s, "other", file("b", "1"))
	if err := s.Tag("web", "web:2"); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.Remove("web:2", false, unused); err != nil || freed != 0 {
		t.Errorf("one name of two: %d, %v", freed, err)
	}
	_, err := s.Remove("web", false, func(id string) []string {
		if id != tm.ID {
			t.Errorf("asked about %s", id)
		}
		s.List() // no lock is held
		return []string{"b", "a"}
	})
	wantKind(t, err, fault.Conflict, "in use by a, b")
	err = s.Use("web", func(Template) error {
		_, err := s.Remove("web", false, unused)
		return err
	})
	wantKind(t, err, fault.Busy)
	_, err = s.Remove("web", false, func(string) []string {
		wantKind(t, s.Use("web", func(Template) error { return nil }), fault.Busy, "being removed")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(tm.ID); !fault.Is(err, fault.Missing) {
		t.Errorf("it is still there: %v", err)
	}
	if freed, err := s.Remove(other.ID, false, unused); err != nil || freed < other.Size {
		t.Errorf("freed %d, %v", freed, err)
	}
	if left := files(t, s); !slices.Equal(left, []string{namesFile}) {
		t.Errorf("left behind: %q", left)
	}
}

func TestSharedLayersStayWithTheOther(t *testing.T) {
	s := open(t)
	one := importRoot(t, s, "one", file("a", "1"))
	two, err := s.Import(t.Context(), makeTar(t, file("a", "1")), ImportOptions{Name: "two", Labels: map[string]string{"x": "y"}}, nil)
	if err != nil || one.ID == two.ID || one.Layers[0] != two.Layers[0] {
		t.Fatalf("%+v, %v", two, err)
	}
	if _, err := s.Remove("one", false, unused); err != nil {
		t.Fatal(err)
	}
	if _, err := reopen(t, s.dir).Get("two"); err != nil {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	s := open(t)
	old := importRoot(t, s, "web", file("a", "1"))
	importRoot(t, s, "web", file("a", "2")) // takes the name
	used := importRoot(t, s, "", file("a", "3"))
	for name, age := range map[string]time.Duration{"fresh": 0, "stale": 2 * resumeFor} {
		path := filepath.Join(s.dir, downloadDir, name)
		if err := os.WriteFile(path, []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	by := func(id string) []string {
		if id == used.ID {
			return []string{"env"}
		}
		return nil
	}
	removed, freed, err := s.Prune(by, false)
	if err != nil || !slices.Equal(removed, []string{short(old.ID)}) || freed < old.Size+4 {
		t.Errorf("removed %q, freed %d, %v", removed, freed, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, downloadDir)); len(left) != 1 || left[0].Name() != "fresh" {
		t.Errorf("downloads left: %v", left)
	}
	removed, _, err = s.Prune(by, true)
	if err != nil || !slices.Equal(removed, []string{"web:latest"}) || len(s.List()) != 1 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, downloadDir)); len(left) != 0 {
		t.Errorf("downloads left: %v", left)
	}
}

func TestAFullDiskIsFreedByWhatItsMessageSays(t *testing.T) {
	require.Root(t)
	require.Tool(t, "mkfs.erofs")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=300M"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	s := reopen(t, dir)
	importRoot(t, s, "web", file("a", "1"))
	importRoot(t, s, "other", file("b", "1"))
	fill := func() {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		used := (st.Blocks - st.Bfree) * uint64(st.Bsize)
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, fmt.Sprint("size=", used)); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	wantKind(t, s.Tag("web", "more"), fault.Busy, "the disk is full", "template prune")
	if freed, err := s.Remove("other", false, unused); err != nil || freed == 0 {
		t.Errorf("removed: freed %d, %v", freed, err)
	}
	fill()
	if removed, freed, err := s.Prune(unused, true); err != nil || freed == 0 || !slices.Equal(removed, []string{"web:latest"}) {
		t.Errorf("pruned: %q, freed %d, %v", removed, freed, err)
	}
	if all := reopen(t, dir).List(); len(all) != 0 {
		t.Errorf("left behind: %+v", all)
	}
}

func TestANameThatIsGivenMeanwhileKeepsItsTemplate(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "", file("a", "1"))
	removed, _, err := s.Prune(func(id string) []string {
		if err := s.Tag(id, "kept"); err != nil {
			t.Error(err)
		}
		return nil
	}, false)
	if err != nil || len(removed) != 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if got, err := s.Get("kept"); err != nil || got.ID != tm.ID {
		t.Errorf("%v, %v", got.ID, err)
	}
}

func TestOpenClearsWhatACrashLeft(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "web", file("a", "1"))
	before := files(t, s)
	hex := strings.Repeat("ab", 32)
	for _, f := range []string{
		"work/123/layer-1/root/etc/passwd", "layers/" + hex + ".erofs", "layers/" + hex + ".json", "blobs/" + hex,
		"records/.tmp-1", ".tmp-2", "layers/.tmp-3",
	} {
		path := filepath.Join(s.dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s.dir)
	if after := files(t, s); !slices.Equal(before, after) {
		t.Errorf("after a crash there is %q, want %q", after, before)
	}
	// Killed in a removal: the names are gone, the record is not; or the record is, the name is not.
	if err := os.Remove(s.recordPath(tm.ID)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if _, err := s.Get("web"); !fault.Is(err, fault.Missing) {
		t.Errorf("error is %v", err)
	}
	if left := files(t, s); !slices.Equal(left, []string{namesFile}) {
		t.Errorf("left behind: %q", left)
	}
}

func TestOpenPassesOverWorkThatCannotBeRemoved(t *testing.T) {
	s := open(t)
	importRoot(t, s, "web", file("a", "1"))
	busy := filepath.Join(s.dir, workDir, "123", "root")
	if err := os.MkdirAll(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	// As where the builder of a daemon that was killed still writes: a folder that is never empty.
	if err := unix.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(busy, unix.MNT_DETACH) })
	s = reopen(t, s.dir)
	if _, err := s.Get("web"); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if left, err := os.ReadDir(filepath.Join(s.dir, workDir)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestADamagedTemplateSaysSoAndIsMended(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "web", file("a", "1"))
	if err := os.Truncate(s.LayerPath(tm.Layers[0]), 100); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get("web")
	wantKind(t, err, fault.Unable, "damaged", "fetch it again")
	wantKind(t, s.Use("web", nil), fault.Unable)
	importRoot(t, s, "web", file("a", "1"))
	if _, err := s.Get("web"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Truncate(s.LayerPath(tm.Layers[0]), 100), s.Tag("web", "web:2")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove("web", true, unused); err != nil {
		t.Error(err)
	}
	if left := s.List(); len(left) != 0 {
		t.Errorf("with all of its names %q goes too", left[0].Names)
	}
	importRoot(t, s, "web", file("a", "1"))
	// A damaged record stops nobody else, and what it held is not swept.
	importRoot(t, s, "other", file("b", "1"))
	if err := os.WriteFile(s.recordPath(tm.ID), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s.dir)
	if _, err := s.Get("other"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.LayerPath(tm.Layers[0])); err != nil {
		t.Error(err)
	}
}
