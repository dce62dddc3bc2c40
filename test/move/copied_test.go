package move

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/test/bed"
)

// folders is how many bytes each folder of the state takes on the host's disk.
func folders(t *testing.T, b *bed.Bed) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(b.Places.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a file that was replaced meanwhile
			}
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(path, b.Places.State+"/"), "/")
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err == nil {
			sizes[name] += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// ownFolders are those in which a copy of a disk or of a template would lie.
var ownFolders = []string{"environments", "templates"}

// notCopied holds that a move has made nothing in the folders of disks and templates but
// what a start writes to the disk, and says what it has made for all.
func notCopied(t *testing.T, to string, before, after map[string]int64) {
	t.Helper()
	const started = 4 << 20 // what a start writes: a journal, a few files, the records
	for _, name := range ownFolders {
		more := after[name] - before[name]
		t.Logf("to %s, %s takes %d KiB more", to, name, more>>10)
		if more > started {
			t.Errorf("to %s, %s grew by %d bytes: something was copied", to, name, more)
		}
		delete(after, name)
	}
	for name, size := range after {
		if more := size - before[name]; more > 0 {
			t.Logf("to %s, made for all of that stratum: %s, %d KiB", to, name, more>>10)
		}
	}
}

// hold has this process, on the host, keep a file of a volume open and locked. What it
// returns writes words to it.
func hold(t *testing.T, path string) func(words string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return func(words string) {
		t.Helper()
		if _, err := f.WriteString(words); err != nil {
			t.Errorf("the host cannot write to its file any more: %v", err)
		}
	}
}

// rehearsed has every other stratum tried without a move, and holds that nothing changes.
func (l *life) rehearsed() {
	l.t.Helper()
	before := show(l.t, l.Bed, l.name)
	for _, to := range []string{"zone", "guest", "machine"} {
		out := l.Try("move", "--dry-run", l.name, to)
		if out.Status != 0 && to != before.Stratum || out.Status == 0 && to == before.Stratum {
			l.t.Errorf("a dry run from %s to %s: exit status %d\n%s", before.Stratum, to, out.Status, out.Stderr)
		}
	}
	if after := show(l.t, l.Bed, l.name); after.PID != before.PID || after.Stratum != before.Stratum || len(after.Moves) != len(before.Moves) {
		l.t.Errorf("after dry runs it is at %s, process %d; before at %s, %d", after.Stratum, after.PID, before.Stratum, before.PID)
	}
}
