package foreign

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// tool finds a program: the host's own, or one of a package that is unpacked and not
// installed.
func tool(t *testing.T, name, from string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(unpacked(t, from), "usr/bin", name)
	out, err := exec.Command(path, "--version").CombinedOutput()
	require.Host(t, name, err == nil, "the package "+from+" does not run on this host: "+string(out))
	return path
}

// convert makes an image of the disk in raw, by QEMU's own tool.
func convert(t *testing.T, raw, to string, args ...string) {
	t.Helper()
	command(t, tool(t, "qemu-img", "qemu-utils"), append(append([]string{"convert", "-f", "raw"}, args...), raw, to)...)
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out[max(0, len(out)-4<<10):])
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// says waits until a line of a system's console has the words.
func says(t *testing.T, b *bed.Bed, name, words string, bound time.Duration) {
	t.Helper()
	for end := time.Now().Add(require.Patience(bound)); ; time.Sleep(300 * time.Millisecond) {
		out := b.Run("console", name)
		if strings.Contains(out, words) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the console does not say %q in %v:\n%s", words, bound, out[max(0, len(out)-4<<10):])
		}
	}
}

// formats are disk images as QEMU's own tool makes them.
var formats = []struct {
	name, file string
	args       []string
	more       string // a second file of the image
}{
	{"raw", "disk.raw", []string{"-O", "raw"}, ""},
	{"qcow2", "disk.qcow2", []string{"-O", "qcow2"}, ""},
	{"qcow2, packed by zstd", "disk.qcow2", []string{"-O", "qcow2", "-c", "-o", "compression_type=zstd"}, ""},
	{"vmdk, monolithicSparse", "disk.vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicSparse"}, ""},
	{"vmdk, streamOptimized", "disk.vmdk", []string{"-O", "vmdk", "-o", "subformat=streamOptimized"}, ""},
	{"vmdk, monolithicFlat", "disk.vmdk", []string{"-O", "vmdk", "-o", "subformat=monolithicFlat"}, "disk-flat.vmdk"},
	{"vdi", "disk.vdi", []string{"-O", "vdi"}, ""},
	{"vhdx", "disk.vhdx", []string{"-O", "vhdx"}, ""},
}

// TestEachFormatBootsWithoutConversion boots the same small system from an image of each
// format, which it writes to: what it has written is there at its next starts, and the
// image is as it was.
func TestEachFormatBootsWithoutConversion(t *testing.T) {
	b := start(t)
	raw := file(t, "echo.raw", echoDisk())
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			b := b.For(t)
			dir := t.TempDir()
			image := filepath.Join(dir, f.file)
			convert(t, raw, image, f.args...)
			files := []string{image}
			if f.more != "" {
				files = append(files, filepath.Join(dir, f.more))
			}
			var before []string
			for _, one := range files {
				before = append(before, digest(t, one))
			}
			b.Run("run", "--name", "echo", "--disk-image", image, "--memory", "32M")
			defer b.Try("rm", "-f", "echo")
			shows(t, b, "echo", `^echoes from disk, start 1`)
			b.Run("type", "--enter", "echo", "Hello, "+f.file+"! ~{}|<>")
			shows(t, b, "echo", `^Hello, `+strings.ReplaceAll(f.file, ".", `\.`)+`! ~\{\}\|<>$`)
			says(t, b, "echo", "Hello, "+f.file+"! ~{}|<>", 20*time.Second)
			b.Run("reset", "echo")
			shows(t, b, "echo", `^echoes from disk, start 2`)
			b.Run("kill", "echo")
			b.Run("start", "echo")
			shows(t, b, "echo", `^echoes from disk, start 3`)
			b.Run("rm", "-f", "echo")
			for i, one := range files {
				if digest(t, one) != before[i] {
					t.Errorf("%s was written to", filepath.Base(one))
				}
			}
		})
	}
}

// TestAnImportedImageIsNeededNoLonger takes the image away after it was copied.
func TestAnImportedImageIsNeededNoLonger(t *testing.T) {
	b := start(t)
	image := filepath.Join(t.TempDir(), "disk.vmdk")
	convert(t, file(t, "echo.raw", echoDisk()), image, "-O", "vmdk", "-o", "subformat=streamOptimized")
	b.Run("run", "--name", "own", "--import", "--disk-image", image, "--memory", "32M")
	shows(t, b, "own", `^echoes from disk, start 1`)
	b.Run("kill", "own")
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	b.Run("start", "own")
	shows(t, b, "own", `^echoes from disk, start 2`)
	b.Run("rm", "-f", "own")

	// Of an image that is only read, the disk goes with it.
	convert(t, file(t, "echo.raw", echoDisk()), image, "-O", "vmdk")
	b.Run("run", "--name", "lean", "--disk-image", image, "--memory", "32M")
	shows(t, b, "lean", `^echoes from disk, start 1`)
	b.Run("kill", "lean")
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	if out := b.Try("start", "lean"); out.Status != 3 || !strings.Contains(out.Stderr, "there is no image "+image) {
		t.Errorf("without its image: %+v", out)
	}
	b.Run("rm", "lean")
}

// TestTheCDIsFirstOnce starts from the CD once, and then goes by the order.
func TestTheCDIsFirstOnce(t *testing.T) {
	b := start(t)
	disk, cd := file(t, "echo.raw", echoDisk()), file(t, "echo.iso", echoCD())
	b.Run("run", "--name", "once", "--disk-image", disk, "--iso", cd, "--boot-once", "cd", "--memory", "32M")
	shows(t, b, "once", `^echoes from cd  , start 1`)
	b.Run("reset", "once")
	shows(t, b, "once", `^echoes from disk, start 1`)
	b.Run("kill", "once")
	b.Run("start", "once")
	shows(t, b, "once", `^echoes from disk, start 2`)
	b.Run("rm", "-f", "once")

	b.Run("run", "--name", "order", "--disk-image", disk, "--iso", cd, "--boot", "cd,disk", "--memory", "32M")
	for range 2 {
		shows(t, b, "order", `^echoes from cd  , start 1`)
		b.Run("eject", "order")
		b.Run("reset", "order")
		shows(t, b, "order", `^echoes from disk`)
		b.Run("insert", "order", cd)
		b.Run("reset", "order")
	}
	b.Run("rm", "-f", "order")
}
