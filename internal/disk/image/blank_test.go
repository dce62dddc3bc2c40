package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

func TestImagesThatAreWrittenToAreInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path, Rules{Format: Raw})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Busy(); err != nil {
		t.Errorf("nobody has it: %v", err)
	}
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for what, at := range map[string]struct {
		start int64
		busy  bool
	}{"one that reads": {100, false}, "one that writes": {writers, true}} {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: at.start, Len: 1}
		if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			t.Fatal(err)
		}
		if err := c.Busy(); fault.Is(err, fault.Conflict) != at.busy {
			t.Errorf("%s: %v", what, err)
		}
		lock.Type = unix.F_UNLCK
		if err := unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			t.Fatal(err)
		}
	}
}
