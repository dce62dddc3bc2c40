package main

import (
	"os"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func TestAFolderThatOthersMayWriteToIsRefused(t *testing.T) {
	require.Root(t)
	for _, c := range []struct {
		mode     os.FileMode
		uid, gid int
		fits     bool
	}{
		{0o711, 0, 0, true}, {0o775, 0, 0, true}, {0o755, 0, 7, true},
		{0o777, 0, 0, false}, {0o713, 0, 0, false}, {0o775, 0, 7, false}, {0o700, 7, 0, false},
	} {
		dir := t.TempDir()
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, c.uid, c.gid); err != nil {
			t.Fatal(err)
		}
		if err := private(dir); c.fits && err != nil || !c.fits && !fault.Is(err, fault.Denied) {
			t.Errorf("mode %o of %d:%d: %v", c.mode, c.uid, c.gid, err)
		}
	}
}
