package foreign

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

// stickModules are GRUB's parts that boot a kernel, or a hypervisor, of a stick.
var stickModules = []string{"biosdisk", "part_gpt", "ext2", "gzio", "normal", "linux", "multiboot2", "serial", "configfile", "boot"}

// stick makes a small disk of files, by their names on it, that GRUB boots as config says.
func stick(t *testing.T, config string, files map[string]string) string {
	t.Helper()
	const root, size = 4096, 256 << 20
	require.Tool(t, "mke2fs")
	tree, modules := t.TempDir(), filepath.Join(unpacked(t, "grub-pc-bin"), "usr/lib/grub/i386-pc")
	if err := os.MkdirAll(filepath.Join(tree, "boot/grub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "boot/grub/grub.cfg"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	for to, from := range files {
		command(t, "cp", from, filepath.Join(tree, to))
	}
	core := filepath.Join(t.TempDir(), "core.img")
	args := append([]string{"-d", modules, "-O", "i386-pc", "-p", "(,gpt2)/boot/grub", "-o", core}, stickModules...)
	if out, err := exec.Command(tool(t, "grub-mkimage", "grub-common"), args...).CombinedOutput(); err != nil {
		t.Fatalf("grub-mkimage: %v: %s", err, out)
	}
	disk := filepath.Join(t.TempDir(), "stick.raw")
	rest := partition{linuxFiles, root, lastOf(size)}
	if err := carve(disk, size, filepath.Join(modules, "boot.img"), core, []partition{{biosBoot, stockBIOS, root - 1}, rest}); err != nil {
		t.Fatal(err)
	}
	fill(t, disk, tree, rest)
	return disk
}
