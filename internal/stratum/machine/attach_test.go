package machine

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// overlay is the header of a qcow2 image that lies over another file, and no more.
// Source: QEMU, docs/interop/qcow2.txt.
func overlay(name string) []byte {
	h, be := make([]byte, 1<<16), binary.BigEndian
	copy(h, "QFI\xfb")
	for at, v := range map[int]uint32{4: 2, 12: 72, 16: uint32(len(name)), 20: 16, 28: 1 << 20, 36: 1} {
		be.PutUint32(h[at:], v)
	}
	copy(h[72:], name)
	return h
}

// TestAnAttachedDiskLeadsToNothingElse than when it was attached, and to nothing of strata's own.
func TestAnAttachedDiskLeadsToNothingElse(t *testing.T) {
	dir := t.TempDir()
	top, state := filepath.Join(dir, "top"), filepath.Join(dir, "state")
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"base", "secret", "state/disk"} {
		write(name, overlay(""))
	}
	if err := os.Symlink("state/disk", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	d := stratum.Device{Disk: &api.Disk{Name: "disk1", File: top, Format: "qcow2"}}
	for _, c := range []struct {
		name string
		says string
		keep bool
	}{
		{"link", "is strata's own", false}, {"base", "", true}, {"base", "", true}, {"secret", "what it lay over", true}, {"/etc/shadow", "what it lay over", true},
	} {
		write("top", overlay(c.name))
		chain, err := openAttached(d, state)
		if err == nil {
			if c.keep {
				d.Images = chain.Members()
			}
			chain.Close()
		}
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !fault.Is(err, fault.Invalid) || fault.All(err)[0].Field != "file") {
			t.Errorf("over %s: %v", c.name, err)
		}
	}
}
