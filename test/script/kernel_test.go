package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestOneKernelHoweverItComes adds Debian's kernel as a package, as a file with a
// folder of modules, and from a template that carries it.
func TestOneKernelHoweverItComes(t *testing.T) {
	unpacker := require.Tool(t, "dpkg-deb")
	pack := bed.KernelPackage(t)
	tree := t.TempDir()
	if out, err := exec.Command(unpacker, "-x", pack, tree).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		t.Fatalf("the package has %v, %v", images, err)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	// A template with usr/lib, as distributions have it, in which lib is a link.
	root := t.TempDir()
	for _, step := range []error{
		os.Mkdir(filepath.Join(root, "usr"), 0o755), os.Rename(filepath.Join(tree, "boot"), filepath.Join(root, "boot")),
		os.Rename(filepath.Join(tree, "lib"), filepath.Join(root, "usr/lib")), os.Symlink("usr/lib", filepath.Join(root, "lib")),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	b := bed.New(t)
	if got := b.Run("kernel", "add", "-q", pack); strings.TrimSpace(got) != release {
		t.Errorf("its name is %q, want %q", got, release)
	}
	want := b.Run("kernel", "show", "--json", release)
	id := field(t, want, "id")
	b.Run("kernel", "add", "-q", filepath.Join(root, "boot", "vmlinuz-"+release), "--modules", filepath.Join(root, "lib/modules", release))
	b.Run("template", "import", "-q", "--name", "carrier", root)
	b.Run("kernel", "add", "-q", "template:carrier")
	if got := strings.Fields(b.Run("kernel", "ls", "-q")); len(got) != 1 {
		t.Errorf("there are %v", got)
	}
	b.Run("kernel", "rm", release)
	b.Run("kernel", "add", "-q", "template:carrier", "--name", "mine")
	got := b.Run("kernel", "show", "--json", "mine")
	if field(t, got, "id") != id || field(t, got, "source") != "template:carrier" || field(t, got, "origin") != "/boot/vmlinuz-"+release {
		t.Errorf("of the template came %s, want id %s", got, id)
	}
	if left := b.Run("kernel", "default"); strings.TrimSpace(left) != "mine" {
		t.Errorf("the default is %q", left)
	}
}

// field reads one text of an indented JSON object.
func field(t *testing.T, text, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, `"`+name+`": "`)
	value, _, ended := strings.Cut(rest, `"`)
	if !ok || !ended {
		t.Fatalf("there is no %s in %s", name, text)
	}
	return value
}
