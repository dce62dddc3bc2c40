package foreign

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/test/bed"
)

// held is how many bytes the files below a folder hold on the host, each file once.
func held(t *testing.T, dir string) (total int64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		if !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

func bases(t *testing.T, b *bed.Bed) []os.DirEntry {
	t.Helper()
	found, err := os.ReadDir(filepath.Join(b.Places.State, "bases"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// TestAForeignSystemsCloneCopiesNothing has a system write a character, and its clones
// others; each keeps its own, whoever of them is removed.
func TestAForeignSystemsCloneCopiesNothing(t *testing.T) {
	b := start(t)
	const size = 32 << 20
	image := make([]byte, size)
	rand.Read(image[4096:]) // so that a copy would be seen
	copy(image, keeps)
	image[510], image[511], image[512] = 0x55, 0xaa, 'o'
	b.Run("run", "--name", "origin", "--import", "--memory", "32M", "--disk-image", file(t, "sector.raw", image))
	hears(t, b, "origin", 0, `<o>`)
	put := func(name, character string) {
		t.Helper()
		at := len(serialLine(b, name))
		b.Run("type", name, character)
		hears(t, b, name, at, `!`)
		b.Run("kill", name)
	}
	is := func(name, character string) {
		t.Helper()
		at := 0
		if out := b.Try("console", name); out.Status == 0 {
			at = len(out.Stdout)
		}
		b.Run("start", name)
		hears(t, b, name, at, `<`+character+`>`)
	}
	if out := b.Try("clone", "origin", "early"); out.Status == 0 || !strings.Contains(out.Stderr, "stands still") {
		t.Errorf("one that runs was cloned: %+v", out)
	}
	put("origin", "1")
	before := held(t, b.Places.State)
	if before < size {
		t.Fatalf("the state holds %d bytes, less than the disk", before)
	}
	b.Run("clone", "origin", "first")
	b.Run("clone", "origin", "second")
	if more := held(t, b.Places.State) - before; more > size/16 {
		t.Errorf("two clones of %d bytes hold %d", size, more)
	}
	if n := len(bases(t, b)); n != 1 {
		t.Errorf("%d bases for clones of what has not changed", n)
	}
	is("first", "1")
	put("first", "2")
	is("origin", "1")
	put("origin", "3")
	b.Run("clone", "first", "third")
	b.Run("rm", "origin")
	b.Run("rm", "first")
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	if n := len(bases(t, b)); n != 2 {
		t.Errorf("%d bases, and two are in use", n)
	}
	is("second", "1")
	is("third", "2")
	put("third", "4")
	is("third", "4")
	b.Run("rm", "-f", "third")
	until(t, "the base that nobody uses is gone", func() bool { return len(bases(t, b)) == 1 })
	b.Run("rm", "-f", "second")
	until(t, "no base is left", func() bool { return len(bases(t, b)) == 0 })
}
