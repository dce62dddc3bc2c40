package foreign

import (
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestTheDebianInstallerIsTypedThrough answers the questions that Debian's installer asks
// first, as somebody in front of the screen would.
func TestTheDebianInstallerIsTypedThrough(t *testing.T) {
	b := start(t)
	from := filepath.Join(unpacked(t, "debian-installer-12-netboot-amd64"), "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64")
	disk := stick(t, `set timeout=0
menuentry "Install" {
	linux /linux fb=false vga=normal nomodeset
	initrd /initrd.gz
}
`, map[string]string{"linux": filepath.Join(from, "linux"), "initrd.gz": filepath.Join(from, "initrd.gz")})
	began := time.Now()
	b.Run("run", "--name", "installer", "--os", "linux", "--memory", "1G", "--disk-image", disk)
	eventually(t, b, "installer", `Select a language`, 2*slow)
	t.Logf("its first dialog after %v", time.Since(began).Round(time.Second))
	dialog := func(pattern string) {
		t.Helper()
		eventually(t, b, "installer", pattern, slow)
		t.Logf("%q after %v", pattern, time.Since(began).Round(time.Second))
	}
	b.Run("key", "installer", "ret")
	dialog(`Select your location`)
	b.Run("key", "installer", "up", "ret") // United Kingdom is above the United States
	dialog(`Configure the keyboard`)
	if text := b.Run("screen", "--text", "installer"); !regexp.MustCompile(`British English`).MatchString(text) {
		t.Errorf("the keyboard that is proposed: %s", text)
	}
	b.Run("key", "installer", "ret")
	// It has found its network card, and was told its address: else it would ask.
	dialog(`(?s)Configure the network.*hostname`)
	b.Run(append([]string{"key", "installer"}, slices.Repeat([]string{"backspace"}, 12)...)...)
	b.Run("type", "installer", "typed-by-strata")
	dialog(`typed-by-strata`)
	b.Run("rm", "-f", "installer")
}

// eventually waits until a machine's screen matches, for longer than a command may take.
func eventually(t *testing.T, b *bed.Bed, name, pattern string, bound time.Duration) {
	t.Helper()
	for end := time.Now().Add(require.Patience(bound)); ; {
		out := b.Try("wait", name, "--screen", pattern, "--timeout", "30s")
		if out.Status == 0 {
			return
		}
		if time.Now().After(end) || show(t, b, name).State != api.Running {
			t.Fatalf("the screen does not match %q in %v: %s", pattern, bound, out.Stderr)
		}
	}
}
