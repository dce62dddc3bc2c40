package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

// TestACDIsReadByTheKernel mounts one, and reads its files.
func TestACDIsReadByTheKernel(t *testing.T) {
	require.Root(t)
	path, place := filepath.Join(t.TempDir(), "a.iso"), t.TempDir()
	files := []CDFile{{"agent", bytes.Repeat([]byte("0123456789"), 5000)}, {"install.sh", []byte("#!/bin/sh\n")}, {"empty", nil}}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Burn(f, "strata", files); err != nil {
		t.Fatal(err)
	}
	f.Close()
	c, err := Open(path, Rules{CD: true})
	if err != nil {
		t.Fatalf("it is not taken for a CD: %v", err)
	}
	c.Close()
	out, err := exec.Command("mount", "-t", "iso9660", "-o", "loop,ro", path, place).CombinedOutput()
	require.Host(t, "iso9660", err == nil, "a CD cannot be mounted: "+string(out))
	defer exec.Command("umount", place).Run()
	for _, want := range files {
		if got, err := os.ReadFile(filepath.Join(place, want.Name)); err != nil || !bytes.Equal(got, want.Data) {
			t.Errorf("%s: %d bytes, %v", want.Name, len(got), err)
		}
	}
	if err := Burn(f, "strata", make([]CDFile, 17)); err == nil {
		t.Error("more files than fit are taken")
	}
}
