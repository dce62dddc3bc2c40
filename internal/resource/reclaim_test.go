package resource

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func TestAGroupGivesItsCachesBack(t *testing.T) {
	r := realRoot(t)
	ctx := t.Context()
	g, err := r.Create(ctx, "cached", Limits{}, DefaultDevices(), 0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "file")
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	require.Host(t, "disk", st.Type != unix.TMPFS_MAGIC, "the folder for temporary files is in memory")
	p := spawn(t, g, "write "+path)
	if got := p.step(t); got != "wrote" {
		t.Fatal(got)
	}
	before, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if before.Memory.File < 32<<20 {
		t.Fatalf("only %d bytes of page cache", before.Memory.File)
	}
	if r.homes["memory"] != r.unified {
		if err := g.Reclaim(ctx, 32<<20); !fault.Is(err, fault.Unable) {
			t.Errorf("a part of it, on v1: %v", err)
		}
	} else {
		if err := g.Reclaim(ctx, 32<<20); err != nil {
			t.Error(err)
		}
		if s, _ := g.Stats(); s.Memory.Current < 31<<20 {
			t.Errorf("%d are left of 32 MiB that are guaranteed", s.Memory.Current)
		}
	}
	if err := g.Reclaim(ctx, 0); err != nil {
		t.Fatal(err)
	}
	after, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if freed := before.Memory.Current - after.Memory.Current; freed < 30<<20 {
		t.Errorf("%d bytes came back of %d", freed, before.Memory.File)
	}
	p.Process.Kill()
	p.Wait()
	if err := g.Remove(ctx); err != nil {
		t.Error(err)
	}
}
