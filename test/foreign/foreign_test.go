// Package foreign runs systems that nobody here wrote, from Debian's packages, and looks
// at their screens: nothing of strata's is inside, and none of them knows of it.
package foreign

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// start is a bed where machines are tested.
func start(t *testing.T) *bed.Bed {
	t.Helper()
	require.Host(t, "machines", os.Getenv("STRATA_MACHINES") != "", "set STRATA_MACHINES=1: emulated machines take long")
	require.Tool(t, "qemu-system-x86_64")
	return bed.New(t)
}

// unpacked returns the folder that a package's files are in.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	return unpackedFile(t, bed.Package(t, name))
}

// unpackedFile is unpacked, of a package that is here.
func unpackedFile(t *testing.T, deb string) string {
	t.Helper()
	require.Tool(t, "dpkg")
	dir := t.TempDir()
	if out, err := exec.Command("dpkg", "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v: %s", deb, err, out)
	}
	return dir
}

// file makes a file of a test's own.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func show(t *testing.T, b *bed.Bed, name string) api.Environment {
	t.Helper()
	var all []api.Environment
	if err := json.Unmarshal([]byte(b.Run("show", "--json", name)), &all); err != nil || len(all) != 1 {
		t.Fatalf("show %s: %d environments, %v", name, len(all), err)
	}
	return all[0]
}

// picture returns what a machine's screen shows.
func picture(t *testing.T, b *bed.Bed, name string) image.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "screen.png")
	b.Run("screen", "-o", path, name)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// blue is how much of a picture is blue, as memtest86+ is, and firmware is not.
func blue(p image.Image) float64 {
	n := 0
	for y := p.Bounds().Min.Y; y < p.Bounds().Max.Y; y++ {
		for x := p.Bounds().Min.X; x < p.Bounds().Max.X; x++ {
			if r, g, b, _ := p.At(x, y).RGBA(); b > 0x6000 && r < 0x2000 && g < 0x2000 {
				n++
			}
		}
	}
	return float64(n) / float64(p.Bounds().Dx()*p.Bounds().Dy())
}

// shows waits until a machine's screen matches.
func shows(t *testing.T, b *bed.Bed, name, pattern string) {
	t.Helper()
	b.Run("wait", name, "--screen", pattern, "--timeout", require.Patience(90*time.Second).String())
}

func memtest(t *testing.T) string {
	return filepath.Join(unpacked(t, "memtest86+"), "usr/lib/memtest86+/memtest86+x64.iso")
}

// TestMemtest86Plus is a system without drivers for anything but the screen.
func TestMemtest86Plus(t *testing.T) {
	b := start(t)
	iso := memtest(t)
	b.Run("run", "--name", "memtest", "--iso", iso, "--memory", "64M")
	shows(t, b, "memtest", `Memtest86\+ v6`)
	shows(t, b, "memtest", `Memory *: *63MB`)
	if e := show(t, b, "memtest"); !e.Ready || e.Kind != "foreign" || e.Stratum != "machine" || e.Trouble != "" || e.Template != "" {
		t.Errorf("%+v", e)
	}
	for what, args := range map[string][]string{
		"no program can be run":   {"exec", "memtest", "true"},
		"no file can be copied":   {"cp", "memtest:/etc/passwd", t.TempDir()},
		"no streams are there":    {"attach", "memtest"},
		"no output is kept":       {"logs", "memtest"},
		"no kernel's log is read": {"logs", "--kernel", "memtest"},
	} {
		if out := b.Try(args...); out.Status == 0 || !strings.Contains(out.Stderr, "nothing of strata's is inside") || !strings.Contains(out.Stderr, "strata screen") {
			t.Errorf("%s: %+v", what, out)
		}
	}
	if out := b.Try("kill", "--signal", "HUP", "memtest"); out.Status == 0 || !strings.Contains(out.Stderr, "takes no signals") {
		t.Errorf("a signal: %+v", out)
	}
	for what, args := range map[string][]string{
		"it cannot be suspended": {"suspend", "memtest"},
		"it cannot be moved":     {"move", "memtest", "guest"},
	} {
		if out := b.Try(args...); out.Status == 0 || !strings.Contains(out.Stderr, "foreign system") {
			t.Errorf("%s: %+v", what, out)
		}
	}
	b.Run("reset", "memtest")
	shows(t, b, "memtest", `Memtest86\+ v6`)
	b.Run("pause", "memtest")
	b.Run("resume", "memtest")
	if share := blue(picture(t, b, "memtest")); share < 0.5 {
		t.Errorf("%.2f of its screen is blue", share)
	}
	// It outlives the daemon, and is seen by the next one.
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	shows(t, b, "memtest", `Memtest86\+ v6`)
	if out := b.Try("exec", "memtest", "true"); out.Status == 0 {
		t.Error("after the daemon's end a program was run")
	}
	began := time.Now()
	b.Run("stop", "--time", "1s", "memtest") // it does not listen to the power button
	if took := time.Since(began); took < time.Second {
		t.Errorf("it had %v of its grace", took)
	}
	if e := show(t, b, "memtest"); e.State != api.Stopped || e.Exit == nil || e.Exit.Crash != "" {
		t.Errorf("%+v", e.Exit)
	}
	b.Run("start", "memtest")
	shows(t, b, "memtest", `Memtest86\+ v6`)
	b.Run("rm", "-f", "memtest")
}

