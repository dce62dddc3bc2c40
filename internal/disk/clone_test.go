package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// TestCloneCost compares with what the file system does with a disk itself.
func TestCloneCost(t *testing.T) {
	p, path := made(t, 64*unit.MiB)
	cost, err := p.CloneCost(path)
	must(t, err)
	src, err := os.Open(path)
	must(t, err)
	defer src.Close()
	dst, err := os.Create(filepath.Join(t.TempDir(), "other"))
	must(t, err)
	defer dst.Close()
	shared := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
	used, _, err := disk.Usage(path)
	must(t, err)
	switch {
	case shared && cost != 0:
		t.Errorf("a clone would copy %s, and the file system shares blocks", cost)
	case !shared && cost != unit.Size(used):
		t.Errorf("a clone would copy %s; the disk takes %s", cost, unit.Size(used))
	}
	t.Logf("shared: %v, cost %s", shared, cost)
	if _, err := p.CloneCost(path + "x"); !fault.Is(err, fault.Missing) {
		t.Errorf("of what is not there: %v", err)
	}
}
