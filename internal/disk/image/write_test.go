package image

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

func TestAnImageThatIsWrittenToHasOneUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *Chain {
		t.Helper()
		c, err := Open(path, Rules{Format: Raw})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	first, second := open(), open()
	if _, err := first.Layers[0].Parts[0].File.WriteAt([]byte("x"), 0); err == nil {
		t.Error("what was opened for reading could be written to")
	}
	if err := first.Writable(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Layers[0].Parts[0].File.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	if err := second.Writable(); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second user: %v", err)
	}
	first.Close()
	if err := second.Writable(); err != nil {
		t.Errorf("after the first user's end: %v", err)
	}
}

func TestOnlySomeFormatsAreWrittenTo(t *testing.T) {
	c := &Chain{Format: VMDK}
	if err := c.Writable(); !fault.Is(err, fault.Unable) {
		t.Errorf("%v", err)
	}
}
