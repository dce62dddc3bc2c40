package price

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/require"
)

// TestWhatIsCachedIsWhatWasRead holds beside what the kernel drops when it is told to.
func TestWhatIsCachedIsWhatWasRead(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "in", "file")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(dir, "link")); err != nil { // which is not followed
		t.Fatal(err)
	}
	if err := os.Link(path, filepath.Join(dir, "twice")); err != nil { // which counts once
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil { // nor is this waited for
		t.Fatal(err)
	}
	got, err := Cached(dir)
	require.Host(t, "cachestat", !errors.Is(err, unix.ENOSYS), "this kernel has no cachestat")
	if err != nil || got != size {
		t.Errorf("after it was written: %d, %v; want %d", got, err, size)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	if got, err := Cached(path); err != nil || got > size/2 {
		t.Errorf("after it was dropped: %d, %v", got, err)
	}
	if _, err := Cached(filepath.Join(dir, "none")); err == nil {
		t.Error("what is not there is cached")
	}
}
