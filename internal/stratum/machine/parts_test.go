package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// TestTheFolderOfATPMIsGivenToItsUser with what swtpm keeps, and no more than that is listed.
func TestTheFolderOfATPMIsGivenToItsUser(t *testing.T) {
	require.Root(t)
	const user = 4242
	dir := t.TempDir()
	give := func() error {
		folder, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer folder.Close()
		return own(folder, user)
	}
	owned := func(path string) bool {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		s := info.Sys().(*syscall.Stat_t)
		return s.Uid == user && s.Gid == user
	}
	if err := give(); err != nil || !owned(dir) {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < maxTPMFiles; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := give(); err != nil || !owned(filepath.Join(dir, "1")) || !owned(filepath.Join(dir, "link")) || owned("/etc/passwd") {
		t.Errorf("a full folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := give(); !fault.Is(err, fault.Unable) || !strings.Contains(fault.All(err)[0].Hint, dir) || owned(filepath.Join(dir, "more")) {
		t.Errorf("a file too many: %v", err)
	}
}
