package disk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

func TestAToolThatCannotBeConfinedIsNotRun(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{})
	path := filepath.Join(dir, "disk.ext4")
	must(t, p.Create(ctx, path, disk.FloorSize))
	must(t, os.WriteFile(filepath.Join(dir, "e2fsck"), []byte("#!/nonesuch\n"), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	// Its status must not be taken for one of e2fsck's, of which 1 is good.
	if err := p.Grow(ctx, path, unit.GiB); err == nil || fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "confine e2fsck") {
		t.Errorf("%v", err)
	}
	if _, size, err := disk.Usage(path); err != nil || size != int64(disk.FloorSize) {
		t.Errorf("the image has %d bytes, %v", size, err)
	}
}

func TestADamagedDiskIsMendedAndGrown(t *testing.T) {
	debugfs := require.Tool(t, "debugfs")
	p, path := made(t, 64*unit.MiB)
	for _, command := range []string{"set_block_group 0 free_blocks_count 7", "set_block_group 0 checksum calc", "set_super_value free_blocks_count 9"} {
		if out, err := exec.Command(debugfs, "-w", "-R", command, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	must(t, p.Grow(ctx, path, 300*unit.MiB))
	kept(t, p, path)
	if _, size, err := disk.Usage(path); err != nil || size != int64(300*unit.MiB) {
		t.Errorf("%d bytes, %v", size, err)
	}
}

func TestAToolSpeaksOfTheImageByItsName(t *testing.T) {
	p, path := made(t, disk.FloorSize)
	must(t, os.WriteFile(path, make([]byte, disk.FloorSize), 0o600))
	err := p.Grow(ctx, path, unit.GiB)
	if said := fmt.Sprint(err); !strings.Contains(said, "e2fsck: exit status 8: ") || strings.Count(said, path) < 2 || strings.Contains(said, "/dev/null") {
		t.Error(said)
	}
}
