package template

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/tool/treat"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == treat.Command {
		os.Exit(treat.Run(os.Args))
	}
	os.Exit(m.Run())
}

// open returns a store in a folder of the test's own.
func open(t testing.TB) *Store {
	t.Helper()
	require.Root(t)
	require.Tool(t, "mkfs.erofs")
	return reopen(t, t.TempDir())
}

func reopen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, "/proc/self/exe", nil) // TestMain does what strata-agent would
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entry is one entry of a tar that a test makes.
type entry struct {
	tar.Header
	data string
}

func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func folder(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func makeTar(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	out := new(bytes.Buffer)
	w := tar.NewWriter(out)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_000_000_000, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func importRoot(t testing.TB, s *Store, name string, entries ...entry) Template {
	t.Helper()
	tm, err := s.Import(t.Context(), makeTar(t, entries...), ImportOptions{Name: name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tm
}

// files lists what is below the store's folder, without the folders themselves.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(s.dir, path)
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantKind(t testing.TB, err error, kind fault.Kind, words ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("error is %v, want kind %s", err, kind)
	}
	text := err.Error()
	for _, e := range fault.All(err) {
		text += " | " + e.Hint
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Fatalf("error %q does not say %q", text, w)
		}
	}
}

func TestBusyboxIsMadeOnce(t *testing.T) {
	s := open(t)
	_, _, err := findBusybox()
	require.Host(t, "busybox-static", err == nil, "no static busybox")
	first, err := s.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := files(t, s)
	again, err := s.Busybox(t.Context())
	if err != nil || again.ID != first.ID || len(files(t, s)) != len(before) {
		t.Fatalf("second: %v, %v", again, err)
	}
	got, err := reopen(t, s.dir).Get("busybox")
	if err != nil || got.ID != first.ID {
		t.Fatalf("after reopening: %v, %v", got, err)
	}
	if want := "sh"; len(got.Config.Cmd) != 1 || got.Config.Cmd[0] != want || got.Config.System {
		t.Fatalf("config is %+v", got.Config)
	}
}

func TestARecordThatCannotBeReadKeepsItsNames(t *testing.T) {
	s := open(t)
	tm := importRoot(t, s, "kept", file("x", "x"))
	if err := s.Tag("kept", "also"); err != nil {
		t.Fatal(err)
	}
	importRoot(t, s, "other", file("y", "y"))
	whole, err := os.ReadFile(s.recordPath(tm.ID))
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) *Store {
		t.Helper()
		if err := os.WriteFile(s.recordPath(tm.ID), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return reopen(t, s.dir)
	}
	if err := put([]byte(`{"version": 99}`)).Tag("other", "further"); err != nil {
		t.Fatal(err)
	}
	if got, err := put(whole).Get("kept"); err != nil || got.ID != tm.ID {
		t.Errorf("it is %+v, %v", got, err)
	}
	s = put(nil)
	for _, name := range []string{"kept", "also"} { // somebody takes it, and gives one of them back
		if err := s.Tag("other", name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Remove("also", false, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := put(whole).Get("kept"); err != nil || got.ID == tm.ID {
		t.Errorf("it is %+v, %v", got, err)
	}
	if got, err := reopen(t, s.dir).Get("also"); err == nil {
		t.Errorf("the name that was removed is back: %+v", got)
	}
}
