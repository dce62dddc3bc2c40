package place

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

func TestFind(t *testing.T) {
	t.Setenv(RootVariable, "")
	if p, err := Find(""); err != nil || p.Socket != "/run/strata/strata.sock" || p.Name("strata") != "strata" {
		t.Errorf("installed places = %+v, %v", p, err)
	}
	a, b := t.TempDir(), t.TempDir()
	t.Setenv(RootVariable, a)
	fromEnv, err := Find("")
	if err != nil || fromEnv.State != filepath.Join(fromEnv.Root, "state") {
		t.Fatalf("private places = %+v, %v", fromEnv, err)
	}
	flag, err := Find(b)
	if err != nil || flag.Tag == fromEnv.Tag || len(flag.Tag) != 6 {
		t.Errorf("two roots share a tag: %+v %+v, %v", fromEnv, flag, err)
	}
	for _, bad := range []string{"/", "/" + strings.Repeat("x", 120)} {
		if _, err := Find(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("Find(%.20q) = %v; want an invalid fault", bad, err)
		}
	}
}

// TestARootThatIsInUseIsServed has one longer than a new one may be.
func TestARootThatIsInUseIsServed(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	most := maxSocketPath - len("/run") - usedSocketTail
	if len(dir) > most-2 {
		t.Skipf("%s is too long a folder for this", dir)
	}
	root := filepath.Join(dir, strings.Repeat("x", most-len(dir)-1))
	if _, err := Find(root); !fault.Is(err, fault.Invalid) {
		t.Errorf("a new one of %d bytes: %v; want an invalid fault", len(root), err)
	}
	if err := os.MkdirAll(filepath.Join(root, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(root); err != nil {
		t.Errorf("one of %d bytes that is in use: %v", len(root), err)
	}
}

func TestATagStays(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "link", "new", "root")
	before, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	after, err := Find(root)
	if err != nil || before != after || after.Root != filepath.Join(dir, "real", "new", "root") {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
}

func TestBinaryNamesWhereItLooked(t *testing.T) {
	_, err := Binary("strata-no-such-program")
	if !fault.Is(err, fault.Missing) || !strings.Contains(err.Error(), libexec) {
		t.Errorf("err = %v", err)
	}
}

func TestBinaryIsFoundBelowAnyPrefix(t *testing.T) {
	prefix := t.TempDir()
	program := filepath.Join(prefix, libexec, "strata-test-program")
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := binary(filepath.Join(prefix, "bin"), "strata-test-program"); err != nil || got != program {
		t.Errorf("got %q, %v; want %s", got, err, program)
	}
}