func TestMemtest86PlusByUEFI(t *testing.T) {
	b := start(t)
	_, err := os.Stat("/usr/share/OVMF")
	require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
	b.Run("run", "--name", "memtest", "--firmware", "uefi", "--iso", memtest(t), "--memory", "192M")
	// It draws its letters itself then, in a font of its own.
	for end := time.Now().Add(require.Patience(90 * time.Second)); ; time.Sleep(time.Second) {
		p := picture(t, b, "memtest")
		share := blue(p)
		if share > 0.5 && share < 0.99 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%.2f of its screen of %v is blue", share, p.Bounds().Max)
		}
	}
	b.Run("rm", "-f", "memtest")
}

// TestNothingToBootIsReported looks at what firmware says, and that it is told.
func TestNothingToBootIsReported(t *testing.T) {
	b := start(t)
	disk := file(t, "empty.raw", make([]byte, 4<<20))
	b.Run("run", "--name", "empty", "--image-format", "raw", "--disk-image", disk, "--memory", "64M")
	shows(t, b, "empty", `No bootable device`)
	for end := time.Now().Add(require.Patience(30 * time.Second)); show(t, b, "empty").Trouble == ""; time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not told that nothing boots")
		}
	}
	b.Run("kill", "empty")
	b.Run("rm", "empty")
	if left, err := os.ReadFile(disk); err != nil || !bytes.Equal(left, make([]byte, 4<<20)) {
		t.Error("the image was written to")
	}
}

// TestNothingToBootIsReportedByUEFI looks at the same of OVMF, which ends in its shell.
func TestNothingToBootIsReportedByUEFI(t *testing.T) {
	b := start(t)
	_, err := os.Stat("/usr/share/OVMF")
	require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
	disk := file(t, "empty.raw", make([]byte, 4<<20))
	b.Run("run", "--name", "empty", "--firmware", "uefi", "--image-format", "raw", "--disk-image", disk, "--memory", "192M", "--network", "none")
	troubled := func() {
		t.Helper()
		for end := time.Now().Add(require.Patience(2 * time.Minute)); ; time.Sleep(500 * time.Millisecond) {
			if trouble := show(t, b, "empty").Trouble; strings.Contains(trouble, "nothing to boot") {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("it is not told that nothing boots: %s", b.Run("console", "empty"))
			}
		}
	}
	troubled()
	says(t, b, "empty", "UEFI Interactive Shell", 0)
	// A reset is another try, and the next daemon sees what came of it as well.
	b.Run("reset", "empty")
	if trouble := show(t, b, "empty").Trouble; trouble != "" {
		t.Errorf("after a reset: %s", trouble)
	}
	troubled()
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	troubled()
	b.Run("rm", "-f", "empty")
}

// TestACDIsChanged boots, by resets alone, from what is in the drive at that moment.
func TestACDIsChanged(t *testing.T) {
	b := start(t)
	iso := memtest(t)
	b.Run("run", "--name", "drive", "--iso", iso, "--disk", "32M", "--memory", "64M")
	shows(t, b, "drive", `Memtest86\+ v6`)
	b.Run("eject", "drive")
	b.Run("reset", "drive")
	shows(t, b, "drive", `No bootable device`)
	if out := b.Try("insert", "drive", file(t, "none.iso", make([]byte, 1<<20))); out.Status == 0 || !strings.Contains(out.Stderr, "foreign.iso") {
		t.Errorf("a file of zeros was inserted: %+v", out)
	}
	if out := b.Try("insert", "drive", "/no/such.iso"); out.Status == 0 || !strings.Contains(out.Stderr, "/no/such.iso") {
		t.Errorf("no file was inserted: %+v", out)
	}
	b.Run("insert", "drive", iso)
	b.Run("reset", "drive")
	shows(t, b, "drive", `Memtest86\+ v6`)
	b.Run("kill", "drive")
	b.Run("eject", "drive")
	b.Run("start", "drive")
	shows(t, b, "drive", `No bootable device`)
	b.Run("rm", "-f", "drive")
}

// TestIPXEGetsItsAddress is a boot loader that asks for one by DHCP, on a card that it
// has a driver of its own for.
func TestIPXEGetsItsAddress(t *testing.T) {
	b := start(t)
	iso := filepath.Join(unpacked(t, "ipxe"), "usr/lib/ipxe/ipxe.iso")
	b.Run("run", "--name", "ipxe", "--iso", iso, "--memory", "64M")
	own, _, _ := strings.Cut(show(t, b, "ipxe").Network.IPv4, "/")
	shows(t, b, "ipxe", `net0: `+strings.ReplaceAll(own, ".", `\.`)+`/`)
	b.Run("rm", "-f", "ipxe")
}
